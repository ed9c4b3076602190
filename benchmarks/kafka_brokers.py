"""Three Kafka brokers as a process of their own: librdkafka's mock cluster, which speaks the real
protocol (groups, idempotent producers) and keeps everything in memory. Prints their addresses and
runs until its standard input ends."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer

from contract.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def brokers() -> Iterator[str]:
    """The addresses of running brokers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kafka_brokers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        addresses = process.stdout.readline().strip()
        if not addresses:
            raise UserError("the brokers did not start")
        yield addresses
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def main() -> None:
    """Serve."""
    holder = Producer({"test.mock.num.brokers": 3})
    found = holder.list_topics(timeout=10).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in found), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
