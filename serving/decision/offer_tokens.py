"""The offer token: what a decision promised, signed, so that any gateway of the shop can hold the
shop to it without having made the decision. It names no shopper: for whom it is, only who asks with
the same raw id can show."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from contract.clock import Clock
from contract.keyed_hash import KeyedHash
from contract.offers import Discount
from serving.decision.tokens import InvalidToken, as_json, read_claims, signed

_AUDIENCE = "offer"
_MOST_CHARACTERS = 4_096
_DISCOUNT: TypeAdapter[Discount] = TypeAdapter(Discount)
_CLAIMS = ("aud", "did", "oid", "car", "amt", "cur", "dsc", "exp")


@lru_cache(maxsize=256)  # of the offers in force
def _as_text(discount: Discount) -> str:
    return as_json(_DISCOUNT.dump_python(discount, mode="json"))


class ExpiredToken(InvalidToken):
    """It was good, and its time is over; `grant` is what it promised."""

    def __init__(self, grant: "Grant") -> None:
        super().__init__("the offer token has expired")
        self.grant = grant


@dataclass(frozen=True)
class Grant:
    """What is promised: `amount` at most off the cart of `cart_digest`, in minor units.
    `recipient`: for whom it is (`OfferSigner.recipient`), None: for whoever has it. `most_in_all`:
    what it may take off with others together, None: whatever there is."""

    decision_id: UUID
    offer_id: str
    cart_digest: str
    discount: Discount
    amount: int
    currency: str
    expires_at: datetime
    group: str | None = None
    recipient: str | None = None
    most_in_all: int | None = None

    @property
    def token_id(self) -> str:
        """The name of the promise: a decision makes one of each offer."""
        return f"{self.decision_id}/{self.offer_id}"


class OfferSigner:
    """Signs under the first of `keys` and reads under each, by the injected clock."""

    def __init__(self, keys: Sequence[bytes], clock: Clock) -> None:
        self._keys = tuple(keys)
        self._hashes = tuple(map(KeyedHash, keys))
        self._clock = clock

    def sign(self, grant: Grant) -> str:
        """The token of `grant`, whose `expires_at` is a whole second."""
        # Written by hand, as `json` has it: one is made for most decisions.
        claims = (
            f'{{"aud":"{_AUDIENCE}","did":"{grant.decision_id.hex}",'
            f'"oid":{quoted(grant.offer_id)},"car":{quoted(grant.cart_digest)},'
            f'"amt":{grant.amount},"cur":{quoted(grant.currency)},'
            f'"dsc":{_as_text(grant.discount)},"exp":{int(grant.expires_at.timestamp())}'
        )
        if grant.group is not None:
            claims += f',"grp":{quoted(grant.group)}'
        if grant.recipient is not None:
            claims += f',"who":{quoted(grant.recipient)}'
        if grant.most_in_all is not None:
            claims += f',"all":{grant.most_in_all}'
        return signed(claims + "}", self._hashes[0])

    def read(self, token: str) -> Grant:
        """What `token` promises. Raises InvalidToken; ExpiredToken where only its time is over."""
        if len(token) > _MOST_CHARACTERS:
            raise InvalidToken("the offer token is not valid")
        claims = None
        for key in self._keys:
            claims = claims or read_claims(token, key, _AUDIENCE, _CLAIMS)
        try:
            assert claims is not None
            grant = Grant(
                UUID(hex=claims["did"]),
                str(claims["oid"]),
                str(claims["car"]),
                _DISCOUNT.validate_python(claims["dsc"]),
                int(claims["amt"]),
                str(claims["cur"]),
                datetime.fromtimestamp(int(claims["exp"]), tz=UTC),
                claims.get("grp"),
                claims.get("who"),
                None if claims.get("all") is None else int(claims["all"]),
            )
        except (
            *(AssertionError, ValidationError, ValueError),
            *(TypeError, AttributeError, OverflowError),
        ) as error:
            raise InvalidToken("the offer token is not valid") from error
        if grant.expires_at <= self._clock.now():
            raise ExpiredToken(grant)
        return grant

    def recipient(self, decision_id: UUID, visitor_id: str, user_id: str | None) -> str:
        """A name for whom a decision was made that means nothing beside another decision: of the
        user where one is named, else of the visitor."""
        return self._recipient(self._hashes[0], decision_id, visitor_id, user_id)

    def is_for(self, grant: Grant, visitor_id: str, user_id: str | None) -> bool:
        """Whether `grant` is for them; a visitor may have logged in since."""
        return grant.recipient is None or any(
            hmac.compare_digest(
                grant.recipient, self._recipient(key, grant.decision_id, visitor_id, user)
            )
            for key in self._hashes
            for user in dict.fromkeys((user_id, None))
        )

    @staticmethod
    def _recipient(key: KeyedHash, decision_id: UUID, visitor_id: str, user_id: str | None) -> str:
        kind, raw = ("visitor", visitor_id) if user_id is None else ("user", user_id)
        said = f"{decision_id.hex}\0{kind}\0{raw}".encode("utf-8", "surrogatepass")
        return key.digest(said).hex()[:32]
