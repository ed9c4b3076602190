"""What test_distributed.py starts under torchrun: some steps with the tables placed as it says.

Arguments: the shop's folder, a file for the result, `table=kind,...`, a checkpoint or `-`, epochs.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.training.conftest import small_recipe
from training import distributed, sharding
from training.data.source import read_source
from training.data.tower_examples import tower_examples
from training.fit import Fit
from training.tasks import RetrievalTask
from training.trainer import Schedule, train

EPOCHS = 4
_TABLE = "item_tower.tables.embedding_bags.{}.weight"


def steps(
    shop: Path, kinds: dict[str, str], checkpoint: Path | None, epochs: int
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The history and the plain weights after `epochs` of `EPOCHS`, without anything random."""
    device = torch.device("cpu")
    exact = ("dropout=0", "id_dropout=0", "search_share=0.0", "tower_examples=193")
    fit = Fit(read_source(shop), small_recipe(*exact), device=device)
    torch.manual_seed(0)
    model = fit._new_towers()
    asked, held_out, tables = fit.ranking_questions()
    task = RetrievalTask(
        model,
        tower_examples(asked[:193], fit.vocabulary),  # the last batch holds a single example
        tower_examples(held_out, fit.vocabulary),
        tables.statistics,
        batch_size=64,
        negatives=32,
        device=device,
        placement=kinds,
    )
    if isinstance(task.model, sharding.Spread):
        placed = {table for table in kinds if task.model.is_placed(_TABLE.format(table))}
        assert placed == {table for table, kind in kinds.items() if kind != "data_parallel"}
    if epochs < EPOCHS:
        _interrupt_after(task, epochs)
    try:
        schedule = Schedule(EPOCHS, 0.02, 1e-3, EPOCHS)
        history = asdict(train(task, schedule, seed=3, label="steps", checkpoint=checkpoint))
    except KeyboardInterrupt:
        history = {}
    return history, model.state_dict()


def _interrupt_after(task: RetrievalTask, epochs: int) -> None:
    batches, begun = task.batches, 0

    def counted(generator: torch.Generator) -> Any:
        nonlocal begun
        begun += 1
        if begun > epochs:
            raise KeyboardInterrupt
        return batches(generator)

    task.batches = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    shop, result, placed, kept, number = sys.argv[1:]
    with distributed.process_group(torch.device("cpu")):
        history, weights = steps(
            Path(shop),
            dict(pair.split("=") for pair in placed.split(",")),
            None if kept == "-" else Path(kept),
            int(number),
        )
        if distributed.rank() == 0:
            torch.save({"history": history, "weights": weights}, result)
