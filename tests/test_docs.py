"""What the documents point at is there, and the commands that they show are commands."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from serving.__main__ import build_parser as serving_parser
from training.__main__ import build_parser as training_parser

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
_PROGRAM = re.compile(r"(?:\.venv/bin/)?(tillwise-(?:train|serve)|python -m benchmarks\.\w+) ?(.*)")


def parts(text: str) -> Iterator[tuple[bool, str]]:
    """Each line, and whether it stands in a block of code."""
    code = False
    for line in text.splitlines():
        if line.startswith("```"):
            code = not code
        else:
            yield code, line


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = [line for code, line in parts(document.read_text()) if not code and line[:1] == "#"]
    words = [re.sub(r"[^\w\- ]", "", one.lstrip("#").strip().lower()) for one in headings]
    assert len(words) == len(set(words)), f"{document.name}: two headings are alike"
    return {one.replace(" ", "-") for one in words}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if "://" not in link and not (
            target.exists() and (not anchor or anchor in anchors(target))
        ):
            lost.append(link)
    assert lost == []


def commands() -> list[tuple[str, str]]:
    """Program and arguments of the commands of ours in the documents' blocks of code."""
    lines = [line for document in DOCUMENTS for code, line in parts(document.read_text()) if code]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return sorted({match.groups() for line in joined if (match := _PROGRAM.match(line))})  # type: ignore[misc]


@pytest.mark.parametrize(("program", "arguments"), commands())
def test_a_command_is_one(program: str, arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(arguments, comments=True)
    if program == "tillwise-train":
        parser = training_parser()
    elif program == "tillwise-serve":
        parser = serving_parser(words)
    else:
        parser = import_module(program.removeprefix("python -m ")).build_parser()
    try:
        parser.parse_args(words)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
