"""The uplift network of a release: the ONNX file, its parity with torch, its arms."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from contract.errors import GateRefused
from contract.manifest import OFFER_UPLIFT
from contract.offer_arms import OfferArms
from training.evaluation.network_chances import released_files
from training.export import graphs, parity
from training.models.offer_uplift import OfferUpliftGraph
from training.uplift.evidence import read_evidence
from training.uplift.run_folder import read_uplift


@dataclass(frozen=True)
class ExportedUplift:
    """What goes into a release."""

    content: bytes
    arms: bytes
    num_arms: int  # without no offer
    difference: float  # to torch


def uplift_model(folder: Path) -> ExportedUplift:
    """The network that `tillwise-train uplift` wrote to `folder`. Raises UserError where it is not
    there, GateRefused where its offers are not shown to pay, or where ONNX Runtime answers
    otherwise than torch."""
    members, arms = read_uplift(folder)
    refused = read_evidence(folder).refused
    if refused is not None:
        raise GateRefused(f"uplift: {folder}: {refused}")
    graph: nn.Module = OfferUpliftGraph(members).eval()
    size = 2 * (1 + len(arms.arms))
    content = graphs.to_onnx(OFFER_UPLIFT, graph, parity.example(OFFER_UPLIFT, 1), size)
    difference = parity.largest_difference(
        OFFER_UPLIFT, graph, content, 1, np.random.default_rng(0)
    )
    if not difference <= parity.TOLERANCE:
        raise GateRefused(
            f"parity: {OFFER_UPLIFT} differs from torch by {difference:.2e}, more than "
            f"{parity.TOLERANCE:.0e}"
        )
    return _exported(content, arms, difference)


def carried_uplift(releases: Path, models: Path, release_id: str) -> ExportedUplift:
    """The network of a release as it is, for the next one. Raises UserError where it has none that
    this version can ask."""
    files = released_files(releases, models, release_id)
    return _exported(files.content, files.arms, files.difference)


def _exported(content: bytes, arms: OfferArms, difference: float) -> ExportedUplift:
    told = (arms.model_dump_json(indent=1) + "\n").encode()
    return ExportedUplift(content, told, len(arms.arms), difference)
