"""What makes a training quick on its device, and what is said when the device has not enough."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from contract.errors import OutOfMemory

# How torch's allocators on CPU say it, with and without a message of the operating system.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")

_PASSED_OVER = "the compiler passes over torch's own containers without a word; see models.layers"


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 on CUDA; it has float32's range, so the loss needs no scaling."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def compile_or_say(model: nn.Module, step: Callable[[], Tensor], label: str) -> list[nn.Module]:
    """Compile the model's `dense_parts`, try them in `step()`, a scalar loss, and return them.
    Look-ups, and whatever has shapes that depend on values, are no such parts.

    Where the compiler gives up, one line says so and the training goes on without it. The trial
    changes neither weights nor random streams.
    """
    parts: list[nn.Module] = getattr(model, "dense_parts", list)()
    assert not any(type(part).__module__.startswith("torch.") for part in parts), _PASSED_OVER
    devices = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler imports what torch itself deprecates
            for part in parts:
                part.compile(dynamic=True)
            step().backward()  # type: ignore[no-untyped-call]
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the compiler or its back end throws
        plain_again(parts)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        print(f"{label}: not compiled, goes on without: {reason}", file=sys.stderr)
        return []
    finally:
        model.zero_grad(set_to_none=True)
    return parts


def plain_again(parts: list[nn.Module]) -> None:
    """Call `parts` as they are written."""
    for part in parts:
        part._compiled_call_impl = None


@contextlib.contextmanager
def out_of_memory(label: str, lower: str, device: torch.device) -> Iterator[None]:
    """Turn the many ways in which memory runs out into one line that names what to `lower`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(text in str(error) for text in _NO_MEMORY):
            raise
        where = "the CUDA device" if device.type == "cuda" else "this machine"
        raise OutOfMemory(f"{label}: {where} has not enough memory; lower {lower}") from None
