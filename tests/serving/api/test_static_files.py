"""Names with hashes, caching, compression; and that nothing it serves lacks them."""

import base64
import gzip
import hashlib
import re
from pathlib import Path

import httpx
import pytest

from serving.api.demo_page import mount
from serving.api.demo_shop import ShopKeys
from serving.api.static_files import IMMUTABLE, StaticFiles, web_folder
from tests.serving.conftest import Running, Start

WEB = Path(__file__).resolve().parents[3] / "web"
FOR_EVER = "public, max-age=31536000, immutable"


async def get(running: Running, path: str, coding: str = "", **headers: str) -> httpx.Response:
    return await running.client.get(path, headers={"accept-encoding": coding, **headers})


@pytest.fixture
def demo(running: Running) -> Running:
    """A gateway with the real page."""
    keys = ShopKeys("none", "none", "tw_collect_key")
    mount(running.app, running.gateway, [], keys, web_folder("demo"))
    return running


def test_a_file_names_its_neighbours_by_their_hashes() -> None:
    files = StaticFiles(
        {
            "index.html": b'<link href="a.css"><script src="./one.js"></script>'
            b'<a href="index.html">',
            "a.css": b"p { background: url(bag.svg) }",
            "bag.svg": b"<svg/>",
            "one.js": b'import "./two.js"; say("three.js", "one.js");',
            "two.js": b"export {};",
        }
    )
    two = f"two.{hashlib.sha256(b'export {};').hexdigest()[:16]}.js"
    assert files["two.js"].hashed_name == two
    assert files["one.js"].body == f'import "./{two}"; say("three.js", "one.js");'.encode()
    bag = files["bag.svg"].hashed_name
    assert files["a.css"].body == f"p {{ background: url({bag}) }}".encode()
    page = files["index.html"].body.decode()
    assert f'href="{files["a.css"].hashed_name}"' in page
    assert f'src="./{files["one.js"].hashed_name}"' in page
    assert 'href="index.html"' in page


def test_a_change_anywhere_below_changes_every_name_above() -> None:
    def names(innermost: bytes) -> dict[str, str]:
        contents = {"a.js": b'import "./b.js"', "b.js": b'import "./c.js"', "c.js": innermost}
        files = StaticFiles(contents | {"other.js": b""})
        return {name: files[name].hashed_name for name in (*contents, "other.js")}

    before, after = names(b"1"), names(b"2")
    assert {name for name in before if before[name] != after[name]} == {"a.js", "b.js", "c.js"}


def test_a_circle_of_names_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a\.js -> b\.js -> a\.js"):
        StaticFiles({"a.js": b'import "./b.js"', "b.js": b'import "./a.js"'})


async def test_everything_that_the_pages_name_may_be_held_for_ever(demo: Running) -> None:
    for path in ("/demo/", "/demo/rules", "/docs"):
        page = await get(demo, path)
        assert page.headers["cache-control"] == "no-cache", path
        held = re.sub(r"<a\s[^>]*>", "", page.text)  # another page is no part of this one
        named = re.findall(r'(?:src|href)="(?![#:]|data:|/openapi)([^"#][^"]*)"', held)
        assert named, path
        seen = [str(page.url.join(name).path) for name in named]
        while seen:
            url = seen.pop()
            file = await get(demo, url)
            assert file.status_code == 200, url
            assert file.headers["cache-control"] == FOR_EVER == IMMUTABLE, url
            assert hashlib.sha256(file.content).hexdigest()[:16] in url
            for name in re.findall(r'from\s*"\./([\w.-]+)"', file.text):
                seen.append(str(file.url.join(name).path))


async def test_the_demo_carries_the_snippet_with_its_integrity_and_key(demo: Running) -> None:
    page = (await get(demo, "/demo/")).text
    found = re.search(r'<script async src="([^"]+)" integrity="sha384-([^"]+)"[^>]*>', page)
    assert found is not None
    assert 'data-key="tw_collect_key"' in found[0]
    script = await get(demo, found[1])
    assert base64.b64encode(hashlib.sha384(script.content).digest()).decode() == found[2]
    assert "{{" not in page


@pytest.mark.parametrize("path", ["/demo/", "/demo/demo.js", "/docs", "/sdk/tillwise.js"])
async def test_what_a_browser_has_is_not_sent_again(demo: Running, path: str) -> None:
    plain = await get(demo, path)
    zipped = await get(demo, path, "gzip")
    assert plain.headers["etag"] != zipped.headers["etag"]
    for coding, one in (("", plain), ("gzip", zipped)):
        etag = one.headers["etag"]
        for held in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await get(demo, path, coding, **{"if-none-match": held})
            assert again.status_code == 304, held
            assert again.content == b""
            assert again.headers["etag"] == etag
            assert again.headers["cache-control"] == one.headers["cache-control"]
        changed = await get(demo, path, coding, **{"if-none-match": '"other"'})
        assert changed.content == one.content


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0, *;q=0", False),
        ("identity", False),
    ],
)
async def test_it_is_compressed_for_who_can_read_it(
    demo: Running, accepted: str, zipped: bool
) -> None:
    request = demo.client.build_request(
        "GET", "/demo/demo.css", headers={"accept-encoding": accepted}
    )
    answer = await demo.client.send(request, stream=True)
    raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["vary"] == "Accept-Encoding"
    assert (answer.headers.get("content-encoding") == "gzip") == zipped
    assert int(answer.headers["content-length"]) == len(raw)
    css = gzip.decompress(raw) if zipped else raw
    assert css == (WEB / "demo" / "demo.css").read_bytes()
    head = await demo.client.head("/demo/demo.css", headers={"accept-encoding": accepted})
    assert head.content == b""
    assert head.headers["content-length"] == answer.headers["content-length"]


@pytest.mark.parametrize("name", ["tillwise", "consent"])
async def test_the_snippet_is_served_to_every_shop(start: Start, name: str) -> None:
    running = await start(cors_origins=("https://shop.example",))
    every = (await get(running, "/sdk/integrity.json")).json()
    told = every if name == "tillwise" else every["consent.js"]
    for origin in ("https://shop.example", "https://other.example"):
        held = await get(running, told["src"], origin=origin)
        assert held.headers["cache-control"] == FOR_EVER
        assert held.headers["access-control-allow-origin"] in {"*", origin}
        assert held.headers["content-type"] == "text/javascript; charset=utf-8"
        assert held.headers["x-content-type-options"] == "nosniff"
    digest = base64.b64encode(hashlib.sha384(held.content).digest()).decode()
    assert told["integrity"] == f"sha384-{digest}"
    assert told["bytes"] == len(held.content)
    plain = await get(running, f"/sdk/{name}.js")
    assert plain.content == held.content == (WEB / "dist" / f"{name}.js").read_bytes()
    assert plain.headers["cache-control"] == "public, max-age=300"
    named = re.search(r"sourceMappingURL=(\S+)", held.text)
    assert named is not None
    assert (await get(running, f"/sdk/{named[1]}")).headers["cache-control"] == FOR_EVER
    types = await get(running, "/sdk/tillwise.d.ts")
    assert "export interface Tillwise" in types.text


@pytest.mark.parametrize("name", ["none.js", "tillwise.0123456789abcdef.js", "..%2fpyproject.toml"])
async def test_other_names_are_not_found_and_not_held(running: Running, name: str) -> None:
    answer = await get(running, f"/sdk/{name}")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"
