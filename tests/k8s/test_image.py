"""The images' install steps, run here in an environment of their own; and a Dockerfile that does
nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.k8s.objects import ROOT
from tests.serving.commands.processes import Place, free_port
from tests.serving.conftest import checkout
from tests.serving.release_factory import Factory

SCRIPT = "scripts/install-image.sh"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Whichever test comes first waits for an environment that is made from nothing.
pytestmark = pytest.mark.timeout(900)
PACKAGES = ("contract", "training", "serving", "benchmarks", "web", "scripts")


def copied(target: Path) -> Path:
    """What a build copies in, and nothing else of the checkout."""
    for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = line.split()
        for name in sources:
            if (ROOT / name).is_dir():
                skip = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(ROOT / name, target / name, ignore=skip, dirs_exist_ok=True)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target / name)
    return target


def install(source: Path, *arguments: str | Path) -> None:
    """Run the script as a build does: first from uv's cache, which `make .venv` has filled."""
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment = kept | {"PATH": beside, "PYTHON": sys.executable}
    said = ""
    tries: tuple[dict[str, str], ...] = ({"UV_OFFLINE": "1"}, {})
    for more in tries:
        done = subprocess.run(
            [source / SCRIPT, *arguments],
            cwd=source,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        said = done.stderr
    raise AssertionError(f"{SCRIPT}: {said}")


def asked(python: Path, code: str) -> str:
    done = subprocess.run(
        [python, "-I", "-c", code], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ABSENT = """
import importlib.util as u, json, sys
print(json.dumps([name for name in sys.argv[1:] if u.find_spec(name)]))
"""


def present(python: Path, *names: str) -> list[str]:
    done = subprocess.run(
        [python, "-I", "-c", ABSENT, *names], cwd="/", capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def gateway_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of the gateway's image."""
    folder = tmp_path_factory.mktemp("image")
    source, environment = copied(folder / "source"), folder / "tillwise"
    install(source, "gateway", environment, "dependencies")
    assert not (environment / "bin" / "tillwise-serve").exists()
    install(source, "gateway", environment, "package")
    shutil.rmtree(source)  # the image does not hold it
    return environment


def test_the_gateway_image_has_no_torch_and_nothing_that_installs(gateway_image: Path) -> None:
    python = gateway_image / "bin" / "python"
    unwanted = ("torch", "torchrec", "fbgemm_gpu", "lightgbm", "duckdb", "pip", "pytest")
    assert present(python, *unwanted) == []
    assert present(python, "serving", "obstore", "onnxruntime", "faiss") == [
        *("serving", "obstore", "onnxruntime", "faiss"),
    ]
    assert asked(python, "import serving; print(serving.__file__)").startswith(str(gateway_image))
    for module in ("serving.app", "fastapi", "onnxruntime", "sqlalchemy"):
        # Nothing writes it later.
        bytecode = f"import {module} as m; print(m.__spec__.cached)"
        assert Path(asked(python, bytecode)).is_file(), module


def test_the_gateway_image_says_what_it_can_do(gateway_image: Path) -> None:
    done = subprocess.run(
        [gateway_image / "bin" / "tillwise-serve", "--help"],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"run", "check", "release"} <= set(done.stdout.split())


def test_the_gateway_image_pulls_a_release_and_serves_it(
    gateway_image: Path, tmp_path: Path
) -> None:
    """As a pod does: the init container, then the gateway, each by the manifests' own arguments."""
    factory = Factory(tmp_path / "trainer")
    factory.write("one")
    store = {"TILLWISE_RELEASE_STORE": f"file://{tmp_path / 'store'}"}
    pushed = Place(factory, tmp_path / "own").call("release", "push", "--promote", **store)
    assert pushed.returncode == 0, pushed.stderr
    pod, port = tmp_path / "pod", free_port()
    environment = store | {
        "PATH": "/usr/bin:/bin",
        "TILLWISE_RELEASES": str(pod / "artefacts" / "releases"),
        "TILLWISE_MODELS": str(pod / "artefacts" / "model_repository"),
        "TILLWISE_STATE": str(pod / "state"),
        "TILLWISE_PORT": str(port),
    }
    program = gateway_image / "bin" / "tillwise-serve"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert "release one is live here" in run("release", "pull", "--or-keep")
    key = run("keys", "create", "--role", "checkout")
    served = subprocess.Popen([program, "run"], cwd="/", env=environment, stderr=subprocess.PIPE)
    try:
        _until_ready(f"http://127.0.0.1:{port}/readyz", served)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/checkout/decide",
            data=json.dumps(checkout()).encode(),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            decided = json.loads(answer.read())
        assert decided["release_id"] == "one"
        assert decided["recommendations"]
        served.terminate()
        assert served.wait(20) == 0
    finally:
        served.kill()
        served.communicate()


def _until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.URLError:
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError("the gateway did not become ready")


@pytest.mark.slow
def test_the_trainer_image_trains_and_pushes(tmp_path: Path) -> None:
    source, environment = copied(tmp_path / "source"), tmp_path / "tillwise"
    install(source, "trainer", environment)
    python = environment / "bin" / "python"
    assert present(python, "torch", "torchrec", "fbgemm_gpu", "serving", "obstore", "pip") == [
        *("torch", "torchrec", "fbgemm_gpu", "serving", "obstore"),
    ]
    for program in ("tillwise-train", "tillwise-serve", "torchrun"):
        done = subprocess.run([environment / "bin" / program, "--help"], cwd="/", check=False)
        assert done.returncode == 0


@pytest.mark.parametrize("arguments", [(), ("gateway",), ("server", "x"), ("gateway", "x", "y")])
def test_the_script_refuses_what_it_does_not_know(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [ROOT / SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


def stages() -> dict[str, list[str]]:
    """The instructions of each stage of the Dockerfile."""
    plain = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n\s*", "", plain).splitlines():
        words = line.split()
        if words[:1] == ["FROM"]:
            found[words[-1]] = [line]
        elif words:
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize("target", ["gateway", "trainer"])
def test_an_image_is_built_by_the_script_alone_and_is_not_root(target: str) -> None:
    held = stages()
    runs = [line for line in held[f"{target}-build"] if line.startswith("RUN")]
    assert runs == [
        f"RUN {SCRIPT} {target} /opt/tillwise {step}" for step in ("dependencies", "package")
    ]
    assert not any("pip install" in line for lines in held.values() for line in lines)
    assert held[target][0] == f"FROM base AS {target}"
    users = [line for line in [*held["base"], *held[target]] if line.startswith("USER")]
    assert users[-1] == "USER 10001"
    assert f"COPY --from={target}-build /opt/tillwise /opt/tillwise" in held[target]
    assert "ENV PATH=/opt/tillwise/bin:$PATH" in " ".join(held["base"])
    assert list(held)[-1] == "gateway", "what a plain `docker build .` makes"


def test_a_build_copies_what_the_packages_need() -> None:
    for lines in (stages()["gateway-build"], stages()["trainer-build"]):
        held = {name for line in [*stages()["source"], *lines] for name in line.split()[1:-1]}
        assert set(PACKAGES) <= held


def test_script_and_makefile_name_the_same_versions() -> None:
    script, makefile = (ROOT / SCRIPT).read_text(), (ROOT / "Makefile").read_text()
    for name, here in (("torch", "TORCH"), ("uv", "UV_VERSION")):
        version = re.search(rf"^{here}=([\d.]+)$", script, re.MULTILINE)
        assert version is not None
        assert f"{name}=={version[1]}" in makefile
