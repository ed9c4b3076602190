"""A document as decisions use it: read once when it changes, by whichever gateway, and held."""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from serving.state.control_store import ControlStore

log = logging.getLogger(__name__)
Held = TypeVar("Held")


class FollowedDocument(Generic[Held]):
    """`current` is the latest version that could be read, of the number `version`; `problem` says
    what was wrong with a later one, which this gateway is perhaps too old to understand."""

    def __init__(
        self, store: ControlStore, name: str, read: Callable[[str], Held], nothing: Held
    ) -> None:
        """`read` makes of a JSON body what is held, or raises; `nothing` is held until there is
        a document."""
        self._store, self._name, self._read = store, name, read
        self.current, self.version = nothing, 0
        self.problem: str | None = None
        self._looked_at = 0

    def follow(self) -> None:
        """Take over the latest version. Raises StoreError."""
        if self._store.document_versions().get(self._name, 0) == self._looked_at:
            return
        document = self._store.document(self._name)
        if document is None:
            return
        try:
            held = self._read(document.body)
        except Exception as error:  # what holds now goes on holding
            self.problem = f"{self._name}, version {document.version}: {error}"
            log.error("what was written is not understood here: %s", self.problem)
        else:
            self.current, self.version, self.problem = held, document.version, None
        self._looked_at = document.version
