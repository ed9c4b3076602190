"""What the shop says of its items, laid over every release that decides: the live one, the one on
trial and those to come, until the shop takes it back."""

from collections.abc import Callable, Iterable

from contract.catalogue import ItemChange
from contract.encoding import OOV
from serving.inference.release import Release

Change = tuple[str, ItemChange, int]  # item id, what is said of it, and the number of that


class CatalogueOverlay:
    """All that is said, and up to which number. `since` reads what was said after a number."""

    def __init__(self, since: Callable[[int], list[Change]]) -> None:
        self._since = since
        self._said: dict[str, tuple[ItemChange, int]] = {}
        self.number = 0

    def __len__(self) -> int:
        return len(self._said)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._said

    def follow(self, releases: Iterable[Release]) -> None:
        """Learn what was said by any gateway, and let it count in `releases`. Raises StoreError.
        May run on another thread than `lay`, but only once at a time."""
        latest = self.number
        for item_id, change, number in self._since(latest):
            self._said[item_id] = change, number
            latest = max(latest, number)
        self.number = latest  # now, so that nobody takes a part of what one number says for all
        for release in releases:
            self.lay(release)

    def lay(self, release: Release) -> None:
        """Let everything that is known count in `release`. May run on another thread for a release
        that does not decide yet."""
        catalogue, number = release.catalogue, self.number
        if catalogue.said >= number:
            return
        index_of = release.vocabulary.index
        changes = {
            index: change
            for item_id, (change, at) in list(self._said.items())
            if catalogue.said < at <= number and (index := index_of(item_id)) != OOV
        }
        catalogue.say(changes, number)
