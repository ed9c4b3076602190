"""The names under which uses stand in the ledger: others already do, so they never change."""

import hmac

from contract.keyed_hash import KeyedHash
from serving.state.coupon_holders import Holder


def _name(key: bytes, said: bytes) -> str:
    return hmac.digest(key, said, "sha256").hex()


def test_names_follow_from_the_keys_alone_the_own_one_first() -> None:
    own, before = b"o" * 32, b"b" * 32
    holder = Holder((KeyedHash(own), KeyedHash(before)))
    assert holder.names(["ten", "free"]) == {
        offer_id: tuple(_name(key, b"tillwise:coupon\0" + said) for key in (own, before))
        for offer_id, said in (("ten", b"ten"), ("free", b"free"))
    }
    assert holder.names_as_viewer == (
        _name(own, b"tillwise:shown"),
        _name(before, b"tillwise:shown"),
    )
    assert Holder(()).names(["ten"]) == {"ten": ()}
