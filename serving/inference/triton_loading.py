"""Which versions of a model a Triton server is asked to hold."""

from collections.abc import Iterable

from serving.inference.triton_client import TritonClient

# As the version policy of config.pbtxt has it: the live release and the one beside it.
KEPT = 2


async def load_wanted(client: TritonClient, model: str, wanted: int, in_use: Iterable[int]) -> bool:
    """Ask for `wanted` unless it is ready, and keep those `in_use`; whether anything was asked.

    The version policy alone would let go of a version that is served while two newer ones lie on
    the disk, and never takes one back: then the versions are named.

    Raises InferenceFailed, TimeoutError.
    """
    ready = await client.ready_versions(model)
    if wanted in ready:
        return False
    needed = {wanted, *(ready & set(in_use))}
    if needed <= set(_newest(ready | {wanted})):
        await client.load(model)
        ready = await client.ready_versions(model)
        if needed <= ready:
            return True
    await client.load(model, needed | set(_newest(ready)))
    return True


def _newest(versions: Iterable[int]) -> list[int]:
    return sorted(versions)[-KEPT:]
