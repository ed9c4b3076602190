"""The same HMAC as the standard library's, whatever the key and the message."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from contract.keyed_hash import KeyedHash


@given(st.binary(max_size=200), st.lists(st.binary(max_size=300), max_size=3))
def test_it_is_the_hmac_of_each_message_in_turn(key: bytes, messages: list[bytes]) -> None:
    keyed = KeyedHash(key)
    for message in messages:
        assert keyed.digest(message) == hmac.digest(key, message, "sha256")
