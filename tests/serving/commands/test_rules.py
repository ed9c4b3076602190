"""Rules as files: in, out, and what is wrong with one."""

from pathlib import Path

import pytest

from tests.serving.commands.processes import Place
from tests.serving.release_factory import Factory

EXAMPLE = Path(__file__).parents[3] / "docs" / "rules.yaml"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    factory = Factory(tmp_path / "own")
    factory.write("one")
    return Place(factory, tmp_path / "state")


def test_rules_go_in_and_come_out_the_same(place: Place, tmp_path: Path) -> None:
    assert place.call("rules", "export", "-").returncode == 2  # there is no store yet
    assert place.call("keys", "create", "--role", "admin").returncode == 0
    done = place.call("rules", "import", str(EXAMPLE), "--note", "to begin with")
    assert (done.returncode, done.stdout) == (0, "version 1: 4 rules\n"), done.stderr
    out = tmp_path / "out.yaml"
    assert place.call("rules", "export", str(out)).returncode == 0
    assert place.call("rules", "import", str(out), "--version", "1").returncode == 0
    late = place.call("rules", "import", str(out), "--version", "1")
    assert (late.returncode, "version 2 is the current" in late.stderr) == (2, True)
    assert place.call("rules", "export", "-").stdout == out.read_text()
    assert place.call("rules", "export", "-", "--version", "7").returncode == 2
    told = place.call("rules", "history").stdout.splitlines()
    assert [line.split()[0] for line in told] == ["2", "1"]
    assert told[1].endswith("command line  to begin with")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rules: [", "line 1, column 9"),
        ("rules:\n- id: a\n  actions: []", "rules[0].actions"),
        (
            "rules:\n- id: a\n  condition: cart.totl > 1\n  actions: [{kind: pin, items: [a]}]",
            "rule a: condition: character 5: undeclared reference to 'cart.totl'",
        ),
    ],
)
def test_a_bad_file_is_one_clear_line(place: Place, tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    found = place.call("rules", "check", str(path))
    assert found.returncode == 2
    assert why in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
