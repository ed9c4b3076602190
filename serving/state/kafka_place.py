"""Where a Kafka topic is, out of a URL and settings, and what every client of ours is told."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Message

from contract.errors import UserError

log = logging.getLogger(__name__)

EVENT_ID = "event_id"  # the header that tells events from probes
SCHEMES = ("kafka", "kafkas")
DEFAULT_TOPIC = "tillwise-events"


@dataclass(frozen=True)
class KafkaPlace:
    """A topic on some brokers; `security` is librdkafka's own words for TLS and SASL."""

    brokers: str  # host:port, separated by commas
    topic: str
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def log_id(self) -> str:
        """A name for the topic, wherever the gateway is."""
        return f"kafka:{self.topic}"

    def client(self, **settings: Any) -> dict[str, Any]:
        """Settings of a client, with `settings` by their names with underscores for dots."""
        named = {name.replace("_", "."): value for name, value in settings.items()}
        return {
            "bootstrap.servers": self.brokers,
            "client.id": "tillwise",
            "socket.keepalive.enable": True,
            # Found again quickly after an outage.
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "logger": log,
            **self.security,
            **named,
        }


def kafka_place(
    url: str,
    *,
    user: str | None = None,
    password: str | None = None,
    tls: Mapping[str, Any] | None = None,
) -> KafkaPlace:
    """kafka://host:9092,host:9092/topic, or kafkas:// over TLS with `tls`, in librdkafka's words.

    Raises UserError when it is no such URL.
    """
    parts = urlsplit(url)
    brokers, topic = parts.netloc, parts.path.strip("/") or DEFAULT_TOPIC
    if parts.scheme not in SCHEMES or not brokers or "@" in brokers or "/" in topic:
        raise UserError("event log: write kafka://host:9092,host:9092/topic, or kafkas:// for TLS")
    security: dict[str, Any] = {}
    if parts.scheme == "kafkas":
        security = dict(tls or {}) | {"security.protocol": "ssl"}
    if user is not None:
        security |= {
            "security.protocol": "sasl_ssl" if security else "sasl_plaintext",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password or "",
        }
    return KafkaPlace(brokers, topic, security)


def event_id_of(message: Message) -> bytes | None:
    """The id of the event in `message`; None when it holds none, as a probe."""
    headers = message.headers()
    named = dict(headers) if isinstance(headers, list) else {}
    value = named.get(EVENT_ID)
    return value if isinstance(value, bytes) else None
