"""Everything about a gateway that a deployment may change, read from the environment.

Each field is the variable TILLWISE_<FIELD IN CAPITALS>; a flag of `tillwise-serve` wins over it.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, IPvAnyNetwork, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import UserError
from contract.zones import Zone
from serving.decision.delicate import DELICATE
from serving.retention import Retention
from serving.tls import TlsSettings

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseSettings):
    """The settings of one gateway process."""

    model_config = SettingsConfigDict(env_prefix="TILLWISE_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=1, le=65_535, description="Port to listen on.")] = 8080
    releases: Path = Field(Path("releases"), description="Folder of releases and `current`.")
    release_store: str | None = Field(
        None,
        description="Where releases are pushed to and pulled from: s3://bucket/prefix, gs://, "
        "az:// or file:///folder. Credentials come from the environment, as AWS_ACCESS_KEY_ID, "
        "and so does an authority of one's own for its TLS: SSL_CERT_FILE.",
    )
    models: Path = Field(Path("model_repository"), description="Folder of the exported models.")
    state: Path = Field(
        Path("state"), description="Folder of the event log, the control store and snapshots."
    )
    event_log: str = Field(
        "sqlite",
        description="`sqlite` (a file in the state folder), or a topic: "
        "kafka://host:9092,host:9092/topic, kafkas:// over TLS.",
    )
    kafka_user: str | None = Field(None, description="For SASL (SCRAM-SHA-512).")
    kafka_password: str | None = Field(None, repr=False, description="Of `kafka_user`.")
    kafka_tls: TlsSettings = Field(
        default_factory=TlsSettings.model_construct, description="For kafkas://, as JSON."
    )
    feature_store: str = Field(
        "memory",
        description="`memory` (of this process), or shared by several gateways: "
        "valkey://host:6379/0, valkey+cluster://host:6379, valkeys over TLS.",
    )
    valkey_user: str | None = Field(None, description="A user of Valkey's access lists.")
    valkey_password: str | None = Field(None, repr=False, description="Of the Valkey server.")
    valkey_tls: TlsSettings = Field(
        default_factory=TlsSettings.model_construct, description="For valkeys://, as JSON."
    )
    control_store: str = Field(
        "sqlite",
        description="Subjects, consent, keys and what is said of items: `sqlite` (a file in the "
        "state folder), or shared by several gateways: postgresql://host:5432/database, "
        "postgresqls:// over TLS; `?schema=name` for a schema of its own.",
    )
    postgres_user: str | None = Field(None, description="It must own the tables, or the schema.")
    postgres_password: str | None = Field(None, repr=False, description="Of `postgres_user`.")
    postgres_tls: TlsSettings = Field(
        default_factory=TlsSettings.model_construct, description="For postgresqls://, as JSON."
    )
    cors_origins: tuple[str, ...] = Field(
        (), description='Origins that browsers may call from, as JSON: ["https://shop.example"].'
    )
    body_limit_bytes: Positive = Field(1_048_576, description="Largest request body.")
    arrival_seconds: Annotated[float, Field(gt=0)] = Field(
        20.0,
        description="How long a request may take to arrive, its head and then its body: 408. A "
        "connection that is never used is closed after the same time.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        ("127.0.0.1",),
        description="Addresses and networks whose X-Forwarded-For is believed, as JSON.",
    )
    internal_networks: tuple[IPvAnyNetwork, ...] = Field(
        (), description="The shop's own networks, as JSON: what their browsers do is not stored."
    )
    page_requests_per_minute: Positive = Field(
        600,
        description="Requests from one address (of IPv6: one /64) with a collect key or a page's "
        "token. Each gateway counts these three limits for itself.",
    )
    page_events_per_minute: Positive = Field(
        600, description="Events of one visitor with a collect key; nobody does more by hand."
    )
    page_new_visitors_per_minute: Positive = Field(
        120,
        description="Visitors from one address that a collect key or a page's token may make "
        "subjects of; a batch names up to 500, and each stays for as long as subjects are kept. "
        "Of more nothing is stored, and their decisions are generic.",
    )
    max_full_decisions: Positive = Field(
        12,
        description="Decisions at once that may use the models, as far as they are expected to be "
        "done in time; more get a cheaper rung.",
    )
    max_total_decisions: Positive = Field(
        64, description="Decisions at once in all; more are answered 429."
    )
    query_vectors: Annotated[int, Field(ge=0)] = Field(
        16_384,
        description="Query vectors held per release, for inputs that come again; 0: none.",
    )
    list_diversity: Share = Field(
        0.0,
        description="What likeness to the items shown before it counts against an item's "
        "relevance; 0: nothing.",
    )
    list_category_cap: Annotated[int, Field(ge=0)] = Field(
        0,
        description="At most so many items of one category (the two widest levels of its path) in "
        "a list, while others are left; 0: no cap.",
    )
    list_margin: Share = Field(
        0.0,
        description="What one more of the mean margin is worth, as a share of the best item's "
        "relevance; 0: nothing. An item without a cost counts as the shop's mean.",
    )
    list_most_loss: Share = Field(
        0.1,
        description="The share of relevance that diversity and margin may give up at each place.",
    )
    explore_share: Share = Field(
        0.0,
        description="How often the last places of a list show something else that is nearly as "
        "relevant, drawn with chances that are logged, so that the next model learns from it; for "
        "who agreed to personalization and analytics alone; 0: never.",
    )
    explore_slots: Annotated[int, Field(ge=1, le=4)] = Field(
        1, description="How many of the last places; the first is never drawn."
    )
    explore_most_loss: Share = Field(
        0.5, description="The share of its usual relevance that a drawn place may give up."
    )
    feedback_days: Annotated[float, Field(ge=0)] = Field(
        90.0,
        description="How long an item is not suggested to who said that it is not for them, hid it "
        "or brought it back, unless they buy it again; 0: that is not looked at.",
    )
    delicate_categories: tuple[str, ...] = Field(
        DELICATE,
        description="Words, as JSON: an item in a category with one of them in its name is not "
        "named in reasons. By default English words of what somebody takes for their health or "
        "their body; []: everything is named.",
    )
    texts: Path | None = Field(
        None,
        description="A YAML file with the sentences of reasons in the shop's language; "
        "docs/texts.de.yaml is one.",
    )
    identity_wait_ms: Positive = Field(
        20, description="Longest wait of a decision for the record of a new subject."
    )
    offer_minutes: Annotated[float, Field(gt=0, le=24 * 60)] = Field(
        30.0, description="How long an offer that a decision shows may be taken up."
    )
    reservation_minutes: Annotated[float, Field(gt=0, le=24 * 60)] = Field(
        15.0, description="How long a reserved offer is held for its checkout."
    )
    voucherify_url: str | None = Field(
        None,
        description="A coupon system that speaks Voucherify's HTTP API, https://api.voucherify.io: "
        "it is told of reservations and redemptions of offers with an `external_code`.",
    )
    voucherify_app_id: str = Field("", description="The application's id there.")
    voucherify_app_token: str = Field("", repr=False, description="Its secret.")
    review_webhook_url: str | None = Field(
        None,
        description="An https address that is told of review items: POST, JSON, signed as "
        "standardwebhooks.com has it.",
    )
    review_webhook_secret: str = Field(
        "", repr=False, description="What is signed with: 24 to 64 random bytes in base64."
    )
    impression_queue: Positive = Field(
        4_096, description="Impressions waiting to be logged; more are lost and counted."
    )
    snapshot_minutes: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Time between two snapshots of the feature state."
    )
    release_poll_seconds: Annotated[float, Field(gt=0)] = Field(
        0.5, description="How often `releases/current` and `releases/rollout.json` are looked at."
    )
    release_healthy_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0,
        description="How long a release is live, with nothing said against it, before it is "
        "remembered as healthy: a start falls back on it when `current` can not be served.",
    )
    guard: bool = Field(
        True,
        description="Compare a promoted release with the one before it, and one on trial with the "
        "live one, and roll back by itself what does worse.",
    )
    guard_window_seconds: Annotated[float, Field(gt=0)] = Field(
        600.0, description="The latest decisions that the guard compares."
    )
    guard_min_decisions: Annotated[int, Field(ge=50)] = Field(
        300, description="Decisions of each of the two before the guard says anything."
    )
    guard_watch_seconds: Annotated[float, Field(ge=0)] = Field(
        1_800.0, description="How long a promoted release is compared with the one before it."
    )
    guard_error_share: Share = Field(
        0.01, description="More decisions with a failed stage, as a share, than this: rolled back."
    )
    guard_p99_ratio: Annotated[float, Field(ge=1)] = Field(
        1.5, description="p99 above the other's p99 times this: rolled back."
    )
    guard_full_share: Share = Field(
        0.05, description="Fewer decisions on rung `full`, as a share, than this: rolled back."
    )
    guard_score_psi: Annotated[float, Field(gt=0)] = Field(
        0.25,
        description="Population stability index of the best suggestion's lead over the mean of "
        "those shown, above this: rolled back.",
    )
    triton_url: str | None = Field(
        None,
        description="A Triton server's gRPC address, grpc://triton:8001: the models run there. "
        "Without it they run in this process.",
    )
    triton_control: bool = Field(
        True,
        description="Whether to ask that server to load missing versions and to load broken models "
        "anew. It must run with --model-control-mode=explicit for that.",
    )
    timezone: Zone = Field(
        "UTC",
        description="The shop's time zone, such as Europe/Berlin: of the hours and days of the "
        "week that alarms over key figures have learned.",
    )
    worker: bool = Field(
        False,
        description="Whether `run` starts the worker too, as a process beside it: for one machine. "
        "Off where something else starts one, as Kubernetes does.",
    )
    worker_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        9464, description="Where that worker answers /metrics and /healthz, on 127.0.0.1; 0: any."
    )
    shutdown_seconds: Positive = Field(
        20, description="How long running requests may take to finish after SIGTERM."
    )
    master_key: str | None = Field(
        None,
        repr=False,
        description="32 bytes in base64, from which all other keys are derived; several separated "
        "by commas, the newest first, while keys are rotated. Without it a file in the state "
        "folder is used, created on the first start.",
    )
    master_key_file: Path | None = Field(
        None,
        description="A file with the same, one key a line, instead of the one in the state folder: "
        "a backup of the state is then of no use to whoever finds it.",
    )
    retention: Retention = Field(
        Retention(),
        description="How long each kind of data is kept, in days, as JSON: "
        '{"behaviour": 395, "decisions": 395, "subjects": 395, "exports": 90, "audit": 1095}.',
    )
    triton_tls: TlsSettings | None = Field(
        None,
        description='TLS towards the Triton server, as JSON: {"ca": FILE, "cert": FILE, "key": '
        'FILE, "server_name": NAME}; {} trusts the system\'s authorities.',
    )
    otlp_endpoint: str | None = Field(
        None, description="Where traces go (OTLP over HTTP); no tracing without it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )


def mistaken(environment: Mapping[str, str]) -> list[str]:
    """A line for every variable that looks like a setting and is none: a misspelt one would leave
    its default in force, and nobody would know."""
    prefix = str(Settings.model_config["env_prefix"])
    known = [prefix + name.upper() for name in Settings.model_fields]
    lines = []
    for name in sorted(environment):
        # What Kubernetes says of services that are called tillwise-... is no mistake.
        told = "_SERVICE_" in name or "tcp://" in environment[name] or "_PORT_" in name
        if not name.startswith(prefix) or name in known or told:
            continue
        near = get_close_matches(name, known, 1, 0.8)
        meant = f"; did you mean {near[0]}?" if near else "; see `tillwise-serve settings`"
        lines.append(f"{name} is no setting{meant}")
    return lines


def load_settings(**flags: object) -> Settings:
    """The environment's settings with every flag that is not None laid over them.

    Raises UserError naming the variable that is wrong.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise UserError(f"setting TILLWISE_{name}: {first['msg']}") from None
    except ValueError as error:  # a value that pydantic-settings could not read as JSON
        raise UserError(f"settings: {error}") from None
