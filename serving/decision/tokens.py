"""The attribution token: it goes out with a decision and comes back with what happened next. It
names the decision and its release, and nothing about the shopper."""

import base64
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import jwt

from contract.clock import Clock

_ALGORITHM = "HS256"
_AUDIENCE = "attribution"
_MIN_KEY_BYTES = 32


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


_HEADER = _base64(b'{"alg":"HS256","typ":"JWT"}')


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
        self._key = key
        self._clock = clock
        self._lifetime = lifetime

    def sign(self, decision_id: UUID, release_id: str) -> str:
        """A token of at most 512 characters."""
        expires = int((self._clock.now() + self._lifetime).timestamp())
        claims = {"aud": _AUDIENCE, "did": decision_id.hex, "rel": release_id, "exp": expires}
        # As PyJWT would write it, at a tenth of the time: one is made for every decision.
        signed = _HEADER + b"." + _base64(json.dumps(claims, separators=(",", ":")).encode())
        return (signed + b"." + _base64(hmac.digest(self._key, signed, "sha256"))).decode("ascii")

    def read(self, token: str) -> Attribution:
        """What `token` says; InvalidToken when it must not be believed."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                # PyJWT would compare with the machine's clock, which is not the one in force.
                options={"require": ["aud", "did", "rel", "exp"], "verify_exp": False},
            )
            now = self._clock.now()
            expires_at = datetime.fromtimestamp(int(claims["exp"]), tz=now.tzinfo)
            found = Attribution(UUID(hex=claims["did"]), str(claims["rel"]), expires_at)
        except (
            jwt.InvalidTokenError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:
            raise InvalidToken("the attribution token is not valid") from error
        if expires_at <= now:
            raise InvalidToken("the attribution token has expired")
        return found
