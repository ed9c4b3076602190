"""`tillwise-serve release status`: what one running gateway sees of its releases, read from its
`/readyz` and `/metrics`: who decides, how the one on trial does beside the live one, what the
shadow would have shown, what the guard compared."""

import argparse
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from contract.errors import UserError
from contract.figures import Figures
from serving.commands.arguments import add_json, settings_of
from serving.monitoring.releases import BETTER, ROLES, SAME, SHADOW, WORSE

_TIMEOUT_S = 10.0
_Labels = dict[str, str]


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = actions.add_parser("status", help="what a running gateway sees of its releases")
    parser.add_argument("--url", help="the gateway (default: the settings' host and port)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Figures:
    """Print one table. Raises UserError when no gateway answers."""
    settings = settings_of(args)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = (args.url or f"http://{host}:{settings.port}").rstrip("/")
    ready, seen = _asked(url)
    figures = Figures("release status")
    names = dict(seen.info())
    for role in ROLES:
        if role in names or seen.count(role):
            figures.add(f"{role} {names.get(role, '')}".strip(), seen.of_role(role))
    figures.notes += _notes(ready, seen)
    print(figures.table())
    return figures


def _asked(url: str) -> tuple[dict[str, Any], "_Metrics"]:
    """What a gateway says of itself, and what it counts. Raises UserError."""
    try:
        ready = json.loads(_read(f"{url}/readyz"))
        seen = _Metrics(_read(f"{url}/metrics").decode())
    except UserError:
        raise
    except ValueError:  # a proxy's page, or another program
        raise UserError(f"what answers at {url} is no gateway") from None
    if not isinstance(ready, dict) or not seen.any:
        raise UserError(f"what answers at {url} is no gateway")
    return ready, seen


def _notes(ready: dict[str, Any], seen: "_Metrics") -> list[str]:
    wrong = ready.get("problems", [ready["detail"]] if "detail" in ready else [])
    said = [f"wrong: {one}" for one in wrong]
    if ready.get("int8"):
        said.append(f"live in int8: {', '.join(ready['int8'])}")
    share = seen.value("tillwise_release_trial_percent")
    said.append(f"on trial: {share:g} % of the shoppers" if share else "nothing is on trial")
    for measure, base in seen.labelled("tillwise_release_guard", side="base"):
        trial = seen.value("tillwise_release_guard", measure=measure["measure"], side="trial")
        said.append(f"guard: {measure['measure']}: {trial:.4g} beside {base:.4g}")
    for cause, times in seen.labelled("tillwise_release_rollbacks_total"):
        if times:
            said.append(f"guard: rolled back {times:g} times for {cause['cause']}")
    return said


class _Metrics:
    """What `/metrics` says."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(("tillwise_release", "tillwise_shadow"))
        ]

    @property
    def any(self) -> bool:
        """Whether it says anything of releases, as every gateway does."""
        return bool(self._samples)

    def labelled(self, name: str, **labels: str) -> Iterator[tuple[_Labels, float]]:
        """Every sample of `name` that has these labels."""
        for sample in self._samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.labels, sample.value

    def value(self, name: str, **labels: str) -> float:
        """The sum of those."""
        return sum(value for _, value in self.labelled(name, **labels))

    def info(self) -> Iterator[tuple[str, str]]:
        """Which release has which role."""
        for labels, _ in self.labelled("tillwise_release_info"):
            yield labels["role"], labels["release_id"]

    def count(self, role: str) -> float:
        """Decisions in a role."""
        return self.value("tillwise_release_decision_seconds_count", role=role)

    def of_role(self, role: str) -> dict[str, list[float]]:
        """One row of the table."""
        decisions = self.count(role)
        row = {"decisions": [decisions]}
        if not decisions:
            return row
        full = self.value("tillwise_release_decisions_total", role=role, rung="full")
        failed = self.value("tillwise_release_failed_decisions_total", role=role)
        spent = self.value("tillwise_release_decision_seconds_sum", role=role)
        row["mean_ms"] = [spent / decisions * 1_000]
        row["p99_below_ms"] = [self._bound(role, 0.99 * decisions)]
        row["rung_full"] = [full / decisions]
        row["failed"] = [failed / decisions]
        return row | (self._shadow() if role == SHADOW else {})

    def _shadow(self) -> dict[str, list[float]]:
        compared = self.value("tillwise_shadow_overlap_count")
        overlap = self.value("tillwise_shadow_overlap_sum")
        rungs = {
            f"rung_{name}": [self.value("tillwise_shadow_rungs_total", outcome=name)]
            for name in (SAME, BETTER, WORSE)
        }
        dropped = self.value("tillwise_shadow_dropped_total")
        return {
            "overlap@5": [overlap / compared if compared else 0.0],
            **rungs,
            "dropped": [dropped],
        }

    def _bound(self, role: str, wanted: float) -> float:
        """The smallest bucket's bound, in milliseconds, below which `wanted` decisions lie."""
        name = "tillwise_release_decision_seconds_bucket"
        for labels, count in self.labelled(name, role=role):
            if count >= wanted:
                return float(labels["le"]) * 1_000
        return float("inf")


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:  # not ready: what it says is what is asked for
        return error.read()
    except (OSError, ValueError) as error:
        raise UserError(f"no gateway answers at {url}: {error}") from None
