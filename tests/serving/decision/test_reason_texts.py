"""The sentences of reasons in another language: all of them, and none that could not be said."""

from dataclasses import fields
from pathlib import Path

import pytest

from contract.errors import UserError
from serving.decision.reason_texts import ENGLISH, Texts, read_texts
from serving.yaml_text import yaml_body

GERMAN = Path(__file__).parents[3] / "docs" / "texts.de.yaml"


def test_the_example_says_everything() -> None:
    said = yaml_body(GERMAN.read_bytes())
    assert list(said) == [one.name for one in fields(Texts)]
    told = read_texts(GERMAN)
    assert all(getattr(told, name) == text != getattr(ENGLISH, name) for name, text in said.items())
    assert told.by_code["bought_before"].text == "Das haben Sie schon einmal gekauft."
    assert told.goes_with("Brot {0}", False).text == "Wird oft zusammen mit Brot {0} gekauft."
    assert "Brot" not in told.goes_with("", False).text


def test_what_a_file_leaves_out_stays_english(tmp_path: Path) -> None:
    path = tmp_path / "texts.yaml"
    path.write_text("as_sent: Comme la boutique.")
    told = read_texts(path)
    assert told.orders["as_sent"] == "Comme la boutique."
    assert told.by_code == ENGLISH.by_code


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write a sentence after each name"),
        ("- a", "write a sentence after each name"),
        ("as_send: a", "as_send: there is no such sentence"),
        ("as_sent: 1", "as_sent: is not a sentence"),
        ("as_sent: ''", "as_sent: is not a sentence"),
        (f"as_sent: {'a' * 201}", "as_sent: is not a sentence"),
        ('as_sent: "a\\nb"', "as_sent: "),
        ("as_sent: a {title}", "as_sent: must have no {}"),
        ("goes_with_cart: a", "goes_with_cart: must have {title}, once"),
        ("goes_with_cart: '{title} {title}'", "goes_with_cart: must have {title}, once"),
        ("goes_with_cart: '{title.__class__}'", "goes_with_cart: must have {title}, once"),
        ("goes_with_cart: '{title!r}'", "goes_with_cart: must have {title}, once"),
        ("goes_with_cart: '{title'", "goes_with_cart: "),
        ("as_sent: a\nas_sent: b", "line 2, column 1: as_sent stands twice"),
    ],
)
def test_what_could_not_be_said_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "texts.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_texts(path)
    assert str(refused.value).startswith(f"{path}: {why}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"texts\.yaml: No such file"):
        read_texts(tmp_path / "texts.yaml")
