"""Receipts of erasure: what was removed and when, signed with Ed25519 under a key of the shop's
own. The receipt is given away and not kept; anybody who has the public key can verify it."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "Ed25519"


class InvalidReceipt(ValueError):  # noqa: N818 - it names what is wrong
    """Not signed by this key, or changed since."""


class ReceiptSigner:
    """Signs under one private key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key)

    @property
    def public_key(self) -> str:
        """The public key, 32 bytes in base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """`receipt` with its signature beside it. The signature is over the receipt as JSON with
        sorted keys, no white space, and everything outside ASCII escaped."""
        signature = base64.b64encode(self._key.sign(canonical(receipt))).decode()
        return {
            "receipt": dict(receipt),
            "algorithm": ALGORITHM,
            "key_id": key_id(self.public_key),
            "signature": signature,
        }


def verify(signed: Mapping[str, Any], public_key: str) -> dict[str, Any]:
    """The receipt that `signed` holds. Raises InvalidReceipt."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
    except (ValueError, binascii.Error):
        raise InvalidReceipt("the public key is not 32 bytes in base64") from None
    try:
        receipt = signed["receipt"]
        if signed["algorithm"] != ALGORITHM or signed["key_id"] != key_id(public_key):
            raise InvalidReceipt("the receipt was signed with another key")
        key.verify(base64.b64decode(signed["signature"], validate=True), canonical(receipt))
    except (KeyError, TypeError, AttributeError, binascii.Error):
        raise InvalidReceipt("this is no signed receipt") from None
    except InvalidSignature:
        raise InvalidReceipt("the signature is wrong: the receipt was changed") from None
    return dict(receipt)


def canonical(receipt: Mapping[str, Any]) -> bytes:
    """The bytes that are signed."""
    return json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode()


def key_id(public_key: str) -> str:
    """A short name of a public key."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:16]
