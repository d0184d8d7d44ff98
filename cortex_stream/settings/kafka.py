"""How this process lives in its Kafka cluster, and how it proves who it is."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from cortex_stream.errors import OperatorError
from cortex_stream.settings.section import Section


class KafkaSecurity(Section):
    """How clients prove who they are to Kafka."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Transport and authentication.", examples=["SASL_SSL"]
    )
    ca_file: Path | None = Field(
        None, description="CA certificates (PEM); the system's if unset.", examples=["/etc/ca.pem"]
    )
    cert_file: Path | None = Field(
        None, description="Client certificate (PEM) for mutual TLS.", examples=["/run/tls/tls.crt"]
    )
    key_file: Path | None = Field(
        None, description="Key of the client certificate (PEM).", examples=["/run/tls/tls.key"]
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism.", examples=["SCRAM-SHA-256"]
    )
    username: str | None = Field(None, description="SASL user.", examples=["cortex"])
    password: SecretStr | None = Field(None, description="SASL password.", examples=["…"])
    password_file: Path | None = Field(
        None, description="File that holds the SASL password.", examples=["/run/secrets/kafka"]
    )

    @field_validator(
        "ca_file", "cert_file", "key_file", "username", "password", "password_file", mode="before"
    )
    @classmethod
    def _given(cls, value: object) -> object:
        return None if value == "" else value  # compose passes on an unset variable as an empty one

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.protocol.startswith("SASL") and (
            self.username is None or (self.password is None and self.password_file is None)
        ):
            raise ValueError(
                f"protocol {self.protocol} needs username and password (or password_file)"
            )
        if not self.protocol.startswith("SASL") and (
            self.username or self.password or self.password_file
        ):
            raise ValueError(
                f"protocol {self.protocol} proves no user: leave username and password out, or set"
                " protocol to SASL_SSL or SASL_PLAINTEXT"
            )
        if not self.protocol.endswith("SSL") and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError(
                f"protocol {self.protocol} encrypts nothing: leave the certificates out, or set"
                " protocol to SSL or SASL_SSL"
            )
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file, the certificate that it is the key of")
        return self

    def sasl_password(self) -> str:
        """Return the password from its file or its variable."""
        if self.password_file is not None:
            try:
                return self.password_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise OperatorError(
                    f"reading the SASL password from {self.password_file}: {error}",
                    repair="mend CORTEX_KAFKA__SECURITY__PASSWORD_FILE",
                ) from error
        if self.password is None:
            raise OperatorError(
                "reading the SASL password: none is set",
                repair="export CORTEX_KAFKA__SECURITY__PASSWORD_FILE=…",
            )
        return self.password.get_secret_value()


class KafkaSettings(Section):
    """How this process lives in its Kafka cluster."""

    topic_prefix: str = Field(
        "",
        pattern=r"^[a-z0-9][a-z0-9-]*$|^$",
        description="Puts the whole system, topics and group, under `<prefix>.`.",
        examples=["staging"],
    )
    session_timeout_s: float = Field(
        10.0, ge=1, description="Kafka waits this long for a silent member.", examples=[6.0]
    )
    heartbeat_interval_s: float = Field(
        1.0, gt=0, description="Seconds between signs of life.", examples=[1.0]
    )
    commit_interval_s: float = Field(
        1.0,
        gt=0,
        description="Seconds between commits; shorter means fewer duplicates after a crash.",
        examples=[0.5],
    )
    drain_timeout_s: float = Field(
        5.0,
        gt=0,
        description="On revoke and stop, running work may take this long to finish.",
        examples=[3.0],
    )
    instance_id: str | None = Field(
        None,
        description="Static membership; must be unique per process, Kafka does not fence it.",
        examples=["worker-0"],
    )
    stall_timeout_s: float = Field(
        120.0,
        gt=0,
        description="A process in which something does not get on for so long ends, for its supervisor"
        " to start it again. More than a rebalance takes: drain_timeout_s and 15.",
        examples=[60.0],
    )
    profile: Literal["dev", "prod"] = Field(
        "dev",
        description="dev: 4 partitions a lane, replication 1. prod: 12 and 3, min.insync 2.",
        examples=["prod"],
    )
    security: KafkaSecurity = KafkaSecurity()
