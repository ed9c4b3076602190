"""What several commands ask of their arguments."""

from pathlib import Path

import pytest

from contract.errors import UserError
from serving.__main__ import main
from serving.commands.arguments import require_interval

DAY_S = 86_400.0


@pytest.mark.parametrize("seconds", [0.001, 60.0, DAY_S])
def test_a_time_between_two_rounds_is_up_to_a_day(seconds: float) -> None:
    require_interval("--every", seconds)


@pytest.mark.parametrize("seconds", [0.0, -1.0, DAY_S + 1, float("inf"), float("nan")])
def test_anything_else_is_refused_by_its_flag(seconds: float) -> None:
    with pytest.raises(UserError, match=r"^--pause: must be more than 0 seconds, at most a day$"):
        require_interval("--pause", seconds)


def test_a_command_may_wait_longer() -> None:
    require_interval("--every", 30 * DAY_S, most_days=30)
    with pytest.raises(UserError, match="at most 30 days"):
        require_interval("--every", 30 * DAY_S + 1, most_days=30)


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (("worker",), "a day"),
        (("release", "pull", "--store", "file://{}/store"), "a day"),
        (("export", "--output", "out"), "30 days"),
    ],
)
@pytest.mark.parametrize("every", ["0", "nan", "2592001"])
def test_every_command_that_goes_round_refuses_alike(
    command: tuple[str, ...],
    most: str,
    every: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*(one.format(tmp_path) for one in command), "--every", every]) == 2
    told = capsys.readouterr().err
    assert told == f"tillwise-serve: --every: must be more than 0 seconds, at most {most}\n"
