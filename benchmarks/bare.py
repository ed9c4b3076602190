"""The control of latency figures: the least that a server can do, in a process of its own. It reads
the request and answers fixed bytes of a decision's size: what it takes is the machine's share."""

import argparse
import sys
from collections.abc import Sequence

import uvicorn
from starlette.types import Receive, Scope, Send

from benchmarks.checkouts import DECIDE

BODY = b'{"padding":"' + b"." * 1_500 + b'"}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(BODY)).encode()),
    ],
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers `BODY` to every request."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body", False):
        pass
    await send(_START)
    await send({"type": "http.response.body", "body": BODY})


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare", description=f"{DECIDE}'s")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args(argv)
    uvicorn.run(app, port=args.port, loop="uvloop", lifespan="off", log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
