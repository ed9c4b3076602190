"""From an imported folder to a fitted recommender, in one straight line.

The ranker must see scores as they are at serving, on baskets that the towers have not learned. So:
towers on the baskets before the ranker's windows, ranker on the windows, each with tables and
histories frozen at its own start, both stopped early on the validation days; then, with the numbers
of epochs that validation chose, the towers go on over all training baskets and the ranker is
refitted on the whole windows, and the tables are counted again up to the end.
"""

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from contract.clock import DAY_US, to_us
from contract.encoding import Vocabulary
from contract.errors import UserError
from training.commands import peak_mib
from training.data import ranking_examples
from training.data.baskets import Numbers
from training.data.drawn_questions import drawn_questions
from training.data.item_tables import ItemTables, count
from training.data.item_text import text_vectors
from training.data.ranking_examples import DrawnQuestion
from training.data.source import Source
from training.data.tower_examples import Question, questions, tower_examples
from training.data.usual_candidates import usual_items
from training.evaluation import gap
from training.export.served_profile import served_profile
from training.models.embeddings import ItemColumns, item_columns
from training.models.ranker import Ranker
from training.models.retrieval import RetrievalModel
from training.recipes import Recipe
from training.recommender import Recommender, neural_side
from training.tasks import RankerTask, RetrievalTask
from training.trainer import History, Schedule, train

_EARLIEST = int(np.iinfo(np.int64).min)
# How much of their weight drawn places may keep, as baskets are completed best.
_HEARD = (1.0, 0.3, 0.1)
# What a person can lower when memory runs out, by what was being trained.
_LOWER: dict[type, str] = {
    RetrievalTask: "`--set batch_size=` or `--set negatives=`",
    RankerTask: "`--set ranker_batch_size=` or `--set ranker_hidden=`",
}


@dataclass
class Report:
    """What a fit did: a history per stage, the gap, seconds and peak memory."""

    histories: dict[str, History] = field(default_factory=dict)
    # Metrics on `train` and `validation` questions of the model that was chosen, before its refit.
    gap: dict[str, dict[str, float]] = field(default_factory=dict)
    explored_weight: float = 0.0  # of places that chance drew, as validation let it be
    seconds: float = 0.0
    peak_mib: float = 0.0


@dataclass(frozen=True)
class RankerWindow:
    """A stretch of the training time with what was known at its start."""

    asked: list[Question]
    tables: ItemTables
    drawn: list[DrawnQuestion] = field(default_factory=list)  # that exploration asked in it


