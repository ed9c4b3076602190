"""The processes that torchrun started, as one training: who am I, what is my part, what is the
whole. Alone, in an ordinary process, every function here answers as the first and only one."""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from contract.errors import UserError

T = TypeVar("T")
_SEED_STEP = 1_000_003  # between the random streams of two processes


def rank() -> int:
    """The number of this process, 0 for the first and for one that is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device_named(name: str) -> torch.device:
    """`cpu`, or the CUDA device of this process; UserError where the machine has none."""
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UserError("--device cuda: this machine has no CUDA device; use --device cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= count:
        raise UserError(f"--device cuda: {local + 1} processes or more here, but {count} devices")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes for as long as the block runs: gloo on CPU, NCCL on CUDA.

    UserError when another process ends before this one is through.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield
        return
    _join("nccl" if device.type == "cuda" else "gloo")
    if rank() > 0:
        sys.stderr = _NoTerminal(sys.stderr)
    try:
        yield
        # Nobody leaves while another still waits for an answer.
        dist.barrier()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise UserError(
                "another process of this training has ended; started again, it goes on from the "
                "last checkpoint"
            ) from error
        raise
    finally:
        # The models' own threads talk through the group; they go before it does.
        gc.collect()
        dist.destroy_process_group()


def _join(backend: str) -> None:
    """As `init_process_group` does, in a namespace of this attempt's own.

    torchrun keeps one store for all restarts of its processes, and the addresses of the dead stand
    in it until the living write theirs: who comes first would call a dead one, and give up.
    """
    store, number, size = next(iter(rendezvous("env://")))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = PrefixStore(f"attempt-{attempt}", store)
    dist.init_process_group(backend, store=own, rank=number, world_size=size)


class _NoTerminal:
    """Standard error, to which progress bars are not drawn: the first process's are enough."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def seed(number: int) -> None:
    """Seed torch's random stream: another one in every process, the usual one in the first."""
    torch.manual_seed(number + _SEED_STEP * rank())


def part(rows: Tensor) -> Tensor:
    """This process's rows of a batch [B]. A batch smaller than the number of processes is taken
    whole by every one of them, so that nobody is left with an empty one."""
    size = world_size()
    return rows if len(rows) < size else rows[rank() :: size]


def share(count: Tensor) -> Tensor:
    """What a mean over `count` things here must be multiplied by, so that the average over the
    processes is the mean over all things; 1 alone. Scalar to scalar."""
    if world_size() == 1:
        return torch.ones_like(count, dtype=torch.float32)
    everybody = count.detach().to(torch.float32).clone()
    dist.all_reduce(everybody)
    return count * world_size() / everybody.clamp(min=1e-9)


def average(value: Tensor) -> Tensor:
    """The mean of `value` over the processes, without gradients."""
    found = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(found)
        found /= world_size()
    return found


def total(value: Tensor) -> Tensor:
    """The sum of `value` over the processes, without gradients."""
    found = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(found)
    return found


def of_all(value: T) -> list[T]:
    """Everybody's `value`, by rank."""
    found: list[Any] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(found, value)
    return found


def from_first(compute: Callable[[], T]) -> T:
    """`compute()` of the first process, for all of them; its UserError too, so that all end alike
    and nobody waits for one that has given up."""
    if world_size() == 1:
        return compute()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = compute()
        except UserError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    found: T = answer[0]
    return found
