"""What the manifests name exists in the code; what no cluster must be given is not there."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from obstore.exceptions import UnknownConfigurationKeyError
from obstore.store import S3Store

from serving.__main__ import build_parser as serving_parser
from serving.api import health
from serving.commands.child_worker import PORT
from serving.inference.release_store import ReleaseStore
from serving.retention import Retention
from serving.settings import Settings, load_settings
from serving.state.kafka_place import kafka_place
from serving.state.postgres_place import postgres_place
from serving.state.valkey_client import valkey_place
from tests.k8s.formats import amount
from tests.k8s.objects import K8S, ROOT, Object, containers, pods, ports, templates
from tests.k8s.overlays import OVERLAYS, overlay
from tests.k8s.references import deploy_section, secrets
from training.__main__ import build_parser as training_parser
from training.recipes import RECIPES

GATEWAY, TRAINER = "tillwise/gateway:0.1.0", "tillwise/trainer:0.1.0"
COMMANDS = {"tillwise-serve": serving_parser, "tillwise-train": training_parser}
# What others' images answer and take, by the source of each line.
TRITON_PATHS = {"/v2/health/live", "/v2/health/ready"}  # KServe v2 protocol
TRITON_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}  # its defaults
SERVERS_PORTS = {
    "valkey": {"valkey": 6379},
    "postgres": {"postgres": 5432},
    "kafka": {"kafka": 9092, "controller": 9093},
}
POSTGRES_VARIABLES = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "PGDATA"}  # its image's
TRITON_FLAGS = ROOT / "tests" / "golden" / "triton_flags.txt"  # of `tritonserver --help`


def every_container() -> Iterator[tuple[str, Object, Object]]:
    for name in OVERLAYS:
        for owner, pod in pods(overlay(name)):
            for container in containers(pod):
                yield f"{name}: {owner}: {container['name']}", pod, container


CONTAINERS = list(every_container())
OURS = [one for one in CONTAINERS if one[2]["image"].startswith("tillwise/")]


def by_id(cases: list[tuple[str, Object, Object]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("pod", "container"), [case[1:] for case in cases], ids=[case[0] for case in cases]
    )


def named(name: str, kind: str, of: str) -> Object:
    return next(o for o in overlay(of) if (o["kind"], o["metadata"]["name"]) == (kind, name))


def test_the_overlays_hold_what_they_are_for() -> None:
    assert OVERLAYS == ("cpu", "gpu", "learning", "scale", "training")
    kinds = {each["kind"] for name in OVERLAYS for each in overlay(name)}
    assert kinds >= {
        *("StatefulSet", "Deployment", "CronJob", "ServiceAccount", "PodDisruptionBudget"),
        *("NetworkPolicy", "HorizontalPodAutoscaler", "ScaledObject", "JobSet"),
        *("ServiceMonitor", "PrometheusRule", "ConfigMap", "PersistentVolumeClaim", "Service"),
    }


@by_id(CONTAINERS)
def test_no_container_is_root_or_may_write_its_image(pod: Object, container: Object) -> None:
    whole, own = pod["securityContext"], container["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    held = {volume["name"]: volume for volume in pod.get("volumes", [])}
    assert not any("hostPath" in volume for volume in held.values())
    assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", container["image"]), "a pinned tag"


def command_of(container: Object) -> list[str]:
    return [*container.get("command", []), *container.get("args", [])]


@by_id(OURS)
def test_a_command_of_ours_is_one_that_we_have(pod: Object, container: Object) -> None:
    program, *arguments = command_of(container)
    if program == "torchrun":
        from torch.distributed.run import get_args_parser

        parsed = get_args_parser().parse_args(arguments)
        assert (parsed.module, parsed.training_script) == (True, "training")
        program, arguments = "tillwise-train", parsed.training_script_args
        assert container["image"] == TRAINER
    parsed = COMMANDS[program]().parse_args(arguments)
    assert callable(parsed.run)
    if program == "tillwise-train":
        assert container["image"] == TRAINER
        assert getattr(parsed, "recipe", "base") in RECIPES


@by_id([one for one in CONTAINERS if "tritonserver" in one[2]["image"]])
def test_triton_is_given_flags_that_it_knows(pod: Object, container: Object) -> None:
    known = set(TRITON_FLAGS.read_text().split())
    given = [flag.partition("=")[0] for flag in container["args"]]
    assert set(given) <= known, set(given) - known
    assert len(given) == len(set(given))
    variants = [f.partition("=")[2] for f in container["args"] if "--model-config-name" in f]
    for model in ("query_tower", "sequence_encoder", "ranker"):
        for variant in variants:
            config = ROOT / "model_repository" / model / "configs" / f"{variant}.pbtxt"
            assert "KIND_GPU" in config.read_text()
        assert "KIND_GPU" not in (ROOT / "model_repository" / model / "config.pbtxt").read_text()


def test_the_judge_of_commands_refuses() -> None:
    for wrong in (["release", "pul"], ["release", "pull", "--evry=5"], ["serve"]):
        with pytest.raises(SystemExit):
            serving_parser().parse_args(wrong)


def settings_map(name: str) -> Object:
    found = [
        each
        for each in overlay(name)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].startswith("tillwise-settings-")
    ]
    assert len(found) == 1, "its name carries the hash of its content, so that a change rolls pods"
    return found[0]


@pytest.mark.parametrize("name", ["cpu", "gpu", "learning", "scale"])
def test_the_settings_are_fields_of_the_code_and_load(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data: dict[str, str] = settings_map(name)["data"]
    for variable, text in data.items():
        prefix, _, field = variable.partition("_")
        assert prefix == "TILLWISE"
        assert field.lower() in Settings.model_fields, variable
        monkeypatch.setenv(variable, text)
    settings = load_settings()
    assert settings.release_store is not None
    assert ReleaseStore(settings.release_store).url == settings.release_store
    gateway = named("tillwise-gateway", "StatefulSet", name)["spec"]["template"]["spec"]
    assert ports(gateway) == {"http": settings.port, "worker": PORT}
    assert settings.host == "0.0.0.0", "a pod is reached from outside it"
    address = re.fullmatch(r"grpc://([\w-]+):(\d+)", settings.triton_url or "")
    assert address is not None
    service = named(address[1], "Service", name)
    assert service["spec"]["clusterIP"] == "None"
    assert int(address[2]) == TRITON_PORTS["grpc"]


@by_id(CONTAINERS)
def test_a_variable_is_one_that_the_code_reads(pod: Object, container: Object) -> None:
    ours = container["image"].startswith("tillwise/")
    for variable in container.get("env", []):
        name = variable["name"]
        if name.startswith("TILLWISE_"):
            assert ours
            assert name.removeprefix("TILLWISE_").lower() in Settings.model_fields
        elif ours:
            assert name in {"OMP_NUM_THREADS", "NCCL_DEBUG"}, "read by torch and NCCL"
        elif container["name"] == "postgres":
            assert name in POSTGRES_VARIABLES
        else:
            assert f"$({name})" in " ".join(command_of(container))


def test_a_store_understands_the_credentials_that_the_deployment_names() -> None:
    """README's secret for the store, as the library that reads it sees it."""
    section = deploy_section()
    names = re.findall(r"--from-literal=(AWS_\w+)=", section)
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} <= set(names)
    values: Any = {name.lower(): "true" if "allow" in name.lower() else "x" for name in names}
    wrong: Any = {"aws_akcess": "x"}
    S3Store("bucket", config=values)
    with pytest.raises(UnknownConfigurationKeyError):
        S3Store("bucket", config=wrong)


