"""The master key and what is derived from it."""

import base64
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from contract.errors import UserError
from serving.state.secrets import KEY_FILE, Secrets, UnknownMasterKey, load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL

ONE, TWO = bytes(range(32)), bytes(range(32, 64))


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    first = load_secrets(tmp_path / "state", None)
    path = tmp_path / "state" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_secrets(tmp_path / "state", None) == first
    assert load_secrets(tmp_path / "other", None) != first
    assert [child.name for child in path.parent.iterdir()] == [KEY_FILE]


def test_a_key_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    secrets = load_secrets(tmp_path, None)
    SqliteControlStore(tmp_path / CONTROL, secrets).close()
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(UserError, match="is gone") as refused:
        load_secrets(tmp_path, None)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / KEY_FILE).exists()
    with pytest.raises(UserError, match="TILLWISE_MASTER_KEY"):
        load_secrets(tmp_path / "fresh", None, shared=True)
    assert not (tmp_path / "fresh").exists()


def test_under_another_key_nothing_is_written_into_a_store(tmp_path: Path) -> None:
    path = tmp_path / CONTROL
    SqliteControlStore(path, Secrets((ONE,))).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        # As an earlier version left it, which knew one key of the shop less.
        connection.execute("DELETE FROM service_keys WHERE name = 'coupons'")
    with pytest.raises(UnknownMasterKey, match="needed and not held"):
        SqliteControlStore(path, Secrets((TWO,)))
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT count(*) FROM service_keys WHERE name = 'coupons'"
        assert connection.execute(query).fetchone() == (0,)
    right = SqliteControlStore(path, Secrets((ONE,)))
    assert len(right.service_key("coupons")) == 32
    right.close()


@pytest.mark.parametrize("wrong", ["", "short", text(ONE[:31]), "*" * 44, f"{text(ONE)},x"])
def test_another_form_of_key_is_refused_without_repeating_it(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(UserError) as refused:
        load_secrets(tmp_path, wrong)
    assert str(refused.value) == "setting TILLWISE_MASTER_KEY: expected 32 bytes in base64"


def test_every_purpose_has_a_key_of_its_own(tmp_path: Path) -> None:
    secrets = load_secrets(tmp_path, text(ONE))
    keys = {secrets.derive(purpose) for purpose in ("lookup", "attribution", "seal", "version")}
    assert len(keys) == 4
    assert ONE not in keys


def test_rotation_looks_up_under_every_key_and_writes_under_the_newest(tmp_path: Path) -> None:
    rotated = load_secrets(tmp_path, f"{text(TWO)},{text(ONE)}")
    newest, oldest = rotated.pseudonyms("raw", "visitor")
    assert oldest == Secrets((ONE,)).pseudonyms("raw", "visitor")[0]
    assert newest == Secrets((TWO,)).pseudonyms("raw", "visitor")[0]
    assert newest.key_version != oldest.key_version
    assert rotated.pseudonyms("raw", "user")[0].digest != newest.digest


def test_a_sealed_secret_opens_with_its_own_id_and_key_only(tmp_path: Path) -> None:
    old, rotated = Secrets((ONE,)), Secrets((TWO, ONE))
    hidden = b"\x07" * 32
    sealed = old.seal("key-1", hidden)
    assert sealed != hidden
    assert old.unseal("key-1", sealed) == (hidden,)
    assert hidden in rotated.unseal("key-1", sealed)
    assert hidden not in rotated.unseal("key-2", sealed)
