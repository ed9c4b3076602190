"""The command line: exit codes, one clear line, figures as JSON."""

import json
from pathlib import Path

import pytest

from contract.errors import GateRefused
from training import __main__ as command_line
from training.__main__ import main
from training.commands import simulate

# Ibis 12 calls what DuckDB 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


def failed(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str]:
    """Exit status and the one line on stderr."""
    try:
        status = main([str(part) for part in argv])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("tillwise-train: ")
    return status, lines[0]


def simulate_arguments(catalogue: Path, output: Path, shoppers: str = "60") -> list[str | Path]:
    numbers: list[str | Path] = ["--shoppers", shoppers, "--days", "7", "--seed", "3"]
    return ["simulate", "--catalogue", catalogue, "--output", output, *numbers]


def test_simulate_prints_a_table_and_writes_its_figures(
    catalogue_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_file = tmp_path / "deep" / "figures.json"
    argv = [*simulate_arguments(catalogue_file, tmp_path / "out"), "--json", json_file]
    assert main([str(part) for part in argv]) == 0
    assert "synthetic" in capsys.readouterr().out
    figures = json.loads(json_file.read_text())
    assert figures["command"] == "simulate"
    rows = {row["name"]: row for row in figures["rows"]}
    assert rows["events"]["metrics"]["count"]["mean"] > 100
    assert rows["simulate"]["seconds"] > 0
    assert str(tmp_path) not in json_file.read_text()


def test_import_sequences_reports_its_counts(tmp_path: Path) -> None:
    source, json_file = tmp_path / "sequences.txt", tmp_path / "figures.json"
    source.write_text("ann 1 2\n")
    argv = ["import", "sequences", source, "--output", tmp_path / "out", "--json", json_file]
    assert main([str(part) for part in argv]) == 0
    (row,) = json.loads(json_file.read_text())["rows"]
    assert row["metrics"]["interactions"]["values"] == [2.0]


def test_bad_input_ends_with_2(
    catalogue_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    status, line = failed(capsys, "import", "sequences", tmp_path / "none.txt", "--output", out)
    assert (status, line.endswith("none.txt: no such file")) == (2, True)
    status, line = failed(capsys, *simulate_arguments(tmp_path / "none.parquet", out))
    assert (status, line.endswith("none.parquet: no such file")) == (2, True)
    status, line = failed(capsys, *simulate_arguments(catalogue_file, out, shoppers="0"))
    assert (status, "--shoppers must be at least 1" in line) == (2, True)


def test_an_output_that_is_a_file_ends_with_2(
    catalogue_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    status, line = failed(capsys, *simulate_arguments(catalogue_file, taken))
    assert (status, "cannot be a folder" in line) == (2, True)
    assert taken.read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "COMMAND"),
        (["import"], "SOURCE"),
        (["import", "stars"], "invalid choice: 'stars'"),
        (["simulate"], "--catalogue"),
        (["import", "completejourney", "--output", "x", "--colour", "red"], "--colour"),
    ],
)
def test_arguments_that_do_not_parse_end_with_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], expected: str
) -> None:
    status, line = failed(capsys, *argv)
    assert (status, expected in line) == (2, True)


@pytest.mark.parametrize(
    ("raised", "expected"), [(GateRefused("too unfair"), 3), (KeyboardInterrupt(), 130)]
)
def test_a_refusing_gate_ends_with_3_and_ctrl_c_with_130(
    catalogue_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    expected: int,
) -> None:
    def refuse(_: object) -> None:
        raise raised

    monkeypatch.setattr(simulate, "run", refuse)
    assert simulate in command_line.COMMANDS
    status, _ = failed(capsys, *simulate_arguments(catalogue_file, tmp_path))
    assert status == expected
