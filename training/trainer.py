"""The one training loop: mixed precision, schedule, early stopping, checkpoints that resume.

A task says what a batch is, what its loss is and how good the model is now; the loop does the rest.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from contract.errors import UserError


class Task(Protocol):
    """What is trained."""

    num_batches: int

    @property
    def model(self) -> nn.Module:
        """What the steps change."""
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
) -> History:
    """Train `task.model` and leave the best epoch's weights in it.

    With a `checkpoint` path the state is written after every epoch, whole or not at all, and a
    later call with the same settings goes on from there and ends with the same weights.
    `identity` stands for everything else that must be the same: model, data, window. Raises
    UserError when the loss is no longer a number or the checkpoint is another training's.
    """
    device = device or torch.device("cpu")
    model = task.model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    planner = torch.optim.lr_scheduler.LambdaLR(
        optimizer, _warm_up_and_cool_down(schedule.epochs * task.num_batches)
    )
    # CPU generators on every device: the same seed draws the same batches and negatives.
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    history, best = History(), _copied(model)
    parts = (model, optimizer, planner, generator)
    signature = {
        "label": label,
        "identity": identity,
        "seed": seed,
        **asdict(schedule),
        "batches": task.num_batches,
    }
    if checkpoint is not None and checkpoint.exists():
        history, best = _resume(checkpoint, parts, signature)
    while len(history.train_loss) < schedule.epochs and not _out_of_patience(history, schedule):
        history.train_loss.append(
            _epoch(task, optimizer, planner, generator, schedule, label, history, device)
        )
        figure = _validate(task)
        history.validation.append(math.nan if figure is None else figure)
        if figure is None or figure <= min(history.validation):
            history.best_epoch, best = len(history.train_loss), _copied(model)
        if checkpoint is not None:
            _save(checkpoint, parts, signature, history, best)
    model.load_state_dict(best)
    model.eval()
    return history


def _warm_up_and_cool_down(steps: int) -> Callable[[int], float]:
    """The learning rate's share of its peak: up over a tenth of the steps, down along a cosine."""
    warm = max(1, steps // 10)

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return share


def _epoch(
    task: Task,
    optimizer: torch.optim.Optimizer,
    planner: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
    schedule: Schedule,
    label: str,
    history: History,
    device: torch.device,
) -> float:
    task.model.train()
    total = 0.0
    name = f"{label} {len(history.train_loss) + 1}/{schedule.epochs}"
    batches = task.batches(generator)
    for batch in tqdm(batches, total=task.num_batches, desc=name, unit="batch", disable=None):
        with _mixed_precision(device):
            loss = task.loss(batch, generator)
        if not bool(torch.isfinite(loss)):
            raise UserError(
                f"{label}: the loss is {loss.item()} in epoch {len(history.train_loss) + 1}; "
                "lower the learning rate with --set"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(task.model.parameters(), schedule.clip_norm)
        optimizer.step()
        planner.step()
        total += float(loss.detach())
    return total / max(1, task.num_batches)


def _mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 on CUDA; it has float32's range, so the loss needs no scaling."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _validate(task: Task) -> float | None:
    task.model.eval()
    with torch.no_grad():
        return task.validate()


def _out_of_patience(history: History, schedule: Schedule) -> bool:
    since_best = len(history.train_loss) - history.best_epoch
    return bool(history.train_loss) and since_best >= max(1, schedule.patience)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(
    path: Path,
    parts: tuple[nn.Module, Any, Any, torch.Generator],
    signature: dict[str, Any],
    history: History,
    best: dict[str, Tensor],
) -> None:
    model, optimizer, planner, generator = parts
    state = {
        "signature": signature,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "planner": planner.state_dict(),
        "generator": generator.get_state(),
        "random": torch.get_rng_state(),
        "history": asdict(history),
        "best": best,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        torch.save(state, partial)
        # The old checkpoint stays whole until the new one is complete.
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path.name}: the checkpoint could not be written: {error}") from None


def _resume(
    path: Path, parts: tuple[nn.Module, Any, Any, torch.Generator], signature: dict[str, Any]
) -> tuple[History, dict[str, Tensor]]:
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path.name}: not a readable checkpoint; remove it to start over"
        ) from error
    if state["signature"] != signature:
        raise UserError(
            f"{path.name}: written with other settings or data; remove it or change --output"
        )
    model, optimizer, planner, generator = parts
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    planner.load_state_dict(state["planner"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["random"])
    return History(**state["history"]), state["best"]
