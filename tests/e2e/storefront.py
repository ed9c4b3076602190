"""A shop that embeds the snippet: another origin than the gateway's, and a strict policy."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from playwright.sync_api import Page, Request

from contract.events import Event
from tests.e2e.shop import Demo

ALL = {"personalization": True, "analytics": True, "offers": True}
NO = {"personalization": False, "analytics": False}
AT_MOST_S = 10.0

HEAD = """<!doctype html><title>Shop</title><link rel="stylesheet" href="/shop.css">
<link rel="icon" href="data:,"><script src="/shop.js"></script>"""
BODY = """
<form id="find"><input type="search" name="q"></form>
<ul>
  <li id="milk" data-tillwise-item="item-1" data-tillwise-price="1.01" data-tillwise-index="0">
    <a id="more" href="#milk">Milk</a>
    <button id="buy" data-tillwise-event="add_to_cart">Add</button>
  </li>
  <li id="bread" data-tillwise-item="item-2"><span>Bread</span></li>
</ul>
<p id="text">Nothing to click on</p>
<div id="far"></div>
"""
STYLE = "body { font: 20px sans-serif } li { padding: 20px } #far { height: 4000px }"


class ShopServer:
    """The shop's own server. A browser takes localhost for a secure context, as it does https://,
    and for another origin than the gateway's 127.0.0.1."""

    def __init__(self) -> None:
        shown: dict[str, tuple[str, str]] = {"/shop.css": ("text/css", STYLE)}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                kind, body = shown.get(path, ("text/plain", ""))
                self.send_response(200 if path in shown else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Cache-Control", "no-store")
                if kind == "text/html":
                    self.send_header("Content-Security-Policy", shown["policy"][0])
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.shown = shown
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "ShopServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Storefront:
    """One browser page in the shop, and what it asked the gateway."""

    page: Page
    demo: Demo
    server: ShopServer
    before: str = ""  # what the shop's own script does before the snippet is there
    platform: str = ""  # who asks for consent, as `/sdk/consent.js` names it
    asked: list[Request] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))

    def open(self, path: str = "/shop", **attributes: str) -> None:
        """Show a page, whose snippet runs."""
        self.show(path, **attributes)
        self.until("typeof window.tillwise?.ids === 'function'")

    def show(self, path: str = "/shop", *, wait_until: Any = "load", **attributes: str) -> None:
        """Show a page, whatever becomes of its snippet."""
        allowed, shown = self.demo.url, self.server.shown
        policy = (
            f"default-src 'none'; script-src 'self' {allowed}; style-src 'self'; img-src data:; "
            f"connect-src {allowed}; require-trusted-types-for 'script'; trusted-types 'none'"
        )
        shown["policy"] = (policy, "")
        shown["/shop.js"] = ("text/javascript", self.before)
        shown["/shop"] = ("text/html", HEAD + self._tag(attributes) + BODY)
        self.page.goto(f"{self.server.origin}{path}", wait_until=wait_until)

    def say(self, script: str, argument: Any = None) -> Any:
        """Run the shop's own script."""
        return self.page.evaluate(script, argument)

    def until(self, condition: str) -> None:
        """Wait for what the page says. (Playwright's own way of waiting needs a policy that is less
        strict than the shop's.)"""
        until = time.monotonic() + AT_MOST_S
        while not self.say(condition):
            assert time.monotonic() < until, condition
            self.page.wait_for_timeout(50)

    def consent(self, purposes: dict[str, bool] | None = None) -> None:
        """The shopper's word."""
        said = ALL if purposes is None else purposes
        self.say("said => window.tillwise.push(['consent', said])", said)

    def push(self, name: str, **ecommerce: Any) -> None:
        """The shop's own measurement, in the form of Google Tag Manager."""
        self.say(
            "one => (window.dataLayer ||= []).push(one)", {"event": name, "ecommerce": ecommerce}
        )

    @property
    def session(self) -> str:
        """The session of this moment."""
        session: str = self.say("window.tillwise.ids().session_id")
        return session

    def storage(self) -> dict[str, str]:
        """All that is stored in this browser for the shop."""
        stored: dict[str, str] = self.say("({...localStorage, ...sessionStorage})")
        return stored | {one["name"]: one["value"] for one in self.page.context.cookies()}

    def wait(self, session: str, enough: Callable[[list[Event]], bool]) -> list[Event]:
        """The events of a session in the log, once there are enough."""
        until = time.monotonic() + AT_MOST_S
        while not enough(found := self.demo.events(session)):
            assert time.monotonic() < until, [one.event_name for one in found]
            self.page.wait_for_timeout(100)
        return found

    def _note(self, request: Request) -> None:
        if request.url.startswith(self.demo.url) and "/sdk/" not in request.url:
            self.asked.append(request)

    def _tag(self, more: dict[str, str]) -> str:
        told = snippet_of(self.demo.url)
        attributes = {
            "src": f"{self.demo.url}{told['src']}",
            "integrity": told["integrity"],
            "data-key": self.demo.key("collect"),
            "data-currency": "USD",
        } | {name.replace("_", "-"): value for name, value in more.items()}
        tag = _script(attributes)
        if self.platform:
            brought = told["consent.js"]
            tag += _script(
                {
                    "src": f"{self.demo.url}{brought['src']}",
                    "integrity": brought["integrity"],
                    "data-platform": self.platform,
                }
            )
        return tag


def _script(attributes: dict[str, str]) -> str:
    written = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f'<script async crossorigin="anonymous" {written}></script>'


def snippet_of(url: str) -> dict[str, Any]:
    """What the gateway says to embed; the last word of it, when it is down."""
    with contextlib.suppress(httpx.HTTPError):
        _told[url] = httpx.get(f"{url}/sdk/integrity.json", trust_env=False).json()
    return _told[url]


_told: dict[str, dict[str, Any]] = {}


def bodies(requests: list[Request]) -> Iterator[dict[str, Any]]:
    """The events that were sent, one by one."""
    for request in requests:
        if "/v1/events" in request.url and request.method == "POST":
            yield from json.loads(request.post_data or "{}")["events"]
