"""The model card and the data card of a release: what it is, what it was made from, how good it is,
and what it is not for; as JSON for machines and as Markdown for people. They lie in the release and
are hashed with it.

After M. Mitchell et al., Model Cards for Model Reporting (FAT* 2019), and T. Gebru et al.,
Datasheets for Datasets (2021); only what was counted or measured is said.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from contract.manifest import MODELS
from training.run_folder import Run

MODEL_CARD: Final = "model_card"
DATA_CARD: Final = "data_card"
Card = dict[str, Any]
_USE = (
    "Up to five products to suggest at the checkout of this shop, ranked by how likely each is to "
    "be in the order, for shoppers who agreed to personalization and for those who did not say who "
    "they are."
)
_NOT_FOR = (
    "Prices, credit, or any decision about a person.",
    "Another shop: items, prices and habits are this one's.",
    "Shoppers who refused personalization: they are answered from the cart alone.",
)


def data_card(run: Run, release_id: str) -> Card:
    """What the models of a release have seen."""
    window = {name: f"{day:%Y-%m-%d}" for name, day in asdict(run.window).items()}
    return {
        "release_id": release_id,
        "what": "Purchases of the shop and what led to them, under pseudonyms.",
        "consent": _consent(run.data),
        "left_out": "Ages, incomes and such: they are read by audits alone, never by a model.",
        "window": window,
        "learned_from": dict(run.data),
    }


def model_card(
    run: Run,
    release_id: str,
    created_at: datetime,
    parity: Mapping[str, float],
    metrics: Mapping[str, float],
) -> Card:
    """What the release is and how good it was found to be."""
    return {
        "release_id": release_id,
        "created_at": created_at.isoformat(),
        "fitted_at": run.fitted_at.isoformat(),
        "trained_until": f"{run.window.train_until:%Y-%m-%d}",
        "recipe": asdict(run.recipe),
        "models": list(MODELS),
        "items": len(run.vocabulary.item_ids),
        "use": _USE,
        "not_for": list(_NOT_FOR),
        "quality": dict(metrics),
        "gap": run.gap,
        "parity": dict(parity),
        "synthetic": run.synthetic,
        "limits": _limits(run, metrics),
    }


def _consent(facts: Mapping[str, Any]) -> str:
    read = "Only events that say `personalization` among their purposes were read."
    recorded = facts.get("consent_recorded")
    if recorded is None:
        return f"{read} Whether people were asked is not known: the run is an earlier version's."
    if not recorded:
        return (
            f"{read} The import wrote the purposes: consent was not recorded with these data, and "
            "whether people were asked is not known."
        )
    return f"{read} `learned_from` counts the purchases by the purposes they were written under."


def as_files(name: str, title: str, card: Card) -> dict[str, bytes]:
    """The card as `name`.json and `name`.md."""
    told = json.dumps(card, indent=1, sort_keys=True) + "\n"
    text = "\n".join([f"# {title}", "", *_lines(card, 2)]) + "\n"
    return {f"{name}.json": told.encode(), f"{name}.md": text.encode()}


def _limits(run: Run, metrics: Mapping[str, float]) -> list[str]:
    said = [
        "It was judged on purchases that happened without it: what it would have changed is not "
        "known before it is on trial.",
        f"Items that were first sold after {run.window.train_until:%Y-%m-%d} are not in it.",
    ]
    if run.synthetic:
        said.append("The events are simulated: its figures say nothing about a real shop.")
    if not metrics:
        said.append("No evaluation lay beside the run: see the report of its retraining.")
    return said


def _lines(card: Mapping[str, Any], level: int) -> list[str]:
    """A section for everything that has parts, a line for everything else."""
    plain = {k: v for k, v in card.items() if not isinstance(v, Mapping | list)}
    lines = [f"- **{_words(name)}**: {_value(value)}" for name, value in plain.items()]
    for name, value in card.items():
        if isinstance(value, list) and value:
            lines += ["", f"{'#' * level} {_words(name)}", "", *_items(value)]
        elif isinstance(value, Mapping) and value:
            lines += ["", f"{'#' * level} {_words(name)}", "", *_lines(value, level + 1)]
    return lines


def _items(values: Sequence[Any]) -> list[str]:
    return [f"- {_value(one)}" for one in values]


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize() if name.islower() else name


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
