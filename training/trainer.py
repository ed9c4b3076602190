"""The one training loop: mixed precision, schedule, early stopping, checkpoints that resume.

A task says what a batch is, what its loss is and how good the model is now; the loop does the rest.
Under torchrun every process runs this same loop on its part of each batch; see `distributed` for
what is one's own and what is everybody's, and `sharding` for where the weights are.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from contract.errors import UserError
from training import acceleration, distributed, sharding
from training import checkpoint as files


class Task(Protocol):
    """What is trained."""

    num_batches: int

    @property
    def model(self) -> nn.Module:
        """What the steps change: a module, or what `sharding.spread` made of it."""
        ...

    def batches(self, generator: torch.Generator) -> Iterator[Any]:
        """One epoch, in the random order that `generator` gives."""
        ...

    def loss(self, batch: Any, generator: torch.Generator) -> Tensor:
        """A scalar to be lowered."""
        ...

    def validate(self) -> float | None:
        """A figure to be lowered on held-out examples, or None where nothing is held out."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; `patience` epochs without a better validation end the training."""

    epochs: int
    learning_rate: float
    weight_decay: float
    patience: int
    clip_norm: float = 1.0


@dataclass
class History:
    """What happened, an entry an epoch. `best_epoch` counts from 1; 0 means no epoch was run."""

    train_loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0


def train(
    task: Task,
    schedule: Schedule,
    *,
    seed: int,
    label: str,
    identity: str = "",
    checkpoint: Path | None = None,
    device: torch.device | None = None,
    compiled: bool = False,
    lower: str = "`--set batch_size=` or `--set negatives=`",
) -> History:
    """Train `task.model` and leave the best epoch's weights in it.

    With a `checkpoint` path the state is written after every epoch, whole or not at all, and a
    later call with the same settings goes on from there and ends with the same weights, also with
    another number of processes (then within rounding and another dropout). `identity` stands for
    everything else that must be the same: model, data, window. `compiled` compiles the model's
    `dense_parts`; `lower` names the settings that free memory. Raises UserError when the loss is no
    longer a number, memory runs out, or the checkpoint is another training's.
    """
    device = device or torch.device("cpu")
    run = Run(task, schedule, seed, label, device)
    signature = {
        "label": label,
        "identity": identity,
        "seed": seed,
        **asdict(schedule),
        "batches": task.num_batches,
    }
    saved = distributed.from_first(lambda: _read(checkpoint, signature))
    if saved is not None:
        run.restore(saved)
    with acceleration.out_of_memory(label, lower, device):
        parts = run.compile() if compiled else []
        while not run.is_over():
            run.epoch()
            if checkpoint is not None:
                run.save(checkpoint, signature)
    acceleration.plain_again(parts)
    sharding.load(run.model, run.best)
    run.model.eval()
    return run.history


def _read(path: Path | None, signature: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one."""
    if path is None or not path.exists():
        return None
    state = files.read(path)
    if state["signature"] != signature:
        raise UserError(
            f"{path.name}: written with other settings or data; remove it or change --output"
        )
    return state


def _warm_up_and_cool_down(steps: int) -> Callable[[int], float]:
    """The learning rate's share of its peak: up over a tenth of the steps, down along a cosine."""
    warm = max(1, steps // 10)

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return share


class Run:
    """One training while it runs."""

    def __init__(
        self, task: Task, schedule: Schedule, seed: int, label: str, device: torch.device
    ) -> None:
        self.task, self.schedule, self.seed = task, schedule, seed
        self.label, self.device = label, device
        self.model = task.model.to(device)
        self.optimizer = torch.optim.AdamW(
            sharding.trained(self.model).values(),
            lr=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        self.planner = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, _warm_up_and_cool_down(schedule.epochs * task.num_batches)
        )
        # CPU generators on every device, the same in every process: one seed draws the same batches
        # and negatives everywhere.
        self.generator = torch.Generator().manual_seed(seed)
        distributed.seed(seed)
        self.history, self.best = History(), self._weights()

    def is_over(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        done = len(self.history.train_loss)
        waited = done - self.history.best_epoch >= max(1, self.schedule.patience)
        return done >= self.schedule.epochs or (done > 0 and waited)

    def compile(self) -> list[nn.Module]:
        """Compile the dense parts and return them, tried on the first batch of a copy of the random
        stream."""
        copied = torch.Generator()
        copied.set_state(self.generator.get_state())
        self.model.train()

        def trial() -> Tensor:
            batch = next(iter(self.task.batches(copied)))
            with acceleration.mixed_precision(self.device):
                return self.task.loss(batch, copied)

        return acceleration.compile_or_say(self.model, trial, self.label)

    def epoch(self) -> None:
        """One pass over the examples and a validation."""
        self.model.train()
        number = len(self.history.train_loss) + 1
        shown = tqdm(
            self.task.batches(self.generator),
            total=self.task.num_batches,
            desc=f"{self.label} {number}/{self.schedule.epochs}",
            unit="batch",
            disable=None,
        )
        total = sum(self.step(batch, number) for batch in shown)
        self.history.train_loss.append(total / max(1, self.task.num_batches))
        self.model.eval()
        with torch.no_grad():
            sharding.gather(self.model)
            # The first one's figure for all: they must agree on when to stop. It alone has to look.
            figure = distributed.from_first(self.task.validate)
        self.history.validation.append(math.nan if figure is None else figure)
        if figure is None or figure <= min(self.history.validation):
            self.history.best_epoch, self.best = number, self._weights()

    def step(self, batch: Any, number: int = 1) -> float:
        """One step down the loss of `batch`; the loss, over all processes."""
        with acceleration.mixed_precision(self.device):
            loss = self.task.loss(batch, self.generator)
        everybody = float(distributed.average(loss))
        if not math.isfinite(everybody):
            raise UserError(
                f"{self.label}: the loss is {everybody} in epoch {number}; "
                "lower the learning rate with --set"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sharding.clip_gradients(self.model, self.schedule.clip_norm)
        self.optimizer.step()
        self.planner.step()
        return everybody

    def _weights(self) -> dict[str, Tensor]:
        state = sharding.gather(self.model)
        return {name: tensor.detach().clone() for name, tensor in state.items()}

    def save(self, path: Path, signature: dict[str, Any]) -> None:
        """Write the state: everybody gathers it, the first process writes it."""
        state = {
            "signature": signature,
            "model": sharding.gather(self.model),
            "optimizer": sharding.optimizer_state(self.model, self.optimizer),
            "planner": self.planner.state_dict(),
            "generator": self.generator.get_state(),
            "random": distributed.of_all(_random_state(self.device)),
            "history": asdict(self.history),
            "best": self.best,
        }
        distributed.from_first(lambda: files.save(path, state))

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from `saved`."""
        sharding.load(self.model, saved["model"])
        sharding.load_optimizer_state(self.model, self.optimizer, saved["optimizer"])
        self.planner.load_state_dict(saved["planner"])
        self.generator.set_state(saved["generator"])
        self.history = History(**saved["history"])
        self.best = saved["best"]
        streams = saved["random"]
        if len(streams) == distributed.world_size():
            _set_random_state(streams[distributed.rank()], self.device)
        else:
            # Written by another number of processes: whose dropout it was has no meaning here.
            distributed.seed(self.seed + len(self.history.train_loss))


def _random_state(device: torch.device) -> dict[str, Tensor]:
    streams = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    return streams


def _set_random_state(streams: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(streams["cpu"])
    if device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], device)
