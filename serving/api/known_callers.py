"""Whom the control store vouched for before: the keys in force, by which a checkout goes on while
the store can not be read, and the page tokens whose signature held. Kept in this process alone."""

from collections import OrderedDict

from serving.state.control_records import ApiKey

_MOST_TOKENS = 16_384


class KnownCallers:
    """Keys by the digest of their secret and by their id, tokens by the digest of their text."""

    def __init__(self, most_tokens: int = _MOST_TOKENS) -> None:
        self._by_digest: dict[str, ApiKey] = {}
        self._by_id: dict[str, ApiKey] = {}
        self._tokens: OrderedDict[str, tuple[str, float]] = OrderedDict()  # key id, and exp
        self._most_tokens = most_tokens

    def by_digest(self, digest: str) -> ApiKey | None:
        """The key of that secret."""
        return self._by_digest.get(digest)

    def by_id(self, key_id: str) -> ApiKey | None:
        """The key of that id, whichever way it was met."""
        return self._by_id.get(key_id)

    def learn(self, key: ApiKey, digest: str | None = None) -> None:
        """The store says that `key` is in force; `digest` is of its secret, where that was sent."""
        self._by_id[key.key_id] = key
        if digest is not None:
            self._by_digest[digest] = key

    def forget(self, *, digest: str | None = None, key_id: str | None = None) -> None:
        """The store knows no such key in force."""
        gone = None if digest is None else self._by_digest.get(digest)
        gone_id = key_id if gone is None else gone.key_id
        if gone_id in self._by_id:  # else a stranger's guess, which must cost nothing
            del self._by_id[gone_id]
            kept = {one: key for one, key in self._by_digest.items() if key.key_id != gone_id}
            self._by_digest = kept

    def learn_token(self, digest: str, key_id: str, expires: float) -> None:
        """The signature of this token held; those longest not seen make room."""
        self._tokens[digest] = key_id, expires
        self._tokens.move_to_end(digest)
        if len(self._tokens) > self._most_tokens:
            self._tokens.popitem(last=False)

    def knows_token(self, digest: str, now: float) -> bool:
        """Whether that token counted before, has not expired at `now` (seconds since 1970), and its
        key was in force when last looked up."""
        held = self._tokens.get(digest)
        if held is None:
            return False
        key_id, expires = held
        if now < expires and key_id in self._by_id:
            self._tokens.move_to_end(digest)
            return True
        del self._tokens[digest]
        return False
