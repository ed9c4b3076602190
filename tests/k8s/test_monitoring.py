"""The monitoring speaks of metrics that a running gateway and a running Triton really have, and the
alerts fire when they should."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serving.monitoring.kpi_gauges import WINDOWS, KpiGauges
from serving.monitoring.kpi_metrics import METRICS
from serving.monitoring.kpis import FILE
from serving.monitoring.worker import Duty, Worker
from tests.k8s.objects import K8S, ROOT
from tests.k8s.overlays import overlay
from tests.serving.api.test_kpis import work
from tests.serving.conftest import ALL, Running, Start

FUNCTIONS = frozenset(
    [
        *("sum", "rate", "increase", "absent", "min", "max", "count", "by", "le", "and", "or"),
        *("unless", "on", "ignoring", "clamp_min", "histogram_quantile", "label_values", "avg"),
        "time",
    ]
)
OF_PROMETHEUS = {"up"}
# Seen on a running server, core 2.51.
OF_TRITON = set((ROOT / "tests" / "golden" / "triton_metrics.txt").read_text().split())


@pytest.fixture
async def of_gateway(running: Running) -> dict[str, set[str]]:
    """The series of a real gateway after a few decisions and of a worker that counted them, each
    with its labels' names."""
    for _ in range(2):
        assert (await running.decide(consent=ALL)).status_code == 200
    await running.quiet()
    text = (await running.client.get("/metrics")).text
    return series_of(text + of_worker(running))


def of_worker(running: Running) -> str:
    """What a worker tells after one round."""
    work(running)
    registry = CollectorRegistry()
    registry.register(KpiGauges(running.gateway.settings.state / FILE))
    worker = Worker([duty := Duty("rollup", 1.0, lambda: None)], registry, Event())
    worker.do(duty)
    return generate_latest(registry).decode()


def series_of(text: str) -> dict[str, set[str]]:
    """The series of Prometheus' text, each with its labels' names."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        if not family.samples:  # labels that nothing has been counted under yet
            suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
            name = f"{family.name}_total" if family.type == "counter" else family.name
            for suffix in suffixes:
                found.setdefault(name + suffix, set())
    return found


def rules() -> dict[str, Any]:
    (found,) = [each for each in overlay("cpu") if each["kind"] == "PrometheusRule"]
    spec: dict[str, Any] = found["spec"]
    return spec


def dashboards() -> list[dict[str, Any]]:
    (found,) = [
        each
        for each in overlay("cpu")
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "tillwise-dashboard"
    ]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    return [json.loads(text) for text in found["data"].values()]


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression of the manifests, with where it stands."""
    for group in rules()["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield f"panel {panel['title']}", target["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield "dashboard variable", variable["query"]["query"]
    for each in overlay("scale"):
        if each["kind"] == "ScaledObject":
            for trigger in each["spec"]["triggers"]:
                yield f"ScaledObject {each['metadata']['name']}", trigger["metadata"]["query"]
    for rule in adapter_rules():
        yield "adapter", rule["seriesQuery"]


def adapter_rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((K8S / "overlays" / "scale" / "adapter-values.yaml").read_text())
    held: list[dict[str, Any]] = content["rules"]["custom"]
    return held


def names(expression: str) -> set[str]:
    """The metrics that an expression reads: words that are no function and no label."""
    plain = re.sub(r'"[^"]*"', "", expression)
    plain = re.sub(r"\[[^\]]*\]", "", plain)
    plain = re.sub(r"\b(?:by|on|ignoring)\s*\([^)]*\)", "", plain)
    plain = re.sub(r"\{[^}]*\}", "", plain)
    plain = re.sub(r"label_values\((\w+),[^)]*\)", r"\1", plain)
    return {word for word in re.findall(r"[a-zA-Z_]\w*", plain) if word not in FUNCTIONS}


EXPRESSIONS = list(expressions())


def test_names_are_found_in_an_expression() -> None:
    text = 'sum by (a) (rate(one_total{x="y"}[5m])) / clamp_min(sum(two), 1) > 0'
    assert names(text) == {"one_total", "two"}


async def test_every_metric_exists(of_gateway: dict[str, set[str]]) -> None:
    held = of_gateway.keys() | OF_TRITON | OF_PROMETHEUS
    assert len(EXPRESSIONS) > 40
    missing = {
        f"{where}: {name}"
        for where, text in EXPRESSIONS
        for name in names(text)
        if name not in held
    }
    assert missing == set()


def test_every_key_figure_exists() -> None:
    asked = {
        (metric, window)
        for _, text in EXPRESSIONS
        for metric, window in re.findall(r'metric="(\w+)",window="(\w+)"', text)
    }
    assert len(asked) > 15
    assert {metric for metric, _ in asked} <= METRICS.keys()
    assert {window for _, window in asked} <= WINDOWS.keys()


async def test_every_label_exists(of_gateway: dict[str, set[str]]) -> None:
    added = {"namespace", "pod", "job"}  # by Prometheus, to everything it reads
    for where, text in EXPRESSIONS:
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", text):
            if name.startswith("tillwise_") and of_gateway[name]:
                asked = set(re.findall(r"(\w+)\s*[=!]", matchers))
                assert asked <= of_gateway[name] | added, where
        grouped = {
            one.strip() for by in re.findall(r"by \(([^)]*)\)", text) for one in by.split(",")
        }
        own = {label for name in names(text) for label in of_gateway.get(name, ())}
        if all(name.startswith("tillwise_") for name in names(text)) and own:
            assert grouped <= own | added, where


async def test_the_gauge_of_decisions_under_way_follows_them(start: Start) -> None:
    running = await start()

    async def seen() -> float | None:
        await running.client.get("/metrics")
        return running.gateway.registry.get_sample_value("tillwise_decisions_in_flight")

    assert await seen() == 0
    with running.gateway.decider.admission.enter():
        assert await seen() == 1
    assert await seen() == 0


def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    (scaler,) = [one for one in overlay("scale") if one["kind"] == "HorizontalPodAutoscaler"]
    asked = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert asked == {rule["name"]["as"] for rule in adapter_rules()}


def promtool(*arguments: str | Path) -> str:
    tool = shutil.which("promtool") or ROOT / ".tools" / "promtool"
    if not Path(tool).exists():
        raise AssertionError("no promtool: `make promtool` fetches it")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def rule_file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules()))
    return path


