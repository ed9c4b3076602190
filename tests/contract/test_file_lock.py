from pathlib import Path
from threading import Thread

from contract.file_lock import alone, alone_if_free


def test_one_holds_it_and_the_others_are_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with alone_if_free(path) as mine, alone_if_free(path) as other:
        assert (mine, other) == (True, False)
    with alone(path), alone_if_free(path) as other:
        assert not other
    with alone_if_free(path) as mine:
        assert mine
    assert path.stat().st_mode & 0o777 == 0o600


def test_who_waits_comes_next(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def second() -> None:
        with alone(path):
            order.append("second")

    with alone(path):
        waiting = Thread(target=second)
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