@by_id(CONTAINERS)
def test_a_probe_asks_what_is_answered(pod: Object, container: Object) -> None:
    routes = {getattr(route, "path", "") for route in health.router.routes}
    image = container["image"]
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind)
        if probe is None:
            continue
        if "httpGet" in probe:
            known = TRITON_PATHS if "tritonserver" in image else routes
            assert probe["httpGet"]["path"] in known
        elif "exec" in probe:
            mark = probe["exec"]["command"][-1]
            assert probe["exec"]["command"] == ["test", "-f", mark]
            assert f"--mark={mark}" in container["args"]
    if "tritonserver" in image:
        assert ports({"containers": [container]}) == TRITON_PORTS
    elif container["name"] in SERVERS_PORTS:
        assert ports({"containers": [container]}) == SERVERS_PORTS[container["name"]]
    if container["name"] in ("gateway", "triton", *SERVERS_PORTS):
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


@pytest.mark.parametrize("name", ["cpu", "gpu", "learning", "scale"])
def test_a_pod_is_ready_when_its_gateway_is(name: str) -> None:
    """Kubernetes sends nothing to a pod while any of its containers is not ready, or has ended."""
    pod = named("tillwise-gateway", "StatefulSet", name)["spec"]["template"]["spec"]
    gateway, *beside = pod["containers"]
    assert gateway["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    learns = ["export"] if name == "learning" else []
    assert [one["name"] for one in beside] == ["follow-releases", "worker", *learns]
    for one in beside:
        assert not {"startupProbe", "readinessProbe", "livenessProbe"} & one.keys()
        program, *arguments = command_of(one)
        told = vars(COMMANDS[program]().parse_args(arguments))
        assert told.get("keep") or told["every"], "it may end"


def test_retraining_reads_what_the_gateways_export() -> None:
    pod = named("tillwise-gateway", "StatefulSet", "learning")["spec"]["template"]["spec"]
    job = named("tillwise-retrain", "CronJob", "learning")["spec"]["jobTemplate"]["spec"]
    folder = folders(pod, "export")[1].output
    trained = job["template"]["spec"]
    mounts, told = folders(trained, "retrain")
    assert told.data == folder
    assert claim_of(trained, mounts, folder) == "tillwise-data"
    # An erasure reaches the export too, which is registered by its folder.
    for name in ("gateway", "export"):
        mounts = folders(pod, name)[0]
        assert claim_of(pod, mounts, folder) == "tillwise-data"
        assert not any(one.get("readOnly") for one in mounts if one["name"] == "data")
    assert pod["securityContext"]["runAsUser"] == trained["securityContext"]["runAsUser"]
    claim = named("tillwise-data", "PersistentVolumeClaim", "learning")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def folders(pod: Object, name: str) -> tuple[list[Object], argparse.Namespace]:
    """The mounts of a container of ours and what it is told."""
    (found,) = [one for one in containers(pod) if one["name"] == name]
    program, *arguments = command_of(found)
    return found["volumeMounts"], COMMANDS[program]().parse_args(arguments)


def claim_of(pod: Object, mounts: list[Object], folder: Path) -> str:
    """The claim that `folder` lies on."""
    (mount,) = [one for one in mounts if folder.is_relative_to(one["mountPath"])]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    return str(volume["persistentVolumeClaim"]["claimName"])


def test_valkey_refuses_before_it_is_killed() -> None:
    pod = named("tillwise-valkey", "StatefulSet", "scale")["spec"]["template"]["spec"]
    (valkey,) = pod["containers"]
    said = dict(zip(valkey["args"][::2], valkey["args"][1::2], strict=True))
    assert said["--maxmemory-policy"] == "noeviction"
    most = amount(valkey["resources"]["limits"]["memory"])
    # A child that rewrites the file may come to hold as much again of what changes meanwhile.
    assert 2 * int(said["--maxmemory"].removesuffix("gb")) * 2**30 <= most


def test_an_id_that_begins_with_a_dash_is_no_option() -> None:
    """One of 64 random ids does."""
    pod = named("tillwise-kafka", "StatefulSet", "scale")["spec"]["template"]["spec"]
    assert '--cluster-id="$(CLUSTER_ID)"' in pod["containers"][0]["args"][0]


def test_pods_reach_what_their_settings_may_name() -> None:
    """Traces, and the identity that a cloud gives to pods without keys."""
    gateway = named("gateway", "NetworkPolicy", "cpu")["spec"]["egress"]
    ends = {port["port"] for rule in gateway for port in rule["ports"]}
    assert ends == {"http", "grpc", "valkey", 4318}
    store = named("release-store", "NetworkPolicy", "cpu")["spec"]["egress"]
    cloud = {
        (to["ipBlock"]["cidr"], port["port"])
        for rule in store
        for to in rule["to"]
        for port in rule["ports"]
    }
    assert cloud == {
        ("0.0.0.0/0", 443),
        ("169.254.169.254/32", 80),
        ("169.254.169.252/32", 988),
        ("169.254.170.23/32", 80),
    }


@pytest.mark.parametrize("name", ["cpu", "gpu", "learning", "scale"])
def test_pods_that_stay_are_spread_and_have_an_account_of_their_own(name: str) -> None:
    made = [t for t in templates(overlay(name)) if t.owner["kind"] in ("StatefulSet", "Deployment")]
    assert len(made) == (5 if name == "scale" else 3)
    for template in made:
        assert template.pod["topologySpreadConstraints"]
        assert template.pod["serviceAccountName"] == template.owner["metadata"]["name"]


@pytest.mark.parametrize("name", ["cpu", "gpu", "learning", "scale"])
def test_every_pod_is_shut_in_by_default(name: str) -> None:
    policy = named("default-deny", "NetworkPolicy", name)["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert (
        named("tillwise", "Namespace", name)["metadata"]["labels"][
            "pod-security.kubernetes.io/enforce"
        ]
        == "restricted"
    )


def test_there_is_one_gateway_unless_gateways_share_their_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Consent given to one would be unknown to the next."""
    for name in ("cpu", "gpu"):
        assert named("tillwise-gateway", "StatefulSet", name)["spec"]["replicas"] == 1
    scaler = named("tillwise-gateway", "HorizontalPodAutoscaler", "scale")["spec"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    for variable, text in settings_map("scale")["data"].items():
        monkeypatch.setenv(variable, text)
    settings = load_settings()
    control = postgres_place(settings.control_store, user=settings.postgres_user)
    log, features = kafka_place(settings.event_log), valkey_place(settings.feature_store)
    for host, port in (
        (control.options["host"], control.options["port"]),
        tuple(log.brokers.split(":")),
        (urlsplit(features.url).hostname, urlsplit(features.url).port),
    ):
        held = named(str(host), "Service", "scale")["spec"]["ports"]
        assert int(port or 0) in {one["port"] for one in held}
    database = named("tillwise-postgres", "StatefulSet", "scale")["spec"]["template"]["spec"]
    said = {one["name"]: one.get("value") for one in database["containers"][0]["env"]}
    assert said["POSTGRES_USER"] == control.options["user"]
    assert said["POSTGRES_DB"] == control.options["dbname"]


def test_the_brokers_know_one_another_and_keep_what_was_acknowledged() -> None:
    spec = named("tillwise-kafka", "StatefulSet", "scale")["spec"]
    (settings,) = (
        each["data"]["server.properties"]
        for each in overlay("scale")
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].startswith("tillwise-kafka-")
    )
    held = dict(
        line.split("=", 1) for line in settings.splitlines() if line and not line.startswith("#")
    )
    pods_of = [f"tillwise-kafka-{number}" for number in range(spec["replicas"])]
    voters = [f"{n}@{pod}.{spec['serviceName']}:9093" for n, pod in enumerate(pods_of)]
    assert held["controller.quorum.voters"].split(",") == voters
    assert int(held["default.replication.factor"]) == spec["replicas"] == 3
    assert int(held["min.insync.replicas"]) == 2
    assert int(held["log.retention.hours"]) == Retention().behaviour * 24
    mounts = spec["template"]["spec"]["containers"][0]["volumeMounts"]
    assert any(held["log.dirs"].startswith(one["mountPath"]) for one in mounts)


def test_the_gpu_overlay_asks_the_device_plugin() -> None:
    triton = named("tillwise-triton", "Deployment", "gpu")["spec"]["template"]["spec"]
    assert triton["containers"][0]["name"] == "triton"
    assert triton["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "--model-config-name=gpu" in triton["containers"][0]["args"]


def test_scale_spreads_over_zones() -> None:
    for kind, name in (("Deployment", "tillwise-triton"), ("StatefulSet", "tillwise-gateway")):
        pod = named(name, kind, "scale")["spec"]["template"]["spec"]
        keys = [one["topologyKey"] for one in pod["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_the_workers_of_a_fit_meet_at_the_name_that_jobset_gives() -> None:
    jobset = named("tillwise-training", "JobSet", "training")
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    arguments = spec["template"]["spec"]["containers"][0]["args"]
    first = (
        f"{jobset['metadata']['name']}-{job['name']}-0-0.{jobset['spec']['network']['subdomain']}"
    )
    assert f"--rdzv-endpoint={first}:29400" in arguments
    assert f"--nnodes={spec['completions']}" in arguments
    assert spec["parallelism"] == spec["completions"]
    gpus = spec["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--nproc-per-node={gpus}" in arguments


def test_a_reader_of_the_readme_finds_what_it_names() -> None:
    section = deploy_section()
    for path in set(re.findall(r"\bk8s/[\w./-]*\w", section)):
        assert (ROOT / path).exists(), path
    for name in OVERLAYS:
        assert f"k8s/overlays/{name}" in section
    for variable in set(re.findall(r"\bTILLWISE_\w+", section)):
        assert variable.removeprefix("TILLWISE_").lower() in Settings.model_fields, variable
    wanted = {
        (one.get("valueFrom", {}).get("secretKeyRef") or {}).get("name")
        for _, _, container in CONTAINERS
        for one in container.get("env", [])
    } | {
        (source.get("secretRef") or {}).get("name")
        for _, _, container in CONTAINERS
        for source in container.get("envFrom", [])
    }
    assert secrets().keys() == wanted - {None}
    for line in re.findall(r"tillwise-serve (release [^`\n#]*)", section):
        arguments = line.replace("ID", "some-release").split()
        assert callable(serving_parser().parse_args(arguments).run)


def test_the_parsers_are_those_of_argparse() -> None:
    for make in COMMANDS.values():
        assert isinstance(make(), argparse.ArgumentParser)


def test_the_deployment_reads_yaml_once() -> None:
    """Every file of k8s/ is used by an overlay, a component or the judge."""
    used: set[Path] = set()
    for path in K8S.rglob("kustomization.yaml"):
        content = yaml.safe_load(path.read_text())
        used.add(path)
        used |= {(path.parent / one).resolve() for one in content.get("resources", [])}
        for generator in content.get("configMapGenerator", []):
            for one in [*generator.get("files", []), *generator.get("envs", [])]:
                used.add((path.parent / one).resolve())
    for path in K8S.rglob("*"):
        if path.is_file() and path.parent.name != "schemas":
            assert path in used, path
