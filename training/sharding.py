"""A model over many processes: TorchRec's planner places the embedding tables, its
DistributedModelParallel runs them, the dense rest is replicated (DDP).

Two copies stand side by side: `parallel`, which learns, and `plain`, the ordinary model, into which
the weights are gathered for validation, checkpoints and everything after training. So a checkpoint
holds plain tensors under plain names, whoever wrote it.
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchrec import EmbeddingBagCollection
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper, get_unwrapped_module

from training import distributed
from training.placement import Block, Sharder, blocks_of, plan_of

_MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's, shaped like their parameter


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what TorchRec says about its own insides, partly through the root logger."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class Spread(nn.Module):
    """`plain` and its `parallel` copy. Called, it answers as the parallel copy does."""

    plain: nn.Module
    parallel: nn.Module

    def __init__(
        self, plain: nn.Module, device: torch.device, sharding_types: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.__dict__["plain"] = plain  # not a submodule: its weights are not trained here
        self._blocks: dict[str, dict[int, list[Block]]] = {}
        copied = copy.deepcopy(plain)
        # fbgemm differentiates its CPU look-up itself; torch does not see how and warns. The tests
        # hold the steps taken with it against those of one process.
        warnings.filterwarnings("ignore", "fbgemm::dense_embedding_codegen_lookup_function")
        with _quietly():
            if any(isinstance(module, EmbeddingBagCollection) for module in plain.modules()):
                plan = plan_of(copied, device, sharding_types)
                self._blocks = blocks_of(plan)
                self.parallel = DistributedModelParallel(
                    copied,
                    device=device,
                    plan=plan,
                    sharders=[Sharder()],
                    data_parallel_wrapper=DefaultDataParallelWrapper(static_graph=False),
                )
            else:
                self.parallel = DistributedDataParallel(
                    copied,
                    device_ids=[device] if device.type == "cuda" else None,
                    broadcast_buffers=False,
                )
        self.load(plain.state_dict())

    @property
    def inner(self) -> nn.Module:
        """The part of `parallel` whose parameters have the names of `plain`."""
        ddp = isinstance(self.parallel, DistributedDataParallel)
        inner: Any = self.parallel.module if ddp else self.parallel
        assert isinstance(inner, nn.Module)
        return inner

    def forward(self, *inputs: Any) -> Any:
        return self.parallel(*inputs)

    def dense_parts(self) -> list[nn.Module]:
        """What may be compiled of the copy that learns."""
        inner: Any = get_unwrapped_module(self.parallel)
        parts: list[nn.Module] = inner.dense_parts()
        return parts

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of this process by plain name; of a placed table, its block or nothing."""
        return ((n, p) for n, p in self.inner.named_parameters() if p.numel())

    def is_placed(self, name: str) -> bool:
        """Whether the parameter stands in blocks on some processes, not whole on each."""
        return name in self._blocks

    def whole(self, name: str, local: Tensor | None) -> Tensor:
        """The whole of what is shaped like the parameter `name`, from every process's part."""
        if not self.is_placed(name):
            assert local is not None
            return local.detach().clone()
        like = self.plain.get_parameter(name)
        full = torch.zeros_like(like)
        blocks = self._blocks[name].get(distributed.rank(), [])
        if local is not None:
            # Several blocks of one table on one process are one parameter, one below the other.
            for block, stacked in zip(blocks, local.detach().chunk(len(blocks)), strict=True):
                full[block] = stacked
        return distributed.total(full)

    def own(self, name: str, full: Tensor) -> Tensor:
        """This process's part of the whole, as `whole` takes it."""
        if not self.is_placed(name):
            return full
        return torch.cat([full[block] for block in self._blocks[name][distributed.rank()]])

    @torch.no_grad()
    def gather(self) -> dict[str, Tensor]:
        """The whole state under plain names, on every process; `plain` has it then, too."""
        local = dict(self.trained())
        for name, parameter in self.plain.named_parameters():
            parameter.copy_(self.whole(name, local.get(name)))
        return self.plain.state_dict()

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the whole state, on every process."""
        self.plain.load_state_dict(state)
        buffers = dict(self.inner.named_buffers())
        for name, parameter in self.trained():
            parameter.copy_(self.own(name, state[name]))
        for name, buffer in self.plain.named_buffers():
            if name in buffers:
                buffers[name].copy_(buffer)


def spread(
    model: nn.Module, device: torch.device, sharding_types: Mapping[str, str] | None = None
) -> nn.Module:
    """What the steps of a training call: `model` itself alone, else its copy over the processes."""
    model = model.to(device)
    return model if distributed.world_size() == 1 else Spread(model, device, sharding_types or {})


def gather(model: nn.Module) -> dict[str, Tensor]:
    """The whole state of what `spread` gave, under plain names; the plain model has it, too."""
    return model.gather() if isinstance(model, Spread) else model.state_dict()


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a whole state into what `spread` gave."""
    if isinstance(model, Spread):
        model.load(state)
    else:
        model.load_state_dict(state)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """What an optimizer of this process steps, by plain name."""
    return dict(model.trained() if isinstance(model, Spread) else model.named_parameters())


def clip_gradients(model: nn.Module, limit: float) -> None:
    """Scale all gradients so that their norm over the whole model is at most `limit`."""
    if not isinstance(model, Spread):
        nn.utils.clip_grad_norm_(model.parameters(), limit)
        return
    graded = [(name, p.grad) for name, p in model.trained() if p.grad is not None]
    some = graded[0][1]
    placed, replicated = some.new_zeros(()), some.new_zeros(())
    for name, gradient in graded:
        squared = gradient.square().sum()
        if model.is_placed(name):
            placed += squared
        else:
            replicated += squared
    norm = (distributed.total(placed) + replicated).sqrt()
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for _, gradient in graded:
        gradient.mul_(scale)


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an AdamW over `trained(model)` by plain parameter name, whole."""
    local = trained(model)
    names = [n for n, _ in (model.plain if isinstance(model, Spread) else model).named_parameters()]
    state: dict[str, dict[str, Tensor]] = {}
    for name in names:
        own = optimizer.state[local[name]] if name in local else {}
        steps = max(distributed.of_all(float(own["step"]) if own else 0.0))
        if not steps:
            continue
        moments = {
            key: model.whole(name, own.get(key)) if isinstance(model, Spread) else own[key]
            for key in _MOMENTS
        }
        state[name] = {"step": torch.tensor(steps), **moments}
    group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    return {"state": state, "group": group}


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]
) -> None:
    """The opposite of `optimizer_state`, whoever saved it."""
    for name, parameter in trained(model).items():
        if name not in saved["state"]:
            continue
        whole = saved["state"][name]
        optimizer.state[parameter] = {
            "step": whole["step"].to(parameter.device, copy=True),
            **{
                key: (model.own(name, whole[key]) if isinstance(model, Spread) else whole[key]).to(
                    parameter.device, copy=True, memory_format=torch.contiguous_format
                )
                for key in _MOMENTS
            },
        }
    optimizer.param_groups[0].update(saved["group"])
