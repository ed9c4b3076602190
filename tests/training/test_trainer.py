"""The loop: a run that is cut off ends like one that is not, and what goes wrong is said."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from contract.errors import UserError
from tests.training.processes import ROOT
from training.models.layers import Layers
from training.trainer import Schedule, train

SCHEDULE = Schedule(epochs=6, learning_rate=0.05, weight_decay=0.0, patience=6)


class Line:
    """y = 3x + 1 with dropout, so that every random stream matters."""

    num_batches = 4

    def __init__(self, stop_after: int | None = None, scale: float = 1.0) -> None:
        torch.manual_seed(5)
        parts = (nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.model: nn.Module = nn.Sequential(*parts)
        self.parts = parts
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


_FULL = """
import resource, sys
from pathlib import Path
import torch
from contract.errors import UserError
from tests.training.processes import ROOT
from tests.training.test_trainer import SCHEDULE, Line
from training.models.layers import Layers
from training.trainer import train
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    train(Line(), SCHEDULE, seed=1, label="line", checkpoint=Path(sys.argv[1]))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 5_000])
def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path: Path, room: int) -> None:
    """A process that may write only so many bytes, as on a disk with so much room left."""
    path = tmp_path / "line.pt"
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_after=2), SCHEDULE, seed=1, label="line", checkpoint=path)
    before = path.read_bytes()
    assert len(before) > room
    command = [sys.executable, "-c", _FULL, str(path), str(room)]
    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert "could not be written, what stood there is untouched: File too large" in said.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    resumed = Line()
    train(resumed, SCHEDULE, seed=1, label="line", checkpoint=path)
    assert resumed.epochs == 4


def test_memory_that_is_not_there_ends_in_one_line() -> None:
    class Greedy(Line):
        def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
            return super().loss(batch, generator) + torch.ones(2**50).sum()

    class Listing(Line):
        def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
            raise MemoryError

    class OnDevice(Line):
        def validate(self) -> float | None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    for task in (Greedy(), Listing(), OnDevice()):
        message = "line: this machine has not enough memory; lower `--set batch_size=` or"
        with pytest.raises(UserError, match=message):
            train(task, SCHEDULE, seed=1, label="line")


def test_other_runtime_errors_stay_what_they_are() -> None:
    class Wrong(Line):
        def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
            return super().loss(batch.repeat(1, 3), generator)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(Wrong(), SCHEDULE, seed=1, label="line")


class Compilable(Line):
    """Without dropout, whose masks a compiler draws in its own way."""

    def __init__(self) -> None:
        super().__init__()
        first, _, last = self.parts

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = Layers(first, nn.GELU(), last)

            def dense_parts(self) -> list[nn.Module]:
                return [self.layers]

            def forward(self, batch: Tensor) -> Tensor:
                found: Tensor = self.layers(batch)
                return found

        self.model = Model()


def test_compiled_parts_learn_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    plain, compiled = Compilable(), Compilable()
    torch._dynamo.utils.counters.clear()
    for task, wanted in ((plain, False), (compiled, True)):
        train(task, SCHEDULE, seed=1, label="line", compiled=wanted)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert compiled.model.get_submodule("layers")._compiled_call_impl is None  # plain again
    assert "not compiled" not in capsys.readouterr().err
    for a, b in zip(_weights(plain), _weights(compiled), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


_NO_COMPILER = """
import torch
from tests.training.test_trainer import SCHEDULE, Compilable, _weights
from training.models.layers import Layers
from training.trainer import train
torch.set_num_threads(1)
plain, given_up = Compilable(), Compilable()
train(plain, SCHEDULE, seed=1, label="line")
train(given_up, SCHEDULE, seed=1, label="line", compiled=True)
assert all(torch.equal(a, b) for a, b in zip(_weights(plain), _weights(given_up)))
"""


def test_a_compiler_that_gives_up_is_said_and_changes_nothing(tmp_path: Path) -> None:
    """A machine on which the compiler finds no C++ compiler of its own."""
    environment = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", _NO_COMPILER],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(said) == 1
    assert said[0].startswith("line: not compiled, goes on without: ")
