"""Who may call what. A key goes in `Authorization: Bearer KEY`; only its SHA-256 is stored.

A page that has no key of its own may ask for decisions with a short-lived token that the shop's
server signed: a JWT (HS256) with header `kid` = id of a checkout key, claims `aud` = "decide" and
`exp` at most 15 minutes ahead, whose secret is
HMAC-SHA-256(key=API key, message="tillwise-page-token"). The body comes from the page, so a
`user_id` in it is believed only when the token names the same user in its claim `sub`.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import jwt
from fastapi import Request

from serving.api.problems import ApiProblem
from serving.state.audit import Actor
from serving.state.control_records import ApiKey, Role
from serving.state.secrets import Secrets
from serving.state.sqlite_writer import StoreError

if TYPE_CHECKING:  # commands that make keys do without a gateway
    from serving.api.gateway import Gateway

PAGE_TOKEN_AUDIENCE = "decide"
PAGE_TOKEN_MESSAGE = b"tillwise-page-token"
PAGE_TOKEN_LIFE = timedelta(minutes=15)
_MOST_CHARACTERS = 4_096
_KEY_FORM = re.compile(r"tw_(checkout|collect|admin)_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Caller:
    """Who sent the request: a key, or a page with a token of a key."""

    key_id: str
    role: Role
    from_page: bool = False
    page_user: str | None = None  # whom the shop's server vouches for

    @property
    def actor(self) -> Actor:
        """As the audit log names it."""
        return Actor(self.key_id, self.role)

    def may_speak_for(self, user_id: str | None) -> bool:
        """Whether this caller's word that `user_id` is logged in counts."""
        return user_id is None or not self.from_page or user_id == self.page_user


def page_token_secret(api_key: str) -> bytes:
    """The secret that the holder of `api_key` signs page tokens with, 32 bytes."""
    return hmac.new(api_key.encode(), PAGE_TOKEN_MESSAGE, hashlib.sha256).digest()


def digest_of_key(api_key: str) -> str:
    """What is stored of an API key."""
    return hashlib.sha256(api_key.encode()).hexdigest()


def new_key(role: Role, at: datetime, held: Secrets) -> tuple[str, ApiKey]:
    """A fresh secret and the record of it."""
    api_key = f"tw_{role}_{secrets.token_urlsafe(32)}"
    key_id = str(uuid4())
    sealed = held.seal(key_id, page_token_secret(api_key))
    return api_key, ApiKey(key_id, role, at, None, sealed)


class Credential:
    """What the header `Authorization` says, read once a request."""

    def __init__(self, said: str) -> None:
        scheme, _, text = said.partition(" ")
        self.text = text.strip()
        self.sent = scheme.lower() == "bearer" and 0 < len(self.text) <= _MOST_CHARACTERS
        self.is_token = self.sent and self.text.count(".") == 2
        self.is_key = self.sent and _KEY_FORM.fullmatch(self.text) is not None

    @cached_property
    def digest(self) -> str:
        """By which a key is stored, and a page token that counted is known again."""
        return digest_of_key(self.text)


def credential_of(request: Request) -> Credential:
    """That of `request`."""
    return _credential(request.headers.get("authorization", ""))


@lru_cache(maxsize=16)  # a shop's servers send the same key each time
def _credential(said: str) -> Credential:
    return Credential(said)


def is_beacon(request: Request) -> bool:
    """Whether a page that is being left sent this: such a request has no headers of its own."""
    return "authorization" not in request.headers and "key" in request.query_params


