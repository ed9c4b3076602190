"""What `benchmarks.training` times: real tasks of the trainer on made-up examples of real shapes.

A new case is a function of a `Setting` that gives a task and the examples in a batch, and a line in
`CASES`. Nothing is read from disk, so that a machine needs the code alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from contract.candidates import MAX_CANDIDATES
from contract.encoding import FIRST_ITEM, QUERY_TOWER_INPUTS, SEQUENCE_INPUTS
from contract.items import ITEM_STATISTICS, ItemTable
from contract.manifest import QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from contract.pair_features import PAIR_FEATURES
from training.data.ranking_examples import RankingExamples
from training.data.tower_examples import TARGETS, TowerExamples
from training.export.parity import random_inputs
from training.fit import new_towers
from training.models.embeddings import ITEM_FEATURES, ItemColumns
from training.models.ranker import Ranker
from training.next_item.augmentation import Augmentation
from training.next_item.fit import new_model
from training.next_item.recipe import sequence_recipe
from training.next_item.sequences import Sequences
from training.next_item.task import NextItemTask
from training.recipes import Recipe
from training.tasks import RankerTask, RetrievalTask
from training.trainer import Task

# Batches that differ, so that a look-up does not find everything in the cache.
BATCHES = 8
_MEAN_HISTORY = 7  # items beyond the first two


@dataclass(frozen=True)
class Setting:
    """What is trained where: `num_items` is the size of the made-up catalogue."""

    recipe: Recipe
    device: torch.device
    num_items: int
    seed: int = 0

    @property
    def rng(self) -> np.random.Generator:
        """A stream that starts anew for every use."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Case:
    """A task of the trainer and how many examples one of its batches holds in the mean."""

    task: Task
    batch_size: float


def towers(setting: Setting) -> Case:
    """Two towers and sequence encoder, sampled softmax."""
    recipe, rng = setting.recipe, setting.rng
    torch.manual_seed(setting.seed)
    model = new_towers(recipe, _columns(setting))
    count = recipe.batch_size * BATCHES
    inputs = {
        **random_inputs(QUERY_TOWER, count, setting.num_items, rng),
        **random_inputs(SEQUENCE_ENCODER, count, setting.num_items, rng),
    }
    assert inputs.keys() == QUERY_TOWER_INPUTS.keys() | SEQUENCE_INPUTS.keys()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    targets = torch.from_numpy(rng.integers(FIRST_ITEM, setting.num_items, (count, TARGETS)))
    task = RetrievalTask(
        model,
        TowerExamples(tensors, targets),
        None,
        _statistics(setting),
        batch_size=recipe.batch_size,
        negatives=recipe.negatives,
        device=setting.device,
    )
    return Case(task, recipe.batch_size)


def ranker(setting: Setting) -> Case:
    """The ranker, listwise softmax over the candidates of a checkout."""
    recipe, rng = setting.recipe, setting.rng
    torch.manual_seed(setting.seed)
    count = recipe.ranker_batch_size * BATCHES
    shape = (count, MAX_CANDIDATES)
    relevant = rng.random(shape) < 0.02
    relevant[:, 0] = True
    (features,) = random_inputs(RANKER, count, setting.num_items, rng).values()
    assert features.shape == (*shape, len(PAIR_FEATURES))
    examples = RankingExamples(
        rng.integers(FIRST_ITEM, setting.num_items, shape),
        features.astype(np.float32),
        relevant,
        np.zeros(shape, bool),
        np.ones(count, np.float32),
    )
    task = RankerTask(
        Ranker(len(PAIR_FEATURES), recipe.ranker_hidden, recipe.ranker_dropout),
        examples,
        None,
        batch_size=recipe.ranker_batch_size,
        device=setting.device,
    )
    return Case(task, recipe.ranker_batch_size)


def next_item(setting: Setting, recipe_name: str) -> Case:
    """A member of a sequence recipe on histories of made-up lengths, about nine items in the mean;
    its examples are the places that are learned from."""
    recipe = sequence_recipe(recipe_name)
    count = recipe.batch_size * BATCHES
    lengths = 2 + setting.rng.geometric(1 / _MEAN_HISTORY, count)
    items = setting.rng.zipf(1.3, int(lengths.sum())) % (setting.num_items - FIRST_ITEM)
    histories = Sequences(items + FIRST_ITEM, np.concatenate(([0], np.cumsum(lengths))))
    task = NextItemTask(
        new_model(recipe, setting.num_items).to(setting.device),
        histories,
        None,
        batch_size=recipe.batch_size,
        negatives=recipe.negatives,
        exclude_seen=False,
        augmentation=Augmentation(),
        device=setting.device,
    )
    learned = np.minimum(lengths - 1, recipe.length).sum() / BATCHES
    return Case(task, float(learned))


CASES: dict[str, Callable[[Setting], Case]] = {
    "towers": towers,
    "ranker": ranker,
    "sequences": partial(next_item, recipe_name="sequences"),
    "sessions": partial(next_item, recipe_name="sessions"),
}


def _columns(setting: Setting) -> ItemColumns:
    """Random ids for every declared feature of every item."""
    rng, columns = setting.rng, {}
    for feature in ITEM_FEATURES:
        shape = (setting.num_items, feature.width)
        ids = rng.integers(1, feature.num_embeddings or setting.num_items, shape)
        if feature.column is None:
            ids = np.arange(setting.num_items)[:, None]
        ids[:FIRST_ITEM] = 0
        columns[feature.name] = _tensor(ids)
    return columns


def _statistics(setting: Setting) -> ItemTable:
    """A popularity with a long tail; what else a table holds does not matter to a step."""
    popularity = np.log1p(setting.rng.pareto(1.0, setting.num_items) * 10).astype(np.float32)
    rest = {name: np.zeros(setting.num_items, np.float32) for name in ITEM_STATISTICS}
    categories = np.zeros((setting.num_items, 3), np.int64)
    return ItemTable(**{**rest, "popularity": popularity}, categories=categories)


def _tensor(ids: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids, np.int64))
