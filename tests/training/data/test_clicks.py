"""Click files: what is read from them, and one clear line for whatever is wrong with them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import UserError
from training.data.clicks import UNKNOWN, read_clicks

Columns = dict[str, Any]
TRAIN: Columns = {"SessionId": [5, 3, 3], "ItemId": [20, 30, 20], "Time": [9.0, 2.5, 1.0]}
TEST: Columns = {
    "SessionId": [8, 7, 7, 7],
    "ItemId": [20, 20, 99, 30],
    "Time": [1.0, 5.0, 4.0, 5.0],
}


def folder_with(folder: Path, train: Columns = TRAIN, test: Columns = TEST) -> Path:
    for name, columns in (("train", train), ("valid", TRAIN), ("test", test)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_clicks(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_training_clicks_and_test_sessions(tmp_path: Path) -> None:
    clicks = read_clicks(folder_with(tmp_path))
    assert clicks.item_ids.to_pylist() == [20, 30]
    assert clicks.session.tolist() == [1, 0, 0]
    assert clicks.item.tolist() == [0, 1, 0]
    assert clicks.occurred_us.tolist() == [9_000_000, 2_500_000, 1_000_000]
    # In time order, the order of the file where times are equal; session 8 has one click only.
    assert [session.tolist() for session in clicks.test_sessions] == [[UNKNOWN, 0, 1]]


def test_ids_may_be_text_or_beyond_32_bits_and_times_stamps(tmp_path: Path) -> None:
    stamps = pa.array([3, 2, 1], pa.int64()).cast(pa.timestamp("s"))
    train = {"SessionId": ["b", "a", "a"], "ItemId": [2**40, 1, 2**63], "Time": stamps}
    train["ItemId"] = pa.array([2**40, 1, 2**63], pa.uint64())
    test = {"SessionId": [1, 1], "ItemId": pa.array([2**63, 1], pa.uint64()), "Time": [1, 2]}
    clicks = read_clicks(folder_with(tmp_path, train, test))
    assert clicks.item_ids.to_pylist() == [1, 2**40, 2**63]
    assert clicks.session.tolist() == [1, 0, 0]
    assert clicks.occurred_us.tolist() == [3_000_000, 2_000_000, 1_000_000]
    assert clicks.test_sessions[0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Time": [1.0, float("nan"), 2.0]}, "column Time has values that are no seconds"),
        ({"Time": [1.0, 1e300, 2.0]}, "column Time has values that are no seconds"),
        ({"Time": ["a", "b", "c"]}, "column Time is string, neither seconds nor a timestamp"),
        ({"ItemId": [1.5, 2.5, 3.5]}, "column ItemId is double, neither whole numbers nor text"),
        ({"ItemId": ["x", "y", "z"]}, "column ItemId is int64, in train.parquet it is string"),
        ({"SessionId": [1, None, 2]}, "column SessionId has empty values"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, changed: Columns, message: str) -> None:
    assert message in refusal(folder_with(tmp_path, TRAIN | changed))


def test_missing_files_columns_and_rows_are_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").endswith("nowhere: no such folder")
    assert "lacks train.parquet, valid.parquet, test.parquet" in refusal(tmp_path)
    folder_with(tmp_path, {"SessionId": [1], "Time": [1.0]})
    assert refusal(tmp_path).endswith("train.parquet: lacks the columns ItemId")
    folder_with(tmp_path, {name: pa.array([], pa.int64()) for name in TRAIN})
    assert refusal(tmp_path).endswith("train.parquet: holds no rows")
    folder_with(tmp_path, TRAIN, {name: column[:1] for name, column in TEST.items()})
    assert "no session has two clicks" in refusal(tmp_path)
    (tmp_path / "test.parquet").write_bytes(b"no parquet")
    assert "test.parquet: not a readable Parquet file" in refusal(tmp_path)
