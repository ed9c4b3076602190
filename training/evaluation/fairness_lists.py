"""What is audited about products: how well a run serves groups of people on its test baskets, and
what they are shown."""

import numpy as np

from contract.clock import to_us
from contract.errors import UserError
from contract.fairness import FairnessReport, Measure, audit
from training.data.demographics import Groups
from training.data.item_tables import count
from training.data.source import Source
from training.evaluation import metrics
from training.evaluation.gap import K, cases_between
from training.evaluation.protocols import bought_before, situation
from training.recommender import Recommender
from training.run_folder import Run

_BEST_SELLING = 100


def lists_audit(
    fitted: Run, source: Source, groups: Groups, most: int, least_people: int
) -> FairnessReport:
    """Quality and exposure on up to `most` test baskets of people whose group is known; by region
    too where baskets tell theirs. History and tables end before the test."""
    window, vocabulary, baskets = fitted.window, fitted.vocabulary, source.baskets
    cut_us = to_us(window.train_until)
    tables = count(baskets, cut_us, vocabulary, source.catalogue, source.timelines)
    known = set().union(*groups.values()) if groups else set(baskets.subjects)
    until_us = to_us(window.test_until)
    every = cases_between(source, vocabulary, cut_us, until_us, len(baskets), 0)
    cases = [case for case in every if case.subject in known]
    order = np.sort(np.random.default_rng(0).permutation(len(cases))[:most])
    cases = [cases[place] for place in order.tolist()]
    if not cases:
        raise UserError("no test basket of anybody whose group is known")
    asked = [situation(case, baskets, source.timelines, cut_us) for case in cases]
    recommender = Recommender(vocabulary, tables, fitted.towers, fitted.ranker)
    ranked = recommender.rank(asked, K, label="fairness")["ranker"]
    quality = metrics.per_case(ranked, [case.targets for case in cases])
    shown = ranked >= 0
    sold = tables.statistics.popularity
    usual = np.sort(sold)[-min(_BEST_SELLING, len(sold))]
    beside = shown & (sold[np.maximum(ranked, 0)] < usual)
    own = bought_before(cases, baskets, cut_us, vocabulary)
    new = shown & ~np.array([np.isin(row, mine) for row, mine in zip(ranked, own, strict=True)])
    count_shown = np.maximum(shown.sum(1), 1)
    measures = [
        *(Measure(name, "quality", values) for name, values in quality.items()),
        Measure("shown beside the 100 best-selling", "exposure", beside.sum(1) / count_shown),
        Measure("shown and never bought before", "exposure", new.sum(1) / count_shown),
    ]
    subjects = [case.subject for case in cases]
    attributes: dict[str, list[str | None]] = {
        name: [of.get(one) for one in subjects] for name, of in groups.items()
    }
    regions = [baskets.contexts[case.number] for case in cases]
    if any(one is not None and one.region for one in regions):
        attributes["region"] = [None if one is None else one.region for one in regions]
    person = np.unique(subjects, return_inverse=True)[1].astype(np.int64)
    return audit(attributes, measures, person, least_people=least_people)
