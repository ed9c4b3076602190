"""What an uplift network says of a log whose arms may be others than it was fitted on: each arm of
the log is answered for by the network's arm that is nearest to its discount, as in the gateway
(contract.offer_arms); about any other the network says nothing. The network is a fitted one, or
that of a release, read from its files and asked through ONNX Runtime as the gateway asks it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import UserError
from contract.manifest import MANIFEST, OFFER_ARMS, OFFER_UPLIFT, Root, sha256, verify
from contract.offer_arms import OfferArms
from contract.policy import NO_OFFER
from training.data.checkouts import read_offer_arms
from training.data.offer_arms_file import read_arms
from training.data.offer_log import Floats, OfferLog
from training.evaluation.released import read_manifest
from training.export.int8 import session
from training.uplift.fit import predicted
from training.uplift.run_folder import read_uplift


@dataclass(frozen=True)
class Network:
    """An uplift network: its arms, and the chance of the outcome [N, 1 + arms] of every row of a
    log under each of them, no offer first. `where` it is from."""

    where: str
    arms: OfferArms
    answer: Callable[[OfferLog], Floats]


def fitted_network(folder: Path) -> Network:
    """Of `tillwise-train uplift`. UserError where it is not there."""
    model, arms = read_uplift(folder)
    return Network(str(folder), arms, lambda log: predicted(model, log)[0])


@dataclass(frozen=True)
class NetworkFiles:
    """What a release carries of an uplift network. `difference`: of `content` to torch."""

    content: bytes
    arms: OfferArms
    difference: float


def released_files(releases: Path, models: Path, release_id: str) -> NetworkFiles:
    """Of a release, every file of which is as its manifest says. UserError where it carries no
    network, one that this version can not ask, or is not what the manifest says."""
    manifest = read_manifest(releases, release_id)
    folder = releases / release_id

    def digest_of(root: Root, name: str) -> str | None:
        path = (folder if root == "release" else models) / name
        return sha256(path.read_bytes()) if path.is_file() else None

    problems = verify((folder / MANIFEST).read_bytes(), digest_of, release_id=release_id)
    if problems:
        raise UserError(f"release {release_id}: {problems[0]}")
    if OFFER_ARMS not in manifest.files:
        raise UserError(
            f"release {release_id}: carries no uplift network; export --uplift adds one"
        )
    entry = manifest.model(OFFER_UPLIFT)
    arms = read_arms(folder)
    if arms.problem is not None:
        raise UserError(f"release {release_id}: its uplift network: {arms.problem}")
    content = (models / OFFER_UPLIFT / str(entry.version) / "model.onnx").read_bytes()
    return NetworkFiles(content, arms, entry.parity)


def released_network(releases: Path, models: Path, release_id: str) -> Network:
    """Of a release. UserError as `released_files`."""
    files = released_files(releases, models, release_id)
    network, size = session(files.content), 1 + len(files.arms.arms)

    def answer(log: OfferLog) -> Floats:
        value = log.value.astype(np.float32)[:, None]
        asked = {"offer_features": log.features, "cart_value": value}
        (told,) = network.run(None, asked)
        return np.clip(np.asarray(told, np.float64)[:, :size], 0.0, 1.0)

    return Network(f"release {release_id}", files.arms, answer)


def network_chances(network: Network, data: Path, log: OfferLog) -> tuple[Floats, frozenset[str]]:
    """[N, A] the chance of the outcome under every arm of `log`, read from `data`, and the arms
    that the network speaks of. UserError where there is none."""
    discounts = {arm.name: arm.discount for arm in read_offer_arms(data).arms}
    columns: Mapping[str, int | None] = {
        name: network.arms.column(discounts[name]) for name in log.arms[1:] if name in discounts
    }
    known = {name: column for name, column in columns.items() if column is not None}
    if not known:
        raise UserError(
            f"{network.where}: says nothing of {', '.join(log.arms[1:])}; it was learned from "
            f"{', '.join(arm.name for arm in network.arms.arms)}"
        )
    answer = network.answer(log)
    told = np.repeat(answer[:, :1], len(log.arms), axis=1)
    for name, column in known.items():
        told[:, log.arms.index(name)] = answer[:, column]
    assert log.arms[NO_OFFER] not in known
    return told, frozenset(known)
