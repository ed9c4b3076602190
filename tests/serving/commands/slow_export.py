"""Run as a process by the kill test: an export in small rounds."""

import sys
from pathlib import Path

from serving.state.event_log import SqliteEventLog
from serving.state.parquet_parts import export, open_parts
from serving.state.state_folder import EVENTS

if __name__ == "__main__":
    root = Path(sys.argv[1])
    log = SqliteEventLog(root / "state" / EVENTS)
    with open_parts(root / "data", log.log_id) as parts:
        print("began", flush=True)
        export(log, parts, at_once=100)
    log.close()
