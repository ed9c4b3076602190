"""TLS for the connections that a gateway opens: one shape of settings for all of them."""

import ssl
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.errors import UserError


class TlsSettings(BaseModel):
    """How a server proves itself and, where it asks, how we do. Files are PEM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca: Path | None = Field(
        None, description="Whom to trust; without it, the system's authorities."
    )
    cert: Path | None = Field(None, description="Our own certificate, for mutual TLS.")
    key: Path | None = Field(None, description="The private key of `cert`.")
    server_name: str | None = Field(
        None, description="The name that the server's certificate must have, where not the host's."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together")
        for name in ("ca", "cert", "key"):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: there is no file {path}")
        return self

    def context(self) -> ssl.SSLContext:
        """For clients that take Python's own context. Raises UserError."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (ssl.SSLError, OSError) as error:
            raise UserError(f"TLS settings: {error.strerror or error}") from None
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """CA, key and certificate as bytes, for gRPC. Raises UserError."""
        self.context()  # says clearly what gRPC would only log
        ca, key, cert = (
            None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert)
        )
        return ca, key, cert

    def grpc_options(self) -> tuple[tuple[str, str], ...]:
        """Channel options that belong to these settings."""
        if self.server_name is None:
            return ()
        return (
            ("grpc.ssl_target_name_override", self.server_name),
            ("grpc.default_authority", self.server_name),
        )

    def kafka(self) -> dict[str, Any]:
        """For librdkafka, beside its `security.protocol`."""
        if self.server_name is not None:
            raise UserError(
                "TLS settings: Kafka checks the broker's own name; leave server_name out"
            )
        named = {
            "ssl.ca.location": self.ca,
            "ssl.certificate.location": self.cert,
            "ssl.key.location": self.key,
        }
        return {
            "security.protocol": "ssl",
            "ssl.endpoint.identification.algorithm": "https",
            **{name: str(path) for name, path in named.items() if path is not None},
        }

    def valkey(self) -> dict[str, Any]:
        """For redis-py and valkey-py."""
        if self.server_name is not None:
            raise UserError("TLS settings: Valkey checks the host's name; leave server_name out")
        named = {"ssl_ca_certs": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key}
        return {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            **{name: str(path) for name, path in named.items() if path is not None},
        }

    def postgresql(self) -> dict[str, str]:
        """For libpq and what speaks its words. Without a CA the system's are trusted (libpq 16)."""
        if self.server_name is not None:
            raise UserError(
                "TLS settings: PostgreSQL checks the host's name; leave server_name out"
            )
        named = {"sslcert": self.cert, "sslkey": self.key}
        return {
            "sslmode": "verify-full",
            "sslrootcert": "system" if self.ca is None else str(self.ca),
            **{name: str(path) for name, path in named.items() if path is not None},
        }
