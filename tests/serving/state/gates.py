"""Gates of a store for tests."""


class OpenGate:
    """Always lets ask, and counts what came of it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def allows(self) -> bool:
        return True

    def succeeded(self) -> None:
        self.told.append("succeeded")

    def failed(self) -> None:
        self.told.append("failed")

    def late(self, waited_ms: float, *, crowded: bool) -> None:
        self.told.append("late")
