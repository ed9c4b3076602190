"""Prometheus metrics of decisions. Every label has a fixed set of values: nothing that a caller
sends, no item and no release becomes one."""

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contract.events import FEEDBACK_CODE
from serving.monitoring.tally import Counts, Tally

STAGES = (
    "eligibility",
    "features",
    "feedback",
    "encode",
    "query_tower",
    "sequence_encoder",
    "retrieval",
    "ranker",
    "blend",
    "session_knn",
    "popular",
    "lists",
    "reasons",
    "attributions",
    "payment_shipping",
    "offers",
    "pacing",
    "rules",
    "overload",
    "price_filter",
)
RUNGS = ("full", "no_ranker", "session_knn", "popular", "empty")
TOWERS = ("query_tower", "sequence_encoder")
MODELS = (*TOWERS, "ranker")
OTHER = "other"
TOTAL = "total"
# Around the deadlines that checkouts set: 1 to 100 ms finely, then the longest one allowed.
SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025),
    *(0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0),
)


class DecisionMetrics:
    """The metrics of one gateway process, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._decisions = Counts(
            *("tillwise_decisions", "Decisions by rung", ("rung",), [(one,) for one in RUNGS]),
            registry,
        )
        self._degraded = Counts(
            *("tillwise_degraded_stages", "Stages that did not do their part", ("stage",)),
            *([(one,) for one in (*STAGES, OTHER)], registry),
        )
        self._seconds = Tally(
            "tillwise_decision_seconds", "Time per decision", "", ("",), SECONDS, registry
        )
        self._stages = Tally(
            *("tillwise_stage_seconds", "Time per stage", "stage", (*STAGES, OTHER)),
            *(SECONDS, registry),
        )
        self.shed = Counter(
            "tillwise_decisions_shed", "Answered from a cheaper rung", registry=registry
        )
        self.rejected = Counter(
            "tillwise_decisions_rejected", "Refused under overload", registry=registry
        )
        self.rules_failed = Counter(
            "tillwise_rules_failed",
            "Conditions of rules that could not be evaluated, and so did not hold",
            registry=registry,
        )
        self.in_flight = Gauge(
            "tillwise_decisions_in_flight", "Decisions under way", registry=registry
        )
        self.impressions_lost = Counter(
            "tillwise_impressions_lost", "Impressions that were not logged", registry=registry
        )
        self._model_server = Gauge(
            "tillwise_model_server_up",
            "Whether the model server answers a model's probe as it should",
            ["model"],
            registry=registry,
        )
        # Labels are made beforehand: looking one up costs more than counting.
        self._batches = _batches(registry)
        self._vectors = _vectors(registry)
        self._refused = _refused(registry)

    def decided(self, rung: str, seconds: float, degraded: Sequence[str]) -> None:
        """A decision was made."""
        self._decisions.add(rung)
        self._seconds.observe("", seconds)
        for stage in degraded:
            self._degraded.add(stage if stage in self._stages else OTHER)

    def refused(self, words: Iterable[str]) -> None:
        """So many items were left out of a decision, for these words."""
        for word in words:
            self._refused[word].inc()

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """How long each stage of a decision took; `total` is none."""
        spent_s = [(name, ms / 1_000) for name, ms in timings_ms.items() if name != TOTAL]
        self._stages.observe_all(spent_s, OTHER)

    def vector_looked_up(self, model: str, held: bool) -> None:
        """The cache of query vectors was asked for one of `model`."""
        self._vectors[model, held].inc()

    def batch(self, model: str, size: int) -> None:
        """A model ran for `size` requests at once; the `on_batch` of a release."""
        self._batches.get(model, self._batches[OTHER]).observe(size)

    def model_server(self, model: str, up: bool) -> None:
        """The model server began to answer for `model` as it should, or no longer does."""
        self._model_server.labels(model if model in MODELS else OTHER).set(up)


def _batches(registry: CollectorRegistry) -> dict[str, Histogram]:
    sizes = Histogram(
        "tillwise_inference_batch_size",
        "Requests per model run",
        ["model"],
        buckets=(1, 2, 3, 4, 5, 6, 7, 8),
        registry=registry,
    )
    return {model: sizes.labels(model) for model in (*MODELS, OTHER)}


def _vectors(registry: CollectorRegistry) -> dict[tuple[str, bool], Counter]:
    vectors = Counter(
        "tillwise_query_vectors",
        "Query vectors needed, by model and whether the cache held them",
        ["model", "held"],
        registry=registry,
    )
    return {
        (model, held): vectors.labels(model, "yes" if held else "no")
        for model in TOWERS
        for held in (True, False)
    }


def _refused(registry: CollectorRegistry) -> dict[str, Counter]:
    refused = Counter(
        "tillwise_items_refused",
        "Items left out of a decision for what its shopper said of them",
        ["feedback"],
        registry=registry,
    )
    return {kind: refused.labels(kind) for kind in FEEDBACK_CODE}
