"""The uplift network as it is exported, beside the members that it is made of."""

import pytest
import torch
from torch import nn

from training.models.offer_uplift import Members, OfferUplift, OfferUpliftGraph


@pytest.mark.parametrize("count", [1, 5])
def test_the_graph_answers_as_its_members_do(count: int) -> None:
    torch.manual_seed(0)
    networks = []
    for _ in range(count):
        network = OfferUplift(num_features=7, num_arms=4, hidden=8, dropout=0.1)
        network.standardise_on(torch.randn(50, 7) * 2 + 1)
        network.spend_ratio = torch.rand(()) + 0.5
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)
        networks.append(network)
    members = Members(networks).eval()
    features, value = torch.randn(6, 7) * 3, torch.rand(6, 1) * 5_000
    with torch.no_grad():
        answer = members(features, value)
        found = OfferUpliftGraph(members).eval()(features, value)
    torch.testing.assert_close(found, torch.cat([answer[..., 0], answer[..., 1]], dim=1))
