"""Softmax losses that never hold batch x length x catalogue.

Suffixes: P positives, M shared negatives, D space.
"""

import torch
from torch import Tensor
from torch.nn import functional


def sampled_softmax(
    query_PD: Tensor,
    positive_PD: Tensor,
    negative_MD: Tensor,
    positive_P: Tensor,
    negative_M: Tensor,
    log_q: Tensor,
    weight_P: Tensor | None = None,
) -> Tensor:
    """Softmax over each positive and the shared negatives, corrected by -logQ.

    `log_q` [N]: log probability of every item under the negative sampler (Yi et al., "Sampling-bias
    -corrected neural modeling", RecSys 2019). Without it the popular items, drawn more often, would
    be pushed down too far. A negative that equals the positive is left out of that row.
    """
    positive_logit_P1 = (query_PD * positive_PD).sum(dim=1, keepdim=True) - log_q[positive_P][
        :, None
    ]
    negative_logit_PM = query_PD @ negative_MD.T - log_q[negative_M]
    same_PM = positive_P[:, None] == negative_M[None, :]
    negative_logit_PM = negative_logit_PM.masked_fill(same_PM, float("-inf"))
    logits = torch.cat([positive_logit_P1, negative_logit_PM], dim=1)
    loss_P = -functional.log_softmax(logits, dim=1)[:, 0]
    if weight_P is None:
        return loss_P.mean()
    return (loss_P * weight_P).sum() / weight_P.sum().clamp(min=1e-9)


def listwise_softmax(scores_BC: Tensor, relevant_BC: Tensor, mask_BC: Tensor) -> Tensor:
    """Cross entropy between the softmax of the scores and the relevant candidates, equal shares."""
    log_share = functional.log_softmax(scores_BC.masked_fill(~mask_BC, float("-inf")), dim=1)
    share = relevant_BC / relevant_BC.sum(dim=1, keepdim=True)
    return -(torch.where(relevant_BC > 0, share * log_share, 0.0)).sum(dim=1).mean()
