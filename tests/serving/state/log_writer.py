"""Run as a process by the kill test: appends events and prints each id once it was answered."""

import asyncio
import sys
from pathlib import Path
from uuid import uuid4

from serving.state.event_log import SqliteEventLog
from tests.serving.state.events import stored_event


async def write(path: Path) -> None:
    """Append from several tasks until the process is killed."""
    log = SqliteEventLog(path)

    async def one_after_another() -> None:
        while True:
            events = [stored_event(n, event_id=uuid4()) for n in range(3)]
            await log.append(events)
            # One write call a batch: a line is whole or absent even when the process is killed.
            sys.stdout.write("".join(f"{event.event_id}\n" for event in events))
            sys.stdout.flush()

    await asyncio.gather(*(one_after_another() for _ in range(4)))


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
