"""What must not change by accident, as text. `python -m tests.contract.golden` writes the files
anew after a change that was meant: then raise the version that the change belongs to."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from contract import candidates, encoding, offer_features, pair_features
from contract.events import EVENT_TYPE, EventContext, key_of
from contract.features import FEATURES
from contract.index_entry import IndexSearch, Recall
from contract.manifest import MODELS, QUERY_TOWER, expected_feature_hash
from contract.popular import PopularLists
from contract.segments import SEGMENTS, SEGMENTS_VERSION
from tests.contract.examples import event
from tests.contract.release import manifest, model
from tests.contract.shop import BREAD, EGGS, MILK, SOAP, TEA, VOCABULARY, situation

FOLDER = Path(__file__).parent.parent / "golden"
KEYED = ("", "milk", "00000000-0000-0000-0000-000000000001", "Käse 200 g", "FOOD/DAIRY")


def meaning() -> str:
    """Everything that models, stored states and releases rely on by number, name or order."""
    held = {
        "feature_hash": expected_feature_hash(),
        "event_types": EVENT_TYPE,
        "keys": {text: key_of(text) for text in KEYED},
        "features": {
            feature.name: {
                "version": feature.version,
                "capacity": feature.capacity,
                "event_types": sorted(feature.event_types),
                "row": str(feature.kind.dtype),
                "value": str(feature.dtype),
            }
            for feature in FEATURES
        },
        "pair_features": [pair_features.PAIR_FEATURES_VERSION, *pair_features.PAIR_FEATURES],
        "offer_feature_hash": offer_features.offer_feature_hash(),
        "offer_features": [offer_features.OFFER_FEATURES_VERSION, *offer_features.OFFER_FEATURES],
        "max_candidates": candidates.MAX_CANDIDATES,
        "encoder_version": encoding.ENCODER_VERSION,
        "tensors": encoding.QUERY_TOWER_INPUTS | encoding.SEQUENCE_INPUTS,
        "context_sizes": encoding.CONTEXT_SIZES,
        "segments_version": SEGMENTS_VERSION,
        "segments": SEGMENTS,
        "vocabulary_hash": VOCABULARY.hash,
    }
    return json.dumps(held, indent=1, ensure_ascii=False) + "\n"


def encoded_situation() -> str:
    """One shopper at the till, as the models see it; floats to six digits."""
    told = situation(
        event(1, day=0, items=["milk", "bread"]),
        event(2, day=60, items=["milk", "caviar", ("eggs", 3)]),
        event(3, "refund", day=61, items=[("eggs", 3)]),
        event(4, "search", day=62, items=(), search_term="Oat Milk"),
        event(5, "view_item", day=100, items=["soap"]),
        day=120.75,
        cart=("tea", "champagne"),
        context=EventContext(
            device="mobile", country="US", region="OH", timezone="America/New_York"
        ),
    )
    encoded = encoding.encode(told, VOCABULARY)
    rounded = {
        name: [round(number, 6) for number in tensor.tolist()] for name, tensor in encoded.items()
    }
    lines = [f" {json.dumps(name)}: {json.dumps(rounded[name])}" for name in sorted(rounded)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def sealed_manifest() -> str:
    return manifest().as_bytes().decode()


def approximate_manifest() -> str:
    """The same release with an index that is not exact."""
    found = (("none", 91, 0.9983), ("none", 316, 0.9951), ("one side", 60, 0.9994))
    search = IndexSearch(
        parameters={"nprobe": 32, "k_factor": 1},
        recall=tuple(Recall(filter=name, k=k, value=value) for name, k, value in found),
        queries=1_000,
    )
    index = manifest().index.model_copy(
        update={"kind": "ivf_fp16", "count": 1_000_000, "search": search}
    )
    return manifest(index=index).as_bytes().decode()


def quantised_manifest() -> str:
    """The same release with two models in int8."""
    models = (
        model(name, parity=0.04, precision="int8") if name != QUERY_TOWER else model(name)
        for name in MODELS
    )
    return manifest(models=tuple(models)).as_bytes().decode()


def popular_lists() -> str:
    """What is popular with everybody, in a segment, in a region, and in both."""
    lists = {
        ("repeat_buyers", None): np.array([EGGS, MILK]),
        (None, "OH"): np.array([SOAP]),
        ("repeat_buyers", "OH"): np.array([TEA, SOAP]),
    }
    return PopularLists(np.array([MILK, BREAD]), lists).as_bytes(VOCABULARY).decode()


GOLDEN: dict[str, Callable[[], str]] = {
    "contract.json": meaning,
    "encoded_situation.json": encoded_situation,
    "manifest.json": sealed_manifest,
    "manifest_ivf.json": approximate_manifest,
    "manifest_int8.json": quantised_manifest,
    "popular.json": popular_lists,
}


if __name__ == "__main__":
    for name, made in GOLDEN.items():
        (FOLDER / name).write_text(made())