def test_promtool_accepts_the_rules(rule_file: Path) -> None:
    count = sum(len(group["rules"]) for group in rules()["groups"])
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", rule_file)


def test_promtool_refuses_a_broken_rule(rule_file: Path) -> None:
    rule_file.write_text(rule_file.read_text().replace("absent(", "absent((", 1))
    with pytest.raises(AssertionError, match="parse error"):
        promtool("check", "rules", rule_file)


def test_promtool_parses_every_other_expression(tmp_path: Path) -> None:
    """As recording rules, with Grafana's own variables filled in."""
    texts = [text for _, text in EXPRESSIONS if "label_values" not in text]
    filled = [t.replace("$__rate_interval", "5m").replace("$namespace", "tillwise") for t in texts]
    held = [{"record": f"test:{n}", "expr": text} for n, text in enumerate(filled)]
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": held}]}))
    assert f"SUCCESS: {len(held)} rules found" in promtool("check", "rules", path)


# alert, the series of one hour (promtool's notation), at a minute each
UP = {
    f'up{{job="{job}"}}': "1x60"
    for job in ("tillwise-gateway", "tillwise-gateway-pods", "tillwise-triton")
}
CASES: list[tuple[str, dict[str, str]]] = [
    ("TillwiseGatewayDown", {'up{job="tillwise-gateway"}': "0x60"}),
    (
        "TillwiseErrors",
        {
            'tillwise_http_requests_total{status="200"}': "0+100x60",
            'tillwise_http_requests_total{status="503"}': "0+5x60",
        },
    ),
    (
        "TillwiseDecisionsSlow",
        {
            'tillwise_decision_seconds_bucket{le="0.1"}': "0+90x60",
            'tillwise_decision_seconds_bucket{le="0.15"}': "0+100x60",
            'tillwise_decision_seconds_bucket{le="+Inf"}': "0+100x60",
        },
    ),
    (
        "TillwiseDecisionsDegraded",
        {
            'tillwise_decisions_total{rung="full"}': "0+80x60",
            'tillwise_decisions_total{rung="no_ranker"}': "0+20x60",
        },
    ),
    (
        "TillwiseDecisionsEmpty",
        {
            'tillwise_decisions_total{rung="full"}': "0+97x60",
            'tillwise_decisions_total{rung="empty"}': "0+3x60",
        },
    ),
    ("TillwiseWorkerFailing", {'tillwise_worker_failures_total{duty="rollup"}': "0+1x60"}),
    ("TillwiseWorkerDown", {'up{job="tillwise-gateway-pods"}': "0x60"}),
    (
        "TillwiseWorkerStill",
        {'tillwise_worker_last_success_timestamp_seconds{duty="tidy"}': "-10800x60"},
    ),
    ("TillwiseOverloaded", {"tillwise_decisions_rejected_total": "0+1x60"}),
    ("TillwiseImpressionsLost", {"tillwise_impressions_lost_total": "0+1x60"}),
    ("TillwiseIdentityDegraded", {"tillwise_identity_degraded_total": "0+60x60"}),
    (
        "TillwiseReleaseRolledBack",
        {'tillwise_release_rollbacks_total{cause="latency"}': "0x40 1x20"},
    ),
    ("TillwiseReleaseNotServed", {"tillwise_release_as_wanted": "0x60"}),
    (
        "TillwiseReleasesDiffer",
        {
            'tillwise_release_info{role="live",release_id="a",pod="1"}': "1x60",
            'tillwise_release_info{role="live",release_id="b",pod="2"}': "1x60",
        },
    ),
    ("TritonDown", {'up{job="tillwise-triton"}': "0x60"}),
    (
        "TritonFailing",
        {
            'nv_inference_request_failure{model="ranker"}': "0+5x60",
            'nv_inference_request_success{model="ranker"}': "0+95x60",
        },
    ),
    (
        "TritonQueueing",
        {
            'nv_inference_queue_duration_us{model="ranker"}': "0+2000000x60",
            'nv_inference_request_success{model="ranker"}': "0+100x60",
        },
    ),
]


