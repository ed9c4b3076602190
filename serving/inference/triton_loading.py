"""Which versions of a model a Triton server is asked to hold."""

from collections.abc import Iterable, Mapping

from serving.inference.triton_client import TritonClient

# As the version policy of config.pbtxt has it: the live release and the one beside it.
KEPT = 2
READY, LOADING = "READY", "LOADING"


async def load_wanted(client: TritonClient, model: str, wanted: int, in_use: Iterable[int]) -> bool:
    """Ask for `wanted` unless it is ready or on its way, and keep those `in_use`; whether it is
    ready now and was not before. To ask again while it loads would begin anew each time.

    The version policy alone would let go of a version that is served while two newer ones lie on
    the disk, and never takes one back: then the versions are named.

    Raises InferenceFailed, TimeoutError.
    """
    states = await client.versions(model)
    if states.get(wanted) in (READY, LOADING):
        return False
    ready = _ready(states)
    needed = {wanted, *(ready & set(in_use))}
    if needed <= set(_newest(ready | {wanted})):
        await client.load(model)
        ready = _ready(await client.versions(model))
        if needed <= ready:
            return True
    await client.load(model, needed | set(_newest(ready)))
    return True


def _ready(states: Mapping[int, str]) -> set[int]:
    return {version for version, state in states.items() if state == READY}


def _newest(versions: Iterable[int]) -> list[int]:
    return sorted(versions)[-KEPT:]
