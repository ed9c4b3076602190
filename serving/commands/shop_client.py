"""The shop's own server as the demo plays it: it calls the gateway over HTTP with its key."""

import http.client
import json
import threading
from typing import Any

_TIMEOUT_S = 30.0


class ShopClient:
    """Calls routes of the gateway at `host`:`port`; each thread keeps a connection of its own."""

    def __init__(self, host: str, port: int, api_key: str) -> None:
        self._place = (host, port)
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
        }
        self._held = threading.local()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer. Raises OSError: ConnectionError where the gateway refuses."""
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As `post`, by any method."""
        connection = getattr(self._held, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(*self._place, timeout=_TIMEOUT_S)
            self._held.connection = connection
        connection.request(method, path, json.dumps(body).encode(), self._headers)
        answer = connection.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
        if answer.status >= 400:
            raise ConnectionError(f"{path}: {said.get('detail', answer.status)}")
        return said
