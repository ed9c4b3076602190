"""`/sdk/tillwise.js`: the snippet for pages of the shop, and `/sdk/consent.js`, which brings it the
word of a consent platform. Their plain names are asked about often; a page that names one with hash
and integrity gets exactly those bytes, for ever."""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.api.problems import ApiProblem
from serving.api.static_files import StaticFile, StaticFiles, web_folder

SCRIPT = "tillwise.js"
CONSENT = "consent.js"
INTEGRITY = "integrity.json"
_SHORT = "public, max-age=300"
# Any shop's page may load it: it holds nothing that is not public. A browser checks the integrity
# only of what it may read.
_ANYWHERE = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Snippet:
    """The snippet as this gateway serves it."""

    files: StaticFiles
    src: str
    integrity: str


@cache
def snippet() -> Snippet | None:
    """What was built, or None where it is missing. `web/src` says how it came about."""
    folder = web_folder("dist")
    if folder is None:
        return None
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    if SCRIPT not in contents:
        return None
    told = _embedded(SCRIPT, contents[SCRIPT])
    beside = {CONSENT: _embedded(CONSENT, contents[CONSENT])} if CONSENT in contents else {}
    contents[INTEGRITY] = json.dumps(told | beside).encode()
    return Snippet(StaticFiles(contents), str(told["src"]), str(told["integrity"]))


def _embedded(name: str, body: bytes) -> dict[str, str | int]:
    """What to write into a page for a script."""
    digest = base64.b64encode(hashlib.sha384(body).digest()).decode()
    src = f"/sdk/{StaticFile.of(name, body).hashed_name}"
    return {"src": src, "integrity": f"sha384-{digest}", "bytes": len(body)}


@router.api_route("/sdk/{name}", methods=["GET", "HEAD"])
async def sdk(request: Request) -> Response:
    """The scripts with source maps and types, and `integrity.json`: what to write into a page."""
    held = snippet()
    if held is None:
        raise ApiProblem(404, "The snippet has not been built: `make web`.")
    return held.files.answer(request, request.path_params["name"], _ANYWHERE, _SHORT)
