from pathlib import Path

import pytest

from contract.whole_file import replace, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    replace(path, b"old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as file:
        file.writelines(word.encode("ascii") for word in ("half of the ne", "\u2026"))
    assert path.read_bytes() == b"old"
    replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_draft_with_a_name_takes_the_place_of_what_was_left(tmp_path: Path) -> None:
    path, draft = tmp_path / "file", tmp_path / "file.partial"
    draft.write_bytes(b"of a process that was killed")
    with replacing(path, draft) as file:
        file.write(b"new")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"new", [path])
