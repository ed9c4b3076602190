"""Who people are is read by the audit alone: no import, no feature, no model and no decision."""

import ast
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from contract.errors import UserError
from contract.events import ClientEvent, EventContext
from contract.features import FEATURES
from contract.frames import EVENT_SCHEMA
from contract.offer_features import OFFER_FEATURES
from contract.pair_features import PAIR_FEATURES
from serving.decision.messages import DecideRequest
from training.data import demographics
from training.data.completejourney import subject_of
from training.data.demographics import completejourney_demographics, read_demographics
from training.data.storage import CATALOGUE_SCHEMA, CHECKOUTS_SCHEMA

ROOT = Path(__file__).parents[3]
TOLD = {
    *("age", "income", "home_ownership", "marital_status"),
    *("household_size", "household_comp", "kids_count", "gender", "sex"),
}
AUDIT = {
    *("fairness.py", "fairness_offers.py", "fairness_lists.py", "demographics.py"),
    *("groups.py", "plan.py"),  # of a retraining, for its gate on fairness
}


def test_nothing_else_reads_them() -> None:
    readers = set()
    for package in ("contract", "serving", "training", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                named = (
                    [node.module or "", *(f"{node.module}.{one.name}" for one in node.names)]
                    if isinstance(node, ast.ImportFrom)
                    else [one.name for one in node.names]
                    if isinstance(node, ast.Import)
                    else [node.value]
                    if isinstance(node, ast.Constant) and isinstance(node.value, str)
                    else []
                )
                if any(
                    name in {"training.data.demographics", "demographics", "demographics.parquet"}
                    for name in named
                ):
                    readers.add(path.name)
    assert readers == AUDIT


def test_no_column_that_is_trained_or_served_is_one_of_them() -> None:
    columns = {
        *EVENT_SCHEMA.names,
        *CATALOGUE_SCHEMA.names,
        *CHECKOUTS_SCHEMA.names,
        *OFFER_FEATURES,
        *PAIR_FEATURES,
        *(feature.name for feature in FEATURES),
        *EventContext.model_fields,
        *ClientEvent.model_fields,
        *DecideRequest.model_fields,
    }
    assert not columns & TOLD
    assert not any(word in column.split("_") for word in TOLD for column in columns)


@pytest.mark.parametrize("told", sorted(TOLD))
def test_the_gateway_takes_none_of_them(told: str) -> None:
    request = {
        "visitor_id": "v-1",
        "session_id": "s-1",
        "cart": {"cart_id": "c-1", "currency": "USD", "items": []},
        "context": {"region": "west"},
    }
    DecideRequest.model_validate_json(json.dumps(request))
    for wrong in (request | {told: "x"}, request | {"context": {"region": "west", told: "x"}}):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            DecideRequest.model_validate_json(json.dumps(wrong))


def test_households_and_bands() -> None:
    groups = completejourney_demographics()
    assert {name: len(of) for name, of in groups.items()} == {"age": 801, "income": 801}
    assert set(groups["income"].values()) == set(demographics.INCOME.values())
    assert groups["age"][str(subject_of(1))] == "65+"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    table = pa.table({"subject_id": ["a", "b", "c"], "age": ["18-30", None, ""]})
    pq.write_table(table, tmp_path / "people.parquet")
    assert read_demographics(str(tmp_path / "people.parquet")) == {"age": {"a": "18-30"}}
    (tmp_path / "people.csv").write_text("subject_id,band\na,1\nb,2\n")
    assert read_demographics(str(tmp_path / "people.csv")) == {"band": {"a": "1", "b": "2"}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.csv", None, "no such file"),
        ("bare.csv", "subject_id\na\n", "a column for each attribute"),
        ("other.csv", "who,age\na,1\n", "needs a column subject_id"),
        ("broken.parquet", "no", "neither Parquet nor CSV"),
    ],
)
def test_what_is_no_such_file_is_refused(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read_demographics(str(tmp_path / name))
