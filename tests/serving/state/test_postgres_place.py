"""Where a database is: out of a URL, refused in one line without what is secret in it."""

import pytest

from contract.errors import UserError
from serving.settings import load_settings
from serving.state.postgres_place import postgres_place


def test_a_place_is_read() -> None:
    tls = {"sslmode": "verify-full", "sslrootcert": "system"}
    place = postgres_place(
        "postgresqls://one:5432,two:6432/shop?schema=tillwise", user="u", password="hidden", tls=tls
    )
    assert place.options == {
        "host": "one,two",
        "port": "5432,6432",
        "dbname": "shop",
        "user": "u",
        "password": "hidden",
        **tls,
    }
    assert place.schema == "tillwise"
    assert "hidden" not in repr(place)
    assert postgres_place("postgresql://[::1]:5432/shop", tls=tls).options == {
        "host": "::1",
        "port": "5432",
        "dbname": "shop",
        "sslmode": "disable",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "postgres",
        "postgresql://",
        "postgresql://here:5432",
        "postgresql://here/shop",
        "postgresql://user:secret@here:5432/shop",
        "postgresql://here:5432/shop?sslmode=disable",
        "postgresql://here:5432/shop?schema=a;b",
        "postgresql://here:5432,there/shop",
        "mysql://here:5432/shop",
    ],
)
def test_what_is_no_place_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="control store: write") as told:
        postgres_place(wrong)
    assert "secret" not in str(told.value)


def test_the_password_is_never_shown() -> None:
    assert "hidden" not in repr(load_settings(postgres_password="hidden"))
