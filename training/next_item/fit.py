"""From a split to a fitted next-item recommender: one member trained and stopped on validation, the
neighbourhood and the mixture chosen there, then all members learned anew from everything but what
is asked, with the number of epochs that validation chose."""

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from training.commands import peak_mib
from training.models.next_item import NextItemModel
from training.next_item.augmentation import Augmentation
from training.next_item.measures import Floats, gain
from training.next_item.recipe import SequenceRecipe
from training.next_item.recommender import (
    KNN_SETTINGS,
    MIXTURES,
    KnnSetting,
    Neighbours,
    NextItemRecommender,
)
from training.next_item.sequences import Questions, Sequences
from training.next_item.split import Split
from training.next_item.task import NextItemTask
from training.trainer import History, Schedule, train


@dataclass
class Report:
    """What a fit did: a history per training, the choices, seconds and peak memory."""

    histories: dict[str, History] = field(default_factory=dict)
    knn: KnnSetting | None = None
    mixture: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)
    first_member_seconds: float = 0.0
    seconds: float = 0.0
    peak_mib: float = 0.0


class NextItemFit:
    """One fit of one recipe on one split; after `run`, `chosen` is what validation was answered
    with, before everything was learned anew. `checkpoints`: where to save and resume, if anywhere.
    `knn`: the neighbourhood where it is chosen already."""

    def __init__(
        self,
        split: Split,
        recipe: SequenceRecipe,
        *,
        device: torch.device,
        checkpoints: Path | None = None,
        compiled: bool = False,
        knn: KnnSetting | None = None,
    ) -> None:
        self.split, self.recipe, self.device = split, recipe, device
        self.checkpoints, self.compiled = checkpoints, compiled
        self.report = Report(knn=knn)
        self._identity = self._described()
        self.chosen: NextItemRecommender | None = None

    def _described(self) -> str:
        """A digest of what makes this fit what it is: no checkpoint of another one is gone on
        with."""
        digest = hashlib.sha256(repr((self.recipe, self.split.protocol)).encode())
        digest.update(self.split.vocabulary.hash.encode())
        held_out = self.split.held_out
        digest.update(np.ascontiguousarray(held_out.target).tobytes())
        for part in (self.split.train, held_out.history, self.split.everything):
            for column in (part.item, part.offsets, part.event_type, part.gap, part.words):
                digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def run(self) -> NextItemRecommender:
        """Fit, choose on validation, and learn anew from everything but what is asked."""
        began = time.perf_counter()
        split, recipe = self.split, self.recipe
        held_out = sample(split.held_out, recipe.validation_examples)
        size = len(split.vocabulary)
        # The first member makes the choices for all of them.
        first = self._member(0, split.train, held_out, None)
        self.report.first_member_seconds = time.perf_counter() - began
        setting = self.report.knn or choose_knn(split, held_out)
        chosen = NextItemRecommender(
            [first],
            Neighbours.fit(split.train, size, setting),
            0.0,
            split.exclude_seen,
            self.device,
        )
        quality = {
            mixture: gain(places, split.cutoffs[-1])
            for mixture, places in chosen.places_at(held_out, MIXTURES).items()
        }
        mixture = max(quality, key=lambda one: quality[one])
        self.report.knn, self.report.mixture = setting, mixture
        self.report.validation = {f"{share:g}": found for share, found in quality.items()}
        self.chosen = replace(chosen, mixture=mixture)
        epochs = max(1, self.report.histories["member 1"].best_epoch)
        members = [
            self._member(number, split.everything, None, epochs) for number in range(recipe.members)
        ]
        near = Neighbours.fit(split.everything, size, setting)
        self.report.seconds = time.perf_counter() - began
        self.report.peak_mib = peak_mib()
        return replace(self.chosen, members=members, neighbours=near)

    def _member(
        self, number: int, sequences: Sequences, held_out: Questions | None, epochs: int | None
    ) -> NextItemModel:
        """One trained model; `epochs` None stops on validation."""
        recipe = self.recipe
        seed = recipe.seed * 1_000 + number
        stage = f"member {number + 1}" + ("" if epochs is None else " on everything")
        torch.manual_seed(seed)
        model = new_model(
            recipe, len(self.split.vocabulary), searches=self.split.train.words is not None
        )
        task = NextItemTask(
            model,
            sequences,
            held_out,
            batch_size=recipe.batch_size,
            negatives=recipe.negatives,
            exclude_seen=self.split.exclude_seen,
            augmentation=Augmentation(recipe.crop, recipe.mask, recipe.reorder),
            device=self.device,
        )
        limit = recipe.epochs if epochs is None else epochs
        checkpoint = None
        if self.checkpoints is not None:
            checkpoint = self.checkpoints / f"{stage.replace(' ', '-')}.pt"
        self.report.histories[stage] = train(
            task,
            Schedule(
                limit,
                recipe.learning_rate,
                recipe.weight_decay,
                recipe.patience if epochs is None else limit,
            ),
            seed=seed,
            label=stage,
            identity=self._identity,
            checkpoint=checkpoint,
            device=self.device,
            compiled=self.compiled,
        )
        return model


def new_model(recipe: SequenceRecipe, num_items: int, *, searches: bool = False) -> NextItemModel:
    """An untrained model of `recipe`; `searches`: whether the data tells of any."""
    return NextItemModel(
        num_items,
        dimension=recipe.dimension,
        block=recipe.block,
        blocks=recipe.blocks,
        heads=recipe.heads,
        length=recipe.length,
        dropout=recipe.dropout,
        cosine=bool(recipe.cosine),
        temperature=recipe.temperature,
        repeats=bool(recipe.repeats),
        readout=recipe.readout,
        searches=searches,
    )


def sample(questions: Questions, limit: int) -> Questions:
    """At most `limit` questions, always the same ones."""
    drawn = np.random.default_rng(0).permutation(len(questions))[:limit]
    return questions.where(np.sort(drawn))


def choose_knn(split: Split, held_out: Questions) -> KnnSetting:
    """The neighbourhood that answers the held-out questions best."""

    def quality(setting: KnnSetting) -> float:
        near = Neighbours.fit(split.train, len(split.vocabulary), setting)
        return gain(knn_places(near, held_out, split), split.cutoffs[-1])

    return max(KNN_SETTINGS, key=quality)


def knn_places(near: Neighbours, questions: Questions, split: Split) -> Floats:
    """The place of every target in the neighbourhood's own ranking; infinite where it is not in
    it."""
    found = np.full(len(questions), np.inf)
    history = questions.history
    for row, target in enumerate(questions.target.tolist()):
        items = history.item[history.offsets[row] : history.offsets[row + 1]]
        drop = items if split.exclude_seen else items[-1:]
        kept = near.setting.keeps_current and not split.exclude_seen
        ranked, _ = near.index.score(items, drop=None if kept else drop)
        at = np.flatnonzero(ranked[: split.cutoffs[-1]] == target)
        if len(at):
            found[row] = at[0] + 1
    return found
