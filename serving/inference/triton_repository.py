"""A Triton server as its own pod's sidecar and the pods that wait for it see it, over plain HTTP:
which versions of a release it can run, whether they answer, and loading what was pulled beside
it."""

import http.client
import json
import math
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from contract.errors import UserError
from contract.manifest import ModelEntry, ReleaseManifest

_ASK_SECONDS = 3.0
_TYPES = {"int64": "INT64", "float32": "FP32"}
_LOAD_SECONDS = 300.0  # TensorRT builds an engine per batch size


class TritonAway(UserError):  # noqa: N818 - it names what happened
    """No server answers there."""


class LoadRefused(UserError):  # noqa: N818 - it names what happened
    """The server would not load a model; what it had loaded serves on."""


def missing(url: str, manifest: ReleaseManifest) -> list[str]:
    """The models of a release that the server at `url` can not run. Raises TritonAway."""
    return [
        entry.name
        for entry in manifest.models
        if not _ready(f"{url}/v2/models/{entry.name}/versions/{entry.version}/ready")
    ]


def load(url: str, manifests: Sequence[ReleaseManifest]) -> list[str]:
    """Have the server hold every model of these releases, each version by number, and no other;
    the names of those that it had to read anew.

    Its version policy would count versions instead, and a release that is rolled back to may not be
    among the newest. Raises TritonAway, and LoadRefused when it still lacks one.
    """
    names = sorted({name for manifest in manifests for name in missing(url, manifest)})
    for name in names:
        _load(url, name, sorted({manifest.model(name).version for manifest in manifests}))
    for manifest in manifests:
        still = missing(url, manifest)
        if still:
            raise LoadRefused(
                f"{url}: loaded, and yet it has no {', '.join(still)} of {manifest.release_id}"
            )
    return names


def failing(url: str, manifest: ReleaseManifest) -> list[str]:
    """The models of a release that do not answer an inference, of padding alone, with numbers: a
    server goes on calling a model ready when its device has failed or the process behind it is
    dead. Raises TritonAway."""
    return [entry.name for entry in manifest.models if not _answers(url, entry)]


def reload(url: str, name: str, manifests: Sequence[ReleaseManifest]) -> None:
    """Have the server let go of a model and read it again, at the versions of these releases.
    Raises TritonAway, LoadRefused."""
    _post(f"{url}/v2/repository/models/{name}/unload", {})
    _load(url, name, sorted({manifest.model(name).version for manifest in manifests}))


def _answers(url: str, entry: ModelEntry) -> bool:
    inputs = [
        {
            "name": one.name,
            "shape": [1, *one.shape],
            "datatype": _TYPES[one.dtype],
            "data": [0] * math.prod(one.shape),
        }
        for one in entry.inputs
    ]
    asked = urllib.request.Request(
        f"{url}/v2/models/{entry.name}/versions/{entry.version}/infer",
        data=json.dumps({"inputs": inputs}).encode(),
        method="POST",
    )
    try:
        with urllib.request.urlopen(asked, timeout=_ASK_SECONDS) as answer:
            given = {one["name"]: one["data"] for one in json.loads(answer.read())["outputs"]}
        return all(math.isfinite(n) for one in entry.outputs for n in given[one.name])
    except (urllib.error.HTTPError, TimeoutError, KeyError, TypeError, ValueError):
        return False
    except (OSError, http.client.HTTPException) as error:
        raise TritonAway(f"{url}: {error}") from None


def _load(url: str, name: str, versions: list[int]) -> None:
    address = f"{url}/v2/repository/models/{name}/load"
    config = _config(url, name)
    if config is None:  # it holds none yet, so that its own configuration is asked for first
        _post(address, {})
        config = _config(url, name)
    if config is not None:
        config["version_policy"] = {"specific": {"versions": versions}}
        _post(address, {"parameters": {"config": json.dumps(config)}})


def _config(url: str, name: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(
            f"{url}/v2/models/{name}/config", timeout=_ASK_SECONDS
        ) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TritonAway(f"{url}: {error}") from None


def servers(url: str) -> list[str]:
    """The same address for every server that its name stands for, as a headless service's does.
    Raises TritonAway when it stands for none."""
    parts = urlsplit(url)
    port = parts.port or 8000
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TritonAway(f"{url}: {error.strerror}") from None
    hosts = sorted({str(address[4][0]) for address in found})
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts]


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_ASK_SECONDS):
            return True
    except urllib.error.HTTPError:
        return False
    except (OSError, http.client.HTTPException) as error:
        raise TritonAway(f"{url}: {error}") from None


def _post(url: str, body: dict[str, Any]) -> None:
    asked = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=_LOAD_SECONDS):
            return
    except urllib.error.HTTPError as error:
        raise LoadRefused(f"{url}: {_reason(error.read())}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TritonAway(f"{url}: {error}") from None


def _reason(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return "it gave no reason"
