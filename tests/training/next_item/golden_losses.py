"""Ten steps of every kind of block and of readout, and the file that keeps their losses."""

import json
from pathlib import Path

import torch

from contract.encoding import FIRST_ITEM
from tests.training.next_item.sequence_shop import ITEMS, sequences
from training.models.blocks import BLOCKS
from training.next_item.augmentation import Augmentation
from training.next_item.fit import new_model
from training.next_item.recipe import sequence_recipe
from training.next_item.task import NextItemTask
from training.trainer import Run, Schedule

FILE = Path(__file__).parents[2] / "golden" / "next_item_losses.json"


CURVES = [
    *((block, "state", negatives) for block in BLOCKS for negatives in (0, 24)),
    ("attention", "items", 0),
]


def ten_steps(block: str, readout: str, negatives: int) -> list[float]:
    """The loss of each of ten steps on a small shop; `negatives` 0 is the full softmax."""
    torch.manual_seed(0)
    settings = [f"block={block}", f"readout={readout}", "dropout=0", "dimension=16", "length=12"]
    model = new_model(
        sequence_recipe("sequences", [*settings, "cosine=1", "temperature=0.1"]), ITEMS + FIRST_ITEM
    )
    task = NextItemTask(
        model,
        sequences(320),
        None,
        batch_size=32,
        negatives=negatives,
        exclude_seen=False,
        augmentation=Augmentation(),
        device=torch.device("cpu"),
    )
    run = Run(task, Schedule(1, 0.03, 0.0, 1), 0, "golden", torch.device("cpu"))
    run.model.train()
    return [run.step(batch) for batch in task.batches(run.generator)]


if __name__ == "__main__":
    curves = {" ".join(map(str, one)): [round(x, 4) for x in ten_steps(*one)] for one in CURVES}
    FILE.write_text(json.dumps(curves, indent=1) + "\n")
