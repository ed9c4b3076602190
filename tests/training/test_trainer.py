"""The loop: a run that is cut off ends like one that is not, and what goes wrong is said."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from contract.errors import UserError
from training.trainer import Schedule, train

SCHEDULE = Schedule(epochs=6, learning_rate=0.05, weight_decay=0.0, patience=6)


class Line:
    """y = 3x + 1 with dropout, so that every random stream matters."""

    num_batches = 4

    def __init__(self, stop_after: int | None = None, scale: float = 1.0) -> None:
        torch.manual_seed(5)
        self.model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.stop_after, self.scale, self.epochs = stop_after, scale, 0

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        if self.epochs == self.stop_after:
            raise KeyboardInterrupt
        self.epochs += 1
        for _ in range(self.num_batches):
            yield torch.rand(16, 1, generator=generator)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        error: Tensor = self.model(batch) - (3 * batch + 1)
        return (error**2).mean() * self.scale

    def validate(self) -> float | None:
        grid = torch.linspace(0, 1, 20)[:, None]
        return float(((self.model(grid) - (3 * grid + 1)) ** 2).mean())


def _weights(task: Line) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in task.model.parameters()]


def test_it_learns() -> None:
    task = Line()
    history = train(task, SCHEDULE, seed=1, label="line")
    assert history.validation[history.best_epoch - 1] < 0.5 * history.validation[0]


@pytest.mark.parametrize("cut_off", [1, 3, 5])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path, cut_off: int) -> None:
    whole, path = Line(), tmp_path / "line.pt"
    train(whole, SCHEDULE, seed=1, label="line")
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_after=cut_off), SCHEDULE, seed=1, label="line", checkpoint=path)
    resumed = Line()
    train(resumed, SCHEDULE, seed=1, label="line", checkpoint=path)
    assert resumed.epochs == 6 - cut_off
    for a, b in zip(_weights(whole), _weights(resumed), strict=True):
        assert torch.equal(a, b)


def test_the_best_epoch_is_kept_and_patience_ends_the_run() -> None:
    class Worsening(Line):
        def validate(self) -> float | None:
            return float(self.epochs)

    task = Worsening()
    history = train(task, Schedule(6, 0.05, 0.0, patience=2), seed=1, label="line")
    assert history.best_epoch == 1
    assert len(history.train_loss) == 1 + 2


def test_a_loss_that_is_no_number_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"line: the loss is (nan|inf) in epoch 1; lower"):
        train(Line(scale=float("nan")), SCHEDULE, seed=1, label="line")


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.pt"
    train(Line(), Schedule(1, 0.05, 0.0, 1), seed=1, label="line", checkpoint=path)
    with pytest.raises(UserError, match="other settings"):
        train(Line(), Schedule(2, 0.05, 0.0, 1), seed=1, label="line", checkpoint=path)


def test_a_torn_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.pt"
    train(Line(), SCHEDULE, seed=1, label="line", checkpoint=path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        train(Line(), SCHEDULE, seed=1, label="line", checkpoint=path)


def test_a_full_disk_leaves_the_previous_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "line.pt"
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_after=2), SCHEDULE, seed=1, label="line", checkpoint=path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="could not be written"):
        train(Line(), SCHEDULE, seed=1, label="line", checkpoint=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