def test_every_alert_has_a_case() -> None:
    alerts = [rule["alert"] for group in rules()["groups"] for rule in group["rules"]]
    assert sorted(alerts) == sorted({case[0] for case in CASES})


GOOD_DAY = {
    'tillwise_decisions_total{rung="full"}': "0+100x60",
    'tillwise_http_requests_total{status="200"}': "0+100x60",
    'tillwise_decision_seconds_bucket{le="0.025"}': "0+100x60",
    'tillwise_decision_seconds_bucket{le="+Inf"}': "0+100x60",
    "tillwise_release_as_wanted": "1x60",
    'nv_inference_queue_duration_us{model="ranker"}': "0+20000x60",
    'nv_inference_request_success{model="ranker"}': "0+100x60",
    'nv_inference_request_failure{model="ranker"}': "0x60",
}


def case(series: dict[str, str], *alerts: str) -> dict[str, Any]:
    """That `alerts` fire after 55 minutes of `series` and no other does, for promtool."""
    return {
        "name": "-".join(alerts) or "nothing",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "55m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts
                ],
            }
        ],
    }


def judged(rule_file: Path, *cases: dict[str, Any]) -> str:
    path = rule_file.with_name("cases.yaml")
    content = {"rule_files": [str(rule_file)], "evaluation_interval": "1m", "tests": list(cases)}
    path.write_text(yaml.safe_dump(content))
    return promtool("test", "rules", path)


def test_an_alert_fires_for_its_cause_and_for_nothing_else(rule_file: Path) -> None:
    cases = [case(UP | series, alert) for alert, series in CASES]
    assert "SUCCESS" in judged(rule_file, *cases, case(UP | GOOD_DAY))


def test_a_wrong_expectation_would_be_noticed(rule_file: Path) -> None:
    for wrong in (case(UP | GOOD_DAY, "TillwiseErrors"), case(UP | CASES[1][1])):
        with pytest.raises(AssertionError, match="FAILED"):
            judged(rule_file, wrong)
