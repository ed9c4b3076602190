"""Everything about a gateway that a deployment may change, read from the environment.

Each field is the variable TILLWISE_<FIELD IN CAPITALS>; a flag of `tillwise-serve` wins over it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import UserError

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """The settings of one gateway process."""

    model_config = SettingsConfigDict(env_prefix="TILLWISE_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=1, le=65_535, description="Port to listen on.")] = 8080
    releases: Path = Field(Path("releases"), description="Folder of releases and `current`.")
    models: Path = Field(Path("model_repository"), description="Folder of the exported models.")
    state: Path = Field(
        Path("state"), description="Folder of the event log, the control store and snapshots."
    )
    cors_origins: tuple[str, ...] = Field(
        (), description='Origins that browsers may call from, as JSON: ["https://shop.example"].'
    )
    body_limit_bytes: Positive = Field(1_048_576, description="Largest request body.")
    max_full_decisions: Positive = Field(
        4,
        description="Decisions at once that may use the models; more get a cheaper rung. This "
        "number times the work of one (about 8 ms) must stay well below the usual deadline "
        "(100 ms), or none of them ends in time.",
    )
    max_total_decisions: Positive = Field(
        32, description="Decisions at once in all; more are answered 429."
    )
    identity_wait_ms: Positive = Field(
        20, description="Longest wait of a decision for the record of a new subject."
    )
    impression_queue: Positive = Field(
        4_096, description="Impressions waiting to be logged; more are lost and counted."
    )
    snapshot_minutes: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Time between two snapshots of the feature state."
    )
    release_poll_seconds: Annotated[float, Field(gt=0)] = Field(
        0.5, description="How often `releases/current` is looked at."
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
    otlp_endpoint: str | None = Field(
        None, description="Where traces go (OTLP over HTTP); no tracing without it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )


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
