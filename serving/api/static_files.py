"""Files that browsers and CDNs may hold for ever: their names hold the hash of their content, and
what names them is asked about every time. Read, hashed and compressed once, at the start."""

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response

from serving.api.problems import ApiProblem

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "no-cache"
_DIGITS = 16
_SHARED = "shared"  # what all pages look like
_PACKAGE = Path(__file__).resolve().parent.parent
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ts": "text/plain; charset=utf-8",
}
_COMPRESSED_ALREADY = frozenset({".png"})
_SMALLEST_ZIPPED = 256
# A neighbour's name as HTML, CSS and modules write it: "demo.css", './format.js', url(bag.svg).
_NAMED = re.compile(r"""(?P<open>["'(](?:\./)?)(?P<name>[\w-]+(?:\.[\w-]+)+)(?=["')])""")


def web_folder(name: str) -> Path | None:
    """The folder `web/<name>`: in a wheel it lies inside the package, in a checkout beside it."""
    folders = (_PACKAGE / "web" / name, _PACKAGE.parent / "web" / name)
    return next((folder for folder in folders if folder.is_dir()), None)


@dataclass(frozen=True)
class StaticFile:
    """One file as it is sent."""

    name: str
    body: bytes
    zipped: bytes | None
    digest: str

    @classmethod
    def of(cls, name: str, body: bytes) -> "StaticFile":
        """`body` hashed, and compressed where that makes it smaller."""
        zipped = None
        if Path(name).suffix not in _COMPRESSED_ALREADY and len(body) >= _SMALLEST_ZIPPED:
            zipped = gzip.compress(body, mtime=0)
            zipped = zipped if len(zipped) < len(body) else None
        return cls(name, body, zipped, hashlib.sha256(body).hexdigest()[:_DIGITS])

    @property
    def hashed_name(self) -> str:
        """`demo.css` as `demo.<16 hexadecimal digits>.css`."""
        stem, _, rest = self.name.partition(".")
        return f"{stem}.{self.digest}.{rest}"

    def answer(
        self, request: Request, cache_control: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The file, or 304 when the browser has it."""
        zipped = self.zipped if _takes_gzip(request) else None
        sent = {
            "Cache-Control": cache_control,
            "ETag": f'"{self.digest}{"-gzip" if zipped is not None else ""}"',
            **(headers or {}),
        }
        if self.zipped is not None:
            sent["Vary"] = "Accept-Encoding"
        if _has(request, sent["ETag"]):
            return Response(status_code=304, headers=sent)
        if zipped is not None:
            sent["Content-Encoding"] = "gzip"
        sent["Content-Type"] = _KINDS.get(Path(self.name).suffix, "application/octet-stream")
        body = self.body if zipped is None else zipped
        sent["Content-Length"] = str(len(body))
        return Response(b"" if request.method == "HEAD" else body, headers=sent)


class StaticFiles:
    """Files that know one another: where one names another, it names its hashed name."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        """Raises ValueError when files name each other in a circle."""
        self._files: dict[str, StaticFile] = {}
        for name in contents:
            self._add(name, contents, ())
        self._hashed = {one.hashed_name: one for one in self._files.values()}

    @classmethod
    def of_page(cls, folder: Path, **replaced: str) -> "StaticFiles":
        """The files of `folder`, and what all pages share; in HTML, `{{name}}` gives way to what is
        `replaced`."""
        shared = web_folder(_SHARED)
        folders = (folder,) if shared is None else (shared, folder)
        paths = [path for one in folders for path in one.iterdir() if path.is_file()]
        contents = {path.name: path.read_bytes() for path in paths}
        for name in contents:
            if name.endswith(".html"):
                for word, text in replaced.items():
                    contents[name] = contents[name].replace(
                        b"{{%s}}" % word.encode(), text.encode()
                    )
        return cls(contents)

    def __getitem__(self, name: str) -> StaticFile:
        return self._files[name]

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def answer(
        self,
        request: Request,
        name: str,
        headers: Mapping[str, str] | None = None,
        cache_control: str = REVALIDATED,
    ) -> Response:
        """The file of that hashed name, for ever, or of that plain name, under `cache_control`.

        Raises a 404 problem. A page is never immutable: its address is what people know.
        """
        if (found := self._hashed.get(name)) is not None and not name.endswith(".html"):
            return found.answer(request, IMMUTABLE, headers)
        if (found := self._files.get(name)) is not None:
            return found.answer(request, cache_control, headers)
        raise ApiProblem(404, "There is no such file.")

    def _add(self, name: str, contents: Mapping[str, bytes], naming: tuple[str, ...]) -> StaticFile:
        if name in naming:
            raise ValueError(f"{' -> '.join((*naming, name))}: files name each other in a circle")
        if name not in self._files:
            body = contents[name]
            if Path(name).suffix in {".html", ".js", ".css"}:
                body = self._referring(body.decode(), name, contents, naming).encode()
            self._files[name] = StaticFile.of(name, body)
        return self._files[name]

    def _referring(
        self, text: str, name: str, contents: Mapping[str, bytes], naming: tuple[str, ...]
    ) -> str:
        def refer(found: re.Match[str]) -> str:
            other = found["name"]
            if other not in contents or other == name or other.endswith(".html"):
                return found[0]
            return found["open"] + self._add(other, contents, (*naming, name)).hashed_name

        return _NAMED.sub(refer, text)


def _takes_gzip(request: Request) -> bool:
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return re.fullmatch(r"\s*q=0(?:\.0*)?\s*", weight) is None
    return False


def _has(request: Request, etag: str) -> bool:
    """Whether `If-None-Match` names `etag`; a CDN may have made it a weak one."""
    named = request.headers.get("if-none-match", "")
    return named.strip() == "*" or etag in {
        one.strip().removeprefix("W/") for one in named.split(",")
    }
