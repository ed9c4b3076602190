"""A gateway on one core for `benchmarks.ingest`; `--plain` writes the event log unencrypted, which
no gateway does: so the same process shows what encryption costs."""

import argparse
import os
from pathlib import Path

from contract.clock import SystemClock
from serving.api.gateway import Gateway
from serving.commands.process import Application, serve
from serving.settings import load_settings
from serving.state.event_log import SqliteEventLog
from serving.state.records import PlainCodec


async def _unencrypted(app: Application, gateway: Gateway) -> None:
    assert isinstance(gateway.event_log, SqliteEventLog)
    gateway.event_log._codec = PlainCodec()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--plain", action="store_true")
    for name in ("releases", "models", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    settings = load_settings(
        host="127.0.0.1",
        port=args.port,
        releases=args.releases,
        models=args.models,
        state=args.state,
        body_limit_bytes=4 << 20,
    )
    serve(settings, SystemClock(), extend=_unencrypted if args.plain else None)


if __name__ == "__main__":
    main()
