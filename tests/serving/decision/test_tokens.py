"""An attribution token is believed only when this gateway signed it, and only in its time."""

from datetime import timedelta
from uuid import uuid4

import jwt
import pytest

from contract.clock import FixedClock
from serving.decision.tokens import InvalidToken, TokenSigner
from tests.serving.release_factory import BUILT_AT

KEY = b"0123456789abcdef0123456789abcdef"


def test_a_token_says_what_was_signed_until_it_expires() -> None:
    clock = FixedClock(BUILT_AT)  # long before the machine's own time
    signer = TokenSigner(KEY, clock, timedelta(hours=1))
    decision_id = uuid4()
    token = signer.sign(decision_id, "r" * 64)
    assert len(token) <= 512
    assert signer.read(token).decision_id == decision_id
    assert signer.read(token).release_id == "r" * 64
    odd = 'r"\\u00e9\u00e9'  # whatever is in a release's name
    assert signer.read(signer.sign(decision_id, odd)).release_id == odd
    clock.at = BUILT_AT + timedelta(minutes=59)
    assert signer.read(token).expires_at == BUILT_AT + timedelta(hours=1)
    clock.at = BUILT_AT + timedelta(hours=1)
    with pytest.raises(InvalidToken, match="expired"):
        signer.read(token)


def test_a_changed_or_foreign_token_is_not_believed() -> None:
    clock = FixedClock(BUILT_AT)
    signer = TokenSigner(KEY, clock)
    token = signer.sign(uuid4(), "tiny-1")
    head, body, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = [
        f"{head}.{body}.{signature[:-2]}AA",
        TokenSigner(KEY[::-1], clock).sign(uuid4(), "tiny-1"),
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode(claims | {"aud": "decide"}, KEY, algorithm="HS256"),
        jwt.encode(claims | {"did": "no id"}, KEY, algorithm="HS256"),
        jwt.encode({"aud": "attribution"}, KEY, algorithm="HS256"),
        "",
        "a.b.c",
    ]
    for one in forged:
        with pytest.raises(InvalidToken):
            signer.read(one)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        TokenSigner(b"short", FixedClock(BUILT_AT))
