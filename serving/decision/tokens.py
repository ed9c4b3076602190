"""Signed tokens. The attribution token goes out with a decision and comes back with what happened
next; it names the decision and its release, and nothing about the shopper."""

import json
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

import jwt

from contract.clock import Clock
from contract.keyed_hash import KeyedHash

_ALGORITHM = "HS256"
_AUDIENCE = "attribution"
_MIN_KEY_BYTES = 32


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _base64(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=")


_HEADER = _base64(b'{"alg":"HS256","typ":"JWT"}')
as_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one each time
_name_as_json = lru_cache(maxsize=16)(as_json)  # of the few releases that decide


def signed(claims: str, key: KeyedHash) -> str:
    """The JSON text `claims` as a JWT, as PyJWT would write it, at a tenth of the time: some are
    made for every decision."""
    told = _HEADER + b"." + _base64(claims.encode())
    return (told + b"." + _base64(key.digest(told))).decode("ascii")


def read_claims(
    token: str, key: bytes, audience: str, required: Sequence[str]
) -> dict[str, Any] | None:
    """The claims of `token` for `audience`; None where it was not signed under `key`, or lacks what
    is required. Whether it has expired is for the caller to say."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=audience,
            # PyJWT would compare with the machine's clock, which is not the one in force.
            options={"require": list(required), "verify_exp": False},
        )
    except (jwt.InvalidTokenError, ValueError):
        return None
    return claims


class InvalidToken(ValueError):  # noqa: N818 - it names what is wrong
    """Not signed by this gateway, changed, or expired."""


@dataclass(frozen=True)
class Attribution:
    """What a token says."""

    decision_id: UUID
    release_id: str
    expires_at: datetime


class TokenSigner:
    """Signs and reads tokens under one key, by the injected clock."""

    def __init__(self, key: bytes, clock: Clock, lifetime: timedelta = timedelta(days=7)) -> None:
        """ValueError for a key of less than 32 bytes."""
        if len(key) < _MIN_KEY_BYTES:
            raise ValueError(f"the signing key must have at least {_MIN_KEY_BYTES} bytes")
        self._key, self._signing = key, KeyedHash(key)
        self._clock = clock
        self._lifetime = lifetime

    def sign(self, decision_id: UUID, release_id: str) -> str:
        """A token of at most 512 characters."""
        expires = int((self._clock.now() + self._lifetime).timestamp())
        # Written by hand: it is made for every decision.
        claims = (
            f'{{"aud":"{_AUDIENCE}","did":"{decision_id.hex}",'
            f'"rel":{_name_as_json(release_id)},"exp":{expires}}}'
        )
        return signed(claims, self._signing)

    def read(self, token: str) -> Attribution:
        """What `token` says; InvalidToken when it must not be believed."""
        claims = read_claims(token, self._key, _AUDIENCE, ("aud", "did", "rel", "exp"))
        if claims is None:
            raise InvalidToken("the attribution token is not valid")
        try:
            now = self._clock.now()
            expires_at = datetime.fromtimestamp(int(claims["exp"]), tz=now.tzinfo)
            found = Attribution(UUID(hex=claims["did"]), str(claims["rel"]), expires_at)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise InvalidToken("the attribution token is not valid") from error
        if expires_at <= now:
            raise InvalidToken("the attribution token has expired")
        return found
