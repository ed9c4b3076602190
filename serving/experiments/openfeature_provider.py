"""An OpenFeature provider, so that a shop which asks flags through OpenFeature goes on doing so: it
answers in the shop's own process, without a call, what the gateway would assign.

An experiment's key is a string flag, whose value is the variant. `KEY.personalization` and
`KEY.offers` are boolean flags: what the variant leaves in place. The context's targeting key is the
`visitor_id` that the shop sends with `decide`; its attribute `personalization: false` says that the
visitor's history may not be used.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Never, TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import (
    FlagNotFoundError,
    TargetingKeyMissingError,
    TypeMismatchError,
)
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, Metadata

from contract.experiments import Assigner, Experiment

_SWITCHES = ("personalization", "offers")
Value = TypeVar("Value")


class TillwiseProvider(AbstractProvider):
    """Of the experiments as `GET /v1/experiments` answers them."""

    def __init__(
        self,
        experiments: Sequence[Mapping[str, Any]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__()
        self._now = now
        self.update(experiments)

    def update(self, experiments: Sequence[Mapping[str, Any]]) -> None:
        """Take over later definitions, whole. Raises ValueError for what is none."""
        read = [Experiment.model_validate(one) for one in experiments]
        self._known, self._assigner = {one.key for one in read}, Assigner(read)

    def get_metadata(self) -> Metadata:
        """Its name."""
        return Metadata(name="tillwise")

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """The variant; the default for whoever is not in the experiment."""
        variant = self._variant(flag_key, evaluation_context)
        return _details(default_value if variant is None else variant, variant)

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """What a variant leaves in place; the default for whoever is not in the experiment."""
        key, _, switch = flag_key.rpartition(".")
        if switch not in _SWITCHES:
            raise TypeMismatchError("boolean flags end in .personalization or .offers")
        variant = self._variant(key, evaluation_context)
        if variant is None:
            return _details(default_value, None)
        left: bool = getattr(self._assigner.changes([(key, variant)]), switch)
        return _details(left, variant)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """Refused: there are none."""
        self._no_such_type()

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """Refused: there are none."""
        self._no_such_type()

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Any,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        """Refused: there are none."""
        self._no_such_type()

    def _no_such_type(self) -> Never:
        raise TypeMismatchError("an experiment has a variant (a string) and boolean switches")

    def _variant(self, key: str, context: EvaluationContext | None) -> str | None:
        if key not in self._known:
            raise FlagNotFoundError(f"there is no experiment {key!r}")
        if context is None or not context.targeting_key:
            raise TargetingKeyMissingError("the targeting key is the visitor_id")
        personal = context.attributes.get("personalization") is not False
        assigned = self._assigner.assign(context.targeting_key, self._now(), personal=personal)
        return dict(assigned).get(key)


def _details(value: Value, variant: str | None) -> FlagResolutionDetails[Value]:
    reason = Reason.DEFAULT if variant is None else Reason.SPLIT
    return FlagResolutionDetails(value=value, variant=variant, reason=reason)
