"""`Idempotency-Key`: a write repeated with the same key within 24 hours gets the same answer, and
with another body is refused.

A kept answer may name a subject. It is encrypted under a key that is made of the caller's own
Idempotency-Key, which is not kept: only whoever repeats the call can open it.
"""

import asyncio
import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Request
from fastapi.responses import Response

from serving.api.auth import Caller
from serving.api.gateway import Gateway
from serving.api.problems import ApiProblem
from serving.state.control_records import StoredAnswer

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
_MOST_CHARACTERS = 255
_NONCE_BYTES = 12

PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Repeats with the same key within 24 hours get the first answer again; with "
    "another body 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": _MOST_CHARACTERS},
}


async def once(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    body: bytes,
    act: Callable[[], Awaitable[Response]],
) -> Response:
    """The answer of `act`, or the one given before under the same key. Raises 400 or 409."""
    key = request.headers.get(HEADER)
    if key is None:
        return await act()
    if not 1 <= len(key) <= _MOST_CHARACTERS:
        raise ApiProblem(400, f"{HEADER}: send 1 to {_MOST_CHARACTERS} characters.")
    # Only digests are kept: a key or a body may hold whatever the caller put into it.
    parts = (caller.key_id, request.method, request.url.path, key)
    scope = _digest(*parts)
    cipher = _cipher(gateway, parts)
    lock = gateway.answering.setdefault(scope, asyncio.Lock())
    async with lock:  # one that comes meanwhile waits for the answer that it must repeat
        return await _once(gateway, scope, cipher, body, act)


async def _once(
    gateway: Gateway,
    scope: str,
    cipher: AESGCM,
    body: bytes,
    act: Callable[[], Awaitable[Response]],
) -> Response:
    body_digest = hashlib.sha256(body).hexdigest()
    now = gateway.clock.now()
    before = gateway.control.answered(scope, now - KEPT)
    if before is not None:
        if before.body_digest != body_digest:
            raise ApiProblem(409, f"{HEADER}: this key was used with another body.")
        return Response(
            cipher.decrypt(
                before.answer[:_NONCE_BYTES], before.answer[_NONCE_BYTES:], scope.encode()
            ),
            before.status,
            {"Idempotent-Replay": "true"},
            media_type="application/json",
        )
    answer = await act()
    if answer.status_code < 300:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + cipher.encrypt(nonce, bytes(answer.body), scope.encode())
        kept = StoredAnswer(body_digest, answer.status_code, sealed)
        await gateway.control.remember_answer(scope, kept, now, now - KEPT)
    return answer


def _cipher(gateway: Gateway, parts: tuple[str, ...]) -> AESGCM:
    named = "\n".join(parts).encode("utf-8", "surrogateescape")
    return AESGCM(hmac.new(gateway.answer_key, named, hashlib.sha256).digest())


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
