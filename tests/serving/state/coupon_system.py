"""A coupon system of its own that speaks Voucherify's HTTP API over real sockets, and misbehaves on
request: slow, 500, an answer that is lost after the deed, or that is none, a limit of its own."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

# Answered after the deed, in place of what is right.
_ODD: dict[str, Any] = {
    "nameless": {"redemptions": [{"result": "SUCCESS"}]},
    "odd": {"redemptions": "r_1"},
    "empty": {},
}


class CouponSystem:
    """Sessions by (code, key), redemptions by id; `faults` are used up one for each request."""

    def __init__(self) -> None:
        self.sessions: set[tuple[str, str]] = set()
        self.redemptions: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.refuses: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.url = ""

    def act(self, method: str, path: str, query: Any, body: Any) -> tuple[int, dict[str, Any]]:
        """Do it, and what is answered."""
        parts = path.strip("/").split("/")
        with self.lock:
            self.asked[f"{method} {parts[1]}{' rollback' * path.endswith('/rollback')}"] += 1
            if path == "/v1/validations":
                code, key = body["redeemables"][0]["id"], body["session"]["key"]
                if code in self.refuses:
                    return 400, {"key": "quantity_exceeded"}
                self.sessions.add((code, key))
                return 200, {"valid": True, "session": body["session"]}
            if path == "/v1/redemptions" and method == "GET":
                (wanted,) = query["filters[metadata.reservation_id][conditions][$is]"]
                found = [
                    one
                    for one in self.redemptions.values()
                    if one["metadata"]["reservation_id"] == wanted
                ]
                return 200, {"object": "list", "redemptions": found}
            if path == "/v1/redemptions":
                return self._redeem(body)
            if method == "DELETE":
                self.sessions.discard((parts[2], parts[4]))
                return 204, {}
            one = self.redemptions.get(parts[2])
            if one is None:
                return 404, {"key": "not_found"}
            if one["rolled_back"]:
                return 400, {"key": "already_rolled_back"}
            one["rolled_back"] = True
            return 200, {"id": f"rr_{uuid4().hex}", "result": "SUCCESS"}

    def _redeem(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        code, key = body["redeemables"][0]["id"], body["session"]["key"]
        if code in self.refuses:
            return 400, {"key": "quantity_exceeded"}
        self.sessions.discard((code, key))
        made = {
            "id": f"r_{uuid4().hex}",
            "result": "SUCCESS",
            "metadata": body["metadata"],
            "order": body["order"],
            "rolled_back": False,
        }
        self.redemptions[made["id"]] = made
        return 200, {"redemptions": [made]}


@contextmanager
def coupon_system() -> Iterator[CouponSystem]:
    """A running one."""
    system = CouponSystem()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return None

        def _serve(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(size)
            if self.headers.get("x-app-id") != "app" or self.headers.get("x-app-token") != "token":
                return self._answer(401, {"key": "unauthorized"})
            fault = system.faults.pop(0) if system.faults else ""
            if fault.isdigit():
                return self._answer(int(fault), {"key": "internal"})
            place = urlsplit(self.path)
            told = system.act(
                self.command, place.path, parse_qs(place.query), json.loads(raw or b"null")
            )
            if fault == "lost":  # done, and nobody hears of it
                self.close_connection = True
                return None
            if fault == "slow":
                time.sleep(1.0)
            if fault == "garbage":
                return self._answer(200, None)
            if fault in _ODD:
                return self._answer(200, _ODD[fault])
            if fault in ("drip", "endless"):
                return self._pour(b" " if fault == "drip" else b" " * (1 << 20))
            return self._answer(*told)

        def _answer(self, status: int, told: Any) -> None:
            raw = b"<html>" if told is None else json.dumps(told).encode()
            raw = b"" if status == 204 else raw
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            try:
                self.wfile.write(raw)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _pour(self, piece: bytes) -> None:
            """An answer that goes on until nobody listens any more."""
            self.close_connection = True
            self.send_response(200)
            self.send_header("content-length", str(1 << 40))
            self.end_headers()
            try:
                while True:
                    self.wfile.write(piece)
                    time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError):
                return

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the library's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    system.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield system
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
