"""Where the embedding tables of a model stand when many processes train it: TorchRec's planner
decides, within what works on CPU and CUDA alike."""

from collections.abc import Mapping

import torch
from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.types import ShardingPlan, ShardingType

from training import distributed

# What pools on gloo as on NCCL; row-wise tables of an EmbeddingBagCollection do not on CPU.
SHARDING_TYPES = (
    ShardingType.TABLE_WISE.value,
    ShardingType.COLUMN_WISE.value,
    ShardingType.DATA_PARALLEL.value,
)
Block = tuple[slice, slice]


class Sharder(EmbeddingBagCollectionSharder):  # type: ignore[misc]
    """TorchRec's, limited to `SHARDING_TYPES`."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(SHARDING_TYPES)


def plan_of(
    model: nn.Module, device: torch.device, sharding_types: Mapping[str, str]
) -> ShardingPlan:
    """The planner's placement. `sharding_types` fixes the kind of some tables, by name."""
    size = distributed.world_size()
    widths = {
        config.name: config.embedding_dim
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for config in module.embedding_bag_configs()
    }
    fixed = {
        name: ParameterConstraints(
            sharding_types=[sharding_types[name]] if name in sharding_types else [*SHARDING_TYPES],
            min_partition=_block_width(width, size),
        )
        for name, width in widths.items()
    }
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=size, compute_device=device.type),
        storage_reservation=FixedPercentageStorageReservation(0.15),
        constraints=fixed,
        debug=False,
    )
    plan: ShardingPlan = planner.collective_plan(model, [Sharder()], torch.distributed.group.WORLD)
    # Where the tables stand is the planner's; how they learn is ours: their gradients go to the one
    # optimizer, which clips all of them together before it steps. A fused kernel would step inside
    # the backward pass, before the norm is known.
    for tables in plan.plan.values():
        for table in tables.values():
            table.compute_kernel = EmbeddingComputeKernel.DENSE.value
    return plan


def _block_width(width: int, processes: int) -> int:
    """The narrowest columns that a table may be cut into: equal, in fours as fbgemm wants them, and
    no more blocks than processes; the whole width where that cannot be."""
    fitting = (w for w in range(4, width, 4) if width % w == 0 and width // w <= processes)
    return next(fitting, width)


def blocks_of(plan: ShardingPlan) -> dict[str, dict[int, list[Block]]]:
    """Which rows and columns of a placed table stand on which process, by parameter name."""
    found: dict[str, dict[int, list[Block]]] = {}
    for path, tables in plan.plan.items():
        for table, placed in tables.items():
            if placed.sharding_spec is None:  # a copy on every process
                continue
            blocks: dict[int, list[Block]] = {}
            for shard in placed.sharding_spec.shards:
                (row, column), (rows, columns) = shard.shard_offsets, shard.shard_sizes
                block: Block = (slice(row, row + rows), slice(column, column + columns))
                blocks.setdefault(shard.placement.rank(), []).append(block)
            found[f"{path}.embedding_bags.{table}.weight"] = blocks
    return found
