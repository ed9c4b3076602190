"""Whom the control store vouched for before: the keys in force, by which a checkout goes on while
the store can not be read, and the page tokens whose signature held. Tokens are kept in this process
alone, keys also in a file where the store may be away when the next process starts."""

from collections import OrderedDict
from collections.abc import Callable

from serving.state.callers_file import CallersFile
from serving.state.control_records import ApiKey

_MOST_TOKENS = 16_384


class KnownCallers:
    """Keys by the digest of their secret and by their id, tokens by the digest of their text."""

    def __init__(self, most_tokens: int = _MOST_TOKENS, *, file: CallersFile | None = None) -> None:
        self._by_digest: dict[str, ApiKey] = {}
        self._by_id: dict[str, ApiKey] = {}
        self._tokens: OrderedDict[str, tuple[str, float]] = OrderedDict()  # key id, and exp
        self._most_tokens = most_tokens
        self._checked_at: int | None = None
        self._file = file
        for key, digest in () if file is None else file.read():
            self._put(key, digest)

    def by_digest(self, digest: str) -> ApiKey | None:
        """The key of that secret."""
        return self._by_digest.get(digest)

    def by_id(self, key_id: str) -> ApiKey | None:
        """The key of that id, whichever way it was met."""
        return self._by_id.get(key_id)

    def learn(self, key: ApiKey, digest: str | None = None) -> None:
        """The store says that `key` is in force; `digest` is of its secret, where that was sent."""
        known = self._by_id.get(key.key_id) if digest is None else self._by_digest.get(digest)
        if known != key:
            self._put(key, digest)
            self._write()

    def forget(self, *, digest: str | None = None, key_id: str | None = None) -> None:
        """The store knows no such key in force."""
        gone = None if digest is None else self._by_digest.get(digest)
        gone_id = key_id if gone is None else gone.key_id
        if gone_id in self._by_id:  # else a stranger's guess, which must cost nothing
            del self._by_id[gone_id]
            kept = {one: key for one, key in self._by_digest.items() if key.key_id != gone_id}
            self._by_digest = kept
            self._write()

    def check(self, version: int, in_force: Callable[[str], ApiKey | None]) -> None:
        """Forget who was revoked, whenever the store has changed since. Raises what `in_force`
        does."""
        if version != self._checked_at:
            for key_id in [one for one in self._by_id if in_force(one) is None]:
                self.forget(key_id=key_id)
            self._checked_at = version

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

    def _put(self, key: ApiKey, digest: str | None) -> None:
        self._by_id[key.key_id] = key
        if digest is not None:
            self._by_digest[digest] = key

    def _write(self) -> None:
        if self._file is None:
            return
        by_secret = {key.key_id for key in self._by_digest.values()}
        met = [(key, digest) for digest, key in self._by_digest.items()]
        by_token = [(key, None) for key_id, key in self._by_id.items() if key_id not in by_secret]
        self._file.write([*met, *by_token])
