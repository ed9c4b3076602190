import json
import math

import pytest

from contract.figures import Figures


def figures() -> Figures:
    made = Figures("benchmark", machine={"cpus": 2})
    made.add("popular", {"NDCG@5": [0.1, 0.2, 0.3]}, seconds=1.2345)
    made.add("tillwise", {"NDCG@5": [0.25], "per_second": [1234.0]}, peak_mib=512.26)
    made.notes.append("void: the generator lagged")
    return made


def test_json_has_the_one_shape() -> None:
    told = json.loads(json.dumps(figures().as_json()))
    assert list(told) == ["command", "machine", "rows", "notes"]
    assert told["command"] == "benchmark"
    assert told["machine"]["cpus"] == 2
    assert told["notes"] == ["void: the generator lagged"]
    popular, tillwise = told["rows"]
    assert popular["name"] == "popular"
    assert popular["metrics"]["NDCG@5"]["values"] == [0.1, 0.2, 0.3]
    assert popular["metrics"]["NDCG@5"]["mean"] == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    # sqrt((0.1^2 + 0 + 0.1^2) / (3 - 1))
    assert popular["metrics"]["NDCG@5"]["std"] == pytest.approx(0.1)
    assert (popular["seconds"], popular["peak_mib"]) == (1.234, None)
    assert tillwise["metrics"]["per_second"] == {"mean": 1234.0, "std": 0.0, "values": [1234.0]}
    assert (tillwise["seconds"], tillwise["peak_mib"]) == (None, 512.3)


def test_table_is_aligned() -> None:
    assert figures().table().splitlines() == [
        "                   NDCG@5  per_second  seconds  peak MiB",
        "popular   0.2000 +-0.1000                  1.2",
        "tillwise           0.2500       1,234                512",
        "note: void: the generator lagged",
    ]


def test_table_leaves_out_empty_columns() -> None:
    made = Figures("evaluate")
    made.add("popular", {"HR@5": [0.5]})
    assert made.table() == "           HR@5\npopular  0.5000"


def test_table_without_rows_is_its_notes() -> None:
    assert Figures("evaluate", notes=["nothing to show"]).table() == "\nnote: nothing to show"


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([0.0], "0.0000"),
        ([1.0], "1.0000"),
        ([2.0], "2"),
        ([1_234_567.0], "1,234,567"),
        ([2.0, 4.0], "3.0000 +-1.4142"),  # sqrt((1 + 1) / (2 - 1))
        ([12.34], "12.3"),
        ([0.0001, 0.0003], "2.0e-04 +-1.4e-04"),
        ([-0.0005], "-5.0e-04"),
        ([math.nan], "nan"),
    ],
)
def test_cells(values: list[float], cell: str) -> None:
    made = Figures("evaluate")
    made.add("row", {"metric": values})
    assert made.table().splitlines()[1] == f"row  {cell.rjust(len('metric'))}"