def authenticate(
    request: Request,
    gateway: "Gateway",
    *roles: Role,
    page_token: bool = False,
    beacon: bool = False,
    credential: Credential | None = None,
) -> Caller:
    """The caller, who holds one of `roles` or is admin. Raises a 401 or 403 problem.

    `beacon`: a `collect` key, which is public, may stand in the address as `?key=`.
    `credential`: that of the request, where it was read before.
    """
    by_address = beacon and is_beacon(request)
    if by_address:
        credential = Credential(f"Bearer {request.query_params['key']}")
    elif credential is None:
        credential = credential_of(request)
    if not credential.sent:
        raise _unauthenticated("Send an API key as Authorization: Bearer KEY.")
    if credential.is_token:
        if not page_token:
            raise ApiProblem(403, "A page token is for POST /v1/checkout/decide only.")
        return _page(credential, gateway)
    key = _held(gateway, credential.digest) if credential.is_key else None
    if key is None:
        raise _unauthenticated("This API key is not known or was revoked.")
    if by_address and key.role != "collect":
        raise ApiProblem(
            403, "Only a collect key may stand in an address; this one is exposed now."
        )
    if key.role not in roles and key.role != "admin":
        wanted = " or ".join(roles)
        raise ApiProblem(403, f"A key with the role {key.role} may not do this; use {wanted}.")
    return Caller(key.key_id, key.role)


def is_known(credential: Credential, gateway: "Gateway") -> bool:
    """Whether the caller's key was in force when it was last looked up, or its page token counted
    before; the store is not asked. Enough to refuse by, never to allow by."""
    if credential.is_key:
        return gateway.known.by_digest(credential.digest) is not None
    if not credential.is_token:
        return False
    return gateway.known.knows_token(credential.digest, gateway.clock.now().timestamp())


def _held(gateway: "Gateway", digest: str) -> ApiKey | None:
    """The key in force. While the store can not be read, those that it vouched for before count:
    a checkout must not fail for want of it."""
    try:
        key = gateway.control.key_by_digest(digest)
    except StoreError:
        if (known := gateway.known.by_digest(digest)) is not None:
            return known
        raise
    if key is None:
        gateway.known.forget(digest=digest)
    else:
        gateway.known.learn(key, digest)
    return key


def _held_by_id(gateway: "Gateway", key_id: str) -> ApiKey | None:
    """The same for the key that a page token names."""
    try:
        key = gateway.control.key_by_id(key_id)
    except StoreError:
        if (known := gateway.known.by_id(key_id)) is not None:
            return known
        raise
    if key is None:
        gateway.known.forget(key_id=key_id)
    else:
        gateway.known.learn(key)
    return key


def _page(credential: Credential, gateway: "Gateway") -> Caller:
    """The page behind a signed token."""
    token = credential.text
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        raise _unauthenticated("The page token can not be read.") from None
    key = _held_by_id(gateway, key_id) if isinstance(key_id, str) else None
    if key is None or key.role != "checkout":
        raise _unauthenticated("The page token's kid is not a checkout key in force.")
    for secret in gateway.secrets.unseal(key.key_id, key.sealed):
        claims = _claims(token, secret)
        if claims is not None:
            _check_life(claims, gateway.clock.now())
            gateway.known.learn_token(credential.digest, key.key_id, float(claims["exp"]))
            return Caller(key.key_id, key.role, from_page=True, page_user=claims.get("sub"))
    raise _unauthenticated("The page token's signature or audience is wrong.")


def _claims(token: str, secret: bytes) -> dict[str, Any] | None:
    try:
        # Times are checked against the injected clock below, not against the machine's.
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            audience=PAGE_TOKEN_AUDIENCE,
            options={
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "require": ["exp", "aud"],
            },
        )
    except jwt.PyJWTError:
        return None
    return claims


def _check_life(claims: dict[str, Any], now: datetime) -> None:
    expires, seconds = claims["exp"], now.timestamp()
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise _unauthenticated("The page token's exp is not a number.")
    if not seconds < expires:
        raise _unauthenticated("The page token has expired.")
    if not expires <= seconds + PAGE_TOKEN_LIFE.total_seconds():
        raise _unauthenticated("The page token's exp lies more than 15 minutes ahead.")


def _unauthenticated(detail: str) -> ApiProblem:
    return ApiProblem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="tillwise"'})