class Fit:
    """One fit of one recipe on one source. `checkpoints`: where to save and resume, if anywhere.

    Under torchrun every process makes the same fit and learns from its part of each batch; at the
    end all hold the same recommender.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        *,
        device: torch.device,
        checkpoints: Path | None = None,
        compiled: bool = False,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.source, self.recipe, self.device = source, recipe, device
        self.checkpoints, self.compiled = checkpoints, compiled
        window = source.window
        self.validate_us, self.cut_us = to_us(window.validate_from), to_us(window.train_until)
        earliest = int(source.baskets.occurred_us[0])
        # On a short history the ranker's window takes at most half of what comes before it.
        self.ranker_us = max(
            self.cut_us - recipe.ranker_days * DAY_US, (earliest + self.validate_us) // 2
        )
        self.ranker_us = min(self.ranker_us, self.validate_us - DAY_US)
        # Earlier windows of the same length, as far as half of the history stays before them.
        length = self.cut_us - self.ranker_us
        self.window_starts = [self.ranker_us - n * length for n in range(recipe.ranker_windows)]
        halfway = (earliest + self.cut_us) // 2
        self.window_starts = [s for s in self.window_starts if s >= halfway] or [self.ranker_us]
        self.vocabulary = vocabulary or source.baskets.vocabulary(
            self.cut_us, recipe.min_item_baskets
        )
        explored = source.drawn if recipe.explored_weight else None
        self.drawn = None if explored is None else explored.known_at(self.cut_us)
        self._identity = self._described()
        self.report = Report()

    def _described(self) -> str:
        """A digest of everything that makes this fit what it is, so that a checkpoint of another
        recipe, window or data is never gone on with."""
        baskets = self.source.baskets
        digest = hashlib.sha256(repr((self.recipe, self.source.window)).encode())
        digest.update(self.source.timelines.rules.as_bytes())
        digest.update(self.vocabulary.hash.encode())
        digest.update(self.source.timelines.said)
        for column in (baskets.subject, baskets.occurred_us, baskets.offsets, baskets.item):
            digest.update(np.ascontiguousarray(column).tobytes())
        if self.drawn is not None and len(self.drawn):
            digest.update(repr(vars(self.drawn)).encode())
        return digest.hexdigest()

    def run(self) -> Recommender:
        """Fit, choose on validation, refit. UserError on data that cannot be learned from."""
        began = time.perf_counter()
        torch.manual_seed(self.recipe.seed)
        windows, held_out = self.ranking_questions()
        towers = self._new_towers()
        self._train_towers(
            towers, windows[-1].tables, self.window_starts[-1], "towers", held_out.asked
        )
        chosen_on = self._examples(held_out, towers, "held-out candidates")
        examples = ranking_examples.RankingExamples.joined(
            [self._examples(window, towers, "candidates") for window in windows]
        )
        asked = [question for window in windows for question in window.asked]
        early = examples.where(np.array([q.situation.now_us < self.validate_us for q in asked]))
        drawn, drawn_early = self._drawn_examples(windows, towers)
        first, heard = self._first_ranker(early, drawn_early, chosen_on)
        self.report.gap = gap.measured(
            Recommender(self.vocabulary, windows[0].tables, towers, first),
            self.source,
            train_us=self.ranker_us,
            validate_us=self.validate_us,
            cut_us=self.cut_us,
            seed=self.recipe.seed,
        )
        epochs = max(1, self.report.histories["ranker"].best_epoch)
        ranker = self._train_ranker(_both(examples, drawn, heard), None, "ranker refit", epochs)

        after = self._count(self.cut_us)
        self._train_towers(towers, after, self.cut_us, "towers refit", None)
        self.report.seconds = time.perf_counter() - began
        self.report.peak_mib = peak_mib()
        fitted = Recommender(self.vocabulary, after, towers, ranker)
        recent = [question.situation for question in held_out.asked]
        profile, shown = served_profile(fitted, recent)
        usual = usual_items(examples, shown, self.recipe.seed)
        return replace(fitted, usual=usual, profile=profile)

    def run_towers(self) -> RetrievalModel:
        """The towers alone, as of the training cut."""
        torch.manual_seed(self.recipe.seed)
        towers = self._new_towers()
        self._train_towers(
            towers, self._count(self.ranker_us), self.ranker_us, "towers", self._held_out()
        )
        self._train_towers(towers, self._count(self.cut_us), self.cut_us, "towers refit", None)
        return towers

    def ranking_questions(self) -> tuple[list[RankerWindow], RankerWindow]:
        """What the ranker learns from, the newest window first, and what it is chosen on."""
        starts, ends = self.window_starts, [self.cut_us, *self.window_starts]
        windows = [
            RankerWindow(
                self._questions(start, end, "ranking", start),
                self._count(start),
                self._drawn_questions(start, end),
            )
            for start, end in zip(starts, ends, strict=False)
        ]
        return windows, RankerWindow(self._held_out(), windows[0].tables)

    def _drawn_questions(self, start_us: int, end_us: int) -> list[DrawnQuestion]:
        if self.drawn is None:
            return []
        return drawn_questions(
            self.drawn,
            self.source.timelines,
            self.vocabulary,
            (start_us, end_us),
            self.recipe.explored_weight,
        )

    def _held_out(self) -> list[Question]:
        return self._questions(self.validate_us, self.cut_us, "held-out", self.ranker_us)

    def _count(self, until_us: int) -> ItemTables:
        source = self.source
        return count(source.baskets, until_us, self.vocabulary, source.catalogue, source.timelines)

    def _new_towers(self) -> RetrievalModel:
        catalogue = self.source.catalogue
        return new_towers(
            self.recipe,
            item_columns(catalogue, self.vocabulary),
            torch.from_numpy(text_vectors(catalogue, self.vocabulary)),
        )

    def _questions(
        self, start_us: int, end_us: int, label: str, frozen_us: int | None
    ) -> list[Question]:
        limits = {
            "held-out": self.recipe.validation_examples,
            "ranking": self.recipe.ranker_examples,
        }
        found = questions(
            self.source.baskets,
            self.source.timelines,
            self.vocabulary,
            self._numbers(start_us, end_us),
            # A stream of its own for each draw: changing one leaves the others as they were.
            np.random.default_rng([self.recipe.seed, *label.encode()]),
            frozen_us=frozen_us,
            unknown_share=self.recipe.unknown_share,
            empty_share=self.recipe.empty_share,
            limit=limits.get(label, self.recipe.tower_examples),
            label=label,
            synthetic_share=0.0 if label == "held-out" else self.recipe.synthetic_share,
            # Validation asks what was bought; up to the cut and no further anybody has said.
            said_until_us=None if label == "held-out" else min(end_us, self.cut_us),
        )
        if not found:
            raise UserError(
                f"no basket with two known items for the {label} examples; the training time is "
                "too short, or its items too rare (--set min_item_baskets=1)"
            )
        return found

    def _numbers(self, start_us: int, end_us: int) -> Numbers:
        return self.source.baskets.between(start_us, end_us)

    def _train_towers(
        self,
        towers: RetrievalModel,
        tables: ItemTables,
        until_us: int,
        stage: str,
        held_out: list[Question] | None,
    ) -> None:
        recipe = self.recipe
        # Before its first purchase an item's id says nothing: content must do.
        towers.item_tower.unseen.copy_(torch.from_numpy(tables.statistics.popularity == 0))
        task = RetrievalTask(
            towers,
            tower_examples(self._questions(_EARLIEST, until_us, stage, None), self.vocabulary),
            None if held_out is None else tower_examples(held_out, self.vocabulary),
            tables.statistics,
            batch_size=recipe.batch_size,
            negatives=recipe.negatives,
            device=self.device,
        )
        refit = held_out is None
        schedule = Schedule(
            recipe.refit_epochs if refit else recipe.tower_epochs,
            recipe.learning_rate / (4 if refit else 1),
            recipe.weight_decay,
            recipe.refit_epochs if refit else recipe.tower_patience,
        )
        self._train(task, schedule, stage)

    def _examples(
        self, window: RankerWindow, towers: RetrievalModel, label: str
    ) -> ranking_examples.RankingExamples:
        situations = [question.situation for question in window.asked]
        return ranking_examples.build(
            situations,
            [question.targets for question in window.asked],
            self.vocabulary,
            window.tables,
            neural_side(towers, situations, self.vocabulary),
            label=label,
            refused=[question.refused for question in window.asked],
        )

    def _drawn_examples(
        self, windows: list[RankerWindow], towers: RetrievalModel
    ) -> tuple[ranking_examples.RankingExamples, ranking_examples.RankingExamples]:
        """Of all drawn places, and of those of which was known before validation what came."""
        built = ranking_examples.RankingExamples.joined(
            [
                ranking_examples.build_drawn(
                    window.drawn,
                    self.vocabulary,
                    window.tables,
                    neural_side(towers, [one.situation for one in window.drawn], self.vocabulary),
                    label="drawn places",
                )
                for window in windows
                if window.drawn
            ]
            or [ranking_examples.RankingExamples.empty(0)]
        )
        asked = [one for window in windows for one in window.drawn]
        early = np.array([one.known_us < self.validate_us for one in asked], bool)
        return built, built.where(early)

    def _first_ranker(
        self,
        early: ranking_examples.RankingExamples,
        drawn: ranking_examples.RankingExamples,
        chosen_on: ranking_examples.RankingExamples,
    ) -> tuple[Ranker, float]:
        """The ranker that validation chooses, and how much of their weight the drawn places have in
        it: what completes baskets best, if that costs no more than `explored_loss` of it."""
        if not len(drawn):
            return self._train_ranker(early, chosen_on, "ranker", None), 0.0
        histories, chosen = self.report.histories, "ranker alone"
        ranker, heard = self._train_ranker(early, chosen_on, chosen, None), 0.0
        loss = self.recipe.explored_loss
        best = (1 - loss) * (1 - min(histories[chosen].validation))
        for share in _HEARD if loss < 1 else _HEARD[:1]:
            stage = f"ranker hears {share:g}"
            other = self._train_ranker(_both(early, drawn, share), chosen_on, stage, None)
            found = 1 - min(histories[stage].validation)
            if found >= best:
                ranker, heard, chosen, best = other, share, stage, found
        histories["ranker"] = histories[chosen]
        self.report.explored_weight = heard * self.recipe.explored_weight
        return ranker, heard

    def _train_ranker(
        self,
        examples: ranking_examples.RankingExamples,
        held_out: ranking_examples.RankingExamples | None,
        stage: str,
        epochs: int | None,
    ) -> Ranker:
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        ranker = Ranker(
            examples.features.shape[2],
            recipe.ranker_hidden,
            recipe.ranker_dropout,
        )
        task = RankerTask(
            ranker,
            examples,
            held_out,
            batch_size=recipe.ranker_batch_size,
            device=self.device,
            refused_weight=recipe.refused_weight,
        )
        limit = recipe.ranker_epochs if epochs is None else epochs
        patience = recipe.ranker_patience if epochs is None else limit
        schedule = Schedule(limit, recipe.ranker_learning_rate, 1e-3, patience)
        self._train(task, schedule, stage)
        return ranker.cpu()

    def _train(self, task: RetrievalTask | RankerTask, schedule: Schedule, stage: str) -> None:
        checkpoint = None
        if self.checkpoints is not None:
            checkpoint = self.checkpoints / f"{stage.replace(' ', '-')}.pt"
        self.report.histories[stage] = train(
            task,
            schedule,
            seed=self.recipe.seed,
            label=stage,
            identity=self._identity,
            checkpoint=checkpoint,
            device=self.device,
            compiled=self.compiled,
            lower=_LOWER[type(task)],
        )


def _both(
    baskets: ranking_examples.RankingExamples,
    drawn: ranking_examples.RankingExamples,
    heard: float,
) -> ranking_examples.RankingExamples:
    """`baskets`, and `drawn` places with that share of their weight."""
    if not len(drawn) or not heard:
        return baskets
    return ranking_examples.RankingExamples.joined([baskets, drawn.louder(heard)])


def new_towers(
    recipe: Recipe, columns: ItemColumns, text_vectors: torch.Tensor | None = None
) -> RetrievalModel:
    """Untrained towers of `recipe`; `text_vectors`: what the items' text says to begin with, [N,
    text dimension], to be replaced where weights are read back."""
    return RetrievalModel(
        columns,
        dimension=recipe.dimension,
        blocks=recipe.blocks,
        heads=recipe.heads,
        dropout=recipe.dropout,
        id_dropout=recipe.id_dropout,
        search_share=recipe.search_share,
        content_weight=recipe.content_weight,
        refused_weight=recipe.refused_weight,
        text_vectors=text_vectors,
    )
