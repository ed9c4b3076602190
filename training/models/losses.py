"""Softmax losses that never hold batch x length x catalogue.

Suffixes: P positives, M shared negatives, D space, N items, H places of the history.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_BYTES = 6 * 2**20  # of logits at a time: what a core's cache can nearly hold


def sampled_softmax(
    query_PD: Tensor,
    positive_PD: Tensor,
    negative_MD: Tensor,
    positive_P: Tensor,
    negative_M: Tensor,
    log_q: Tensor,
    weight_P: Tensor | None = None,
    refused_logit_PR: Tensor | None = None,
) -> Tensor:
    """Softmax over each positive and the shared negatives, corrected by -logQ; and over negatives
    of each positive's own, whose logits are given.

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
    parts = [positive_logit_P1, negative_logit_PM]
    logits = torch.cat(parts if refused_logit_PR is None else [*parts, refused_logit_PR], dim=1)
    loss_P = -functional.log_softmax(logits, dim=1)[:, 0]
    if weight_P is None:
        return loss_P.mean()
    return (loss_P * weight_P).sum() / weight_P.sum().clamp(min=1e-9)


class _FullSoftmax(torch.autograd.Function):
    """Forward and backward in one pass over chunks of positives: the softmax of a chunk is turned
    into gradients while it is there, and forgotten."""

    @staticmethod
    def forward(
        ctx: Any,
        query_PD: Tensor,
        items_ND: Tensor,
        target_P: Tensor,
        repeat_PH: Tensor | None,
        history_PH: Tensor | None,
        first_item: int,
    ) -> Tensor:
        half = _reduced(query_PD)
        query, items = query_PD.detach().to(half), items_ND.detach().to(half)
        query_grad = torch.empty_like(query_PD, dtype=torch.float32)
        items_grad = torch.zeros_like(items_ND, dtype=torch.float32)
        repeat_grad = None if repeat_PH is None else torch.empty_like(repeat_PH)
        loss = torch.zeros((), dtype=torch.float32, device=query.device)
        size = max(16, _CHUNK_BYTES // (len(items) * query.element_size()))
        for start in range(0, len(query), size):
            part = slice(start, start + size)
            logits_CN = query[part] @ items.T
            if repeat_PH is not None and history_PH is not None:
                logits_CN.scatter_add_(1, history_PH[part], repeat_PH[part].to(half))
            logits_CN[:, :first_item] = float("-inf")
            target_C1 = target_P[part, None]
            share_CN = torch.softmax(logits_CN, dim=1)
            # bfloat16 has the range of float32: a small share keeps its order of magnitude.
            loss -= share_CN.gather(1, target_C1).float().clamp(min=1e-37).log().sum()
            share_CN.scatter_add_(1, target_C1, share_CN.new_full(target_C1.shape, -1.0))
            query_grad[part] = share_CN @ items
            items_grad += share_CN.T @ query[part]
            if repeat_grad is not None and history_PH is not None:
                repeat_grad[part] = share_CN.gather(1, history_PH[part]).to(repeat_grad.dtype)
        ctx.save_for_backward(query_grad, items_grad, repeat_grad)
        ctx.count = max(1, len(query))
        mean: Tensor = loss / ctx.count
        return mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] / ctx.count
        query_grad, items_grad, repeat_grad = ctx.saved_tensors
        repeat = None if repeat_grad is None else repeat_grad * scale
        return query_grad * scale, items_grad * scale, None, repeat, None, None


def _reduced(query_PD: Tensor) -> torch.dtype:
    """bfloat16 where the device multiplies it quicker than float32, else float32."""
    if query_PD.dtype == torch.float64:
        return torch.float64
    if query_PD.is_cuda or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def full_softmax(
    query_PD: Tensor,
    items_ND: Tensor,
    target_P: Tensor,
    *,
    repeat_PH: Tensor | None = None,
    history_PH: Tensor | None = None,
    first_item: int,
) -> Tensor:
    """Mean cross entropy of `target_P` over all items from `first_item` on, a scalar.

    `repeat_PH` is added to the logits of the items `history_PH` (equal items add up); padding
    belongs below `first_item`. Logits are in bfloat16 where the machine is quick at it, sums in
    float32. The idea of turning each chunk into gradients at once is that of fused linear cross
    entropy (Hsu et al., "Liger Kernel", arXiv 2410.10989).
    """
    loss: Tensor = _FullSoftmax.apply(  # type: ignore[no-untyped-call]
        query_PD, items_ND, target_P, repeat_PH, history_PH, first_item
    )
    return loss


def listwise_softmax(
    scores_BC: Tensor, relevant_BC: Tensor, mask_BC: Tensor, weight_B: Tensor | None = None
) -> Tensor:
    """Cross entropy between the softmax of the scores and the relevant candidates, equal shares;
    each checkout counts `weight_B` times (once)."""
    log_share = functional.log_softmax(scores_BC.masked_fill(~mask_BC, float("-inf")), dim=1)
    share = relevant_BC / relevant_BC.sum(dim=1, keepdim=True)
    loss_B = -(torch.where(relevant_BC > 0, share * log_share, 0.0)).sum(dim=1)
    return loss_B.mean() if weight_B is None else (loss_B * weight_B).mean()
