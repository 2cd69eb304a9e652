"""Settings of everything that talks to Kafka: flag over environment over TOML file. The only reader of the environment.

Every field can be given as an environment variable `PRICETIDE_<FIELD>` (nested ones with `__`, for example
`PRICETIDE_SEMANTICS__CONSENT_DEFAULT=false`) or in a TOML file (`--config`, or PRICETIDE_CONFIG). Secrets are never printed.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from contracts.errors import BadSettings
from contracts.semantics import Semantics, Topology

CONFIG_VARIABLE = "PRICETIDE_CONFIG"
REBALANCE_TIMEOUT_S = 60.0
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]]+)(:\d{1,5})?")
_UNSET_HINTS = {
    "semantics.consent_default": "say whether users who never gave or withdrew consent get personal prices: "
    "set semantics.consent_default to true or false",
}
_PROBLEMS = {"extra_forbidden": "there is no such setting; docs/operations.md has them"}
"""By pydantic's type of problem, where its own words do not say what to do."""


@contextmanager
def _readable(setting: str, *files: Path | None) -> Iterator[None]:
    """Turn what reading the `files` of `setting` raises into BadSettings."""
    try:
        yield
    except (OSError, ValueError) as error:  # SSLError is an OSError
        names = " and ".join(str(file) for file in files if file is not None)
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text"
        raise BadSettings(
            f"Settings: {setting}: {names} cannot be used ({reason}): correct the path, or the file"
        ) from None


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Group):
    """How to reach the broker."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    """Read instead of `sasl_password` when given: secrets by file."""
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_key_password: SecretStr | None = None
    request_timeout_ms: Annotated[int, Field(ge=1_000)] = 30_000
    compression: Literal["gzip", "lz4", "snappy", "zstd"] | None = None
    """Of what is published."""
    fetch_max_wait_ms: Annotated[int, Field(ge=1)] = 500
    """How long a broker may hold back an empty fetch. Kafka answers as soon as there is a record; a mock answers at the end."""
    check_crcs: bool = True
    """Verify the checksum of every batch read. The demo's mock broker writes transaction markers without one."""
    broker_version: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    """Kafka version that kafka-python assumes instead of asking, for a broker that cannot say, like the demo's ("2.0")."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_are_addresses(cls, value: str) -> str:
        if not all(map(_SERVER.fullmatch, value.split(","))):
            raise ValueError(f"{value!r} is not HOST:PORT, or several of them with commas between")
        return value

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL"):
            if not self.sasl_username:
                raise ValueError("sasl_username is required with security_protocol " + self.security_protocol)
            if self.sasl_password is None and self.sasl_password_file is None:
                raise ValueError("sasl_password or sasl_password_file is required with " + self.security_protocol)
        return self

    @property
    def password(self) -> str | None:
        """The SASL password, from the file if one is named.

        Raises:
            BadSettings: the file cannot be read.
        """
        if self.sasl_password_file is not None:
            with _readable("kafka.sasl_password_file", self.sasl_password_file):
                return self.sasl_password_file.read_text().strip()
        return self.sasl_password.get_secret_value() if self.sasl_password else None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None for plain text.

        Raises:
            BadSettings: a certificate or key cannot be read, or is none.
        """
        if "SSL" not in self.security_protocol.replace("SASL_", ""):
            return None
        with _readable("kafka.ssl_ca_file", self.ssl_ca_file):
            context = ssl.create_default_context(cafile=str(self.ssl_ca_file) if self.ssl_ca_file else None)
        if self.ssl_cert_file:
            password = (
                self.ssl_key_password.get_secret_value() if self.ssl_key_password else ""
            )  # None would ask a terminal
            with _readable("kafka.ssl_cert_file and kafka.ssl_key_file", self.ssl_cert_file, self.ssl_key_file):
                context.load_cert_chain(
                    str(self.ssl_cert_file), str(self.ssl_key_file) if self.ssl_key_file else None, password
                )
        return context

    def client(self) -> dict[str, Any]:
        """Return the connection arguments that aiokafka and kafka-python share."""
        out: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "security_protocol": self.security_protocol,
        }
        context = self.ssl_context()
        if context is not None:
            out["ssl_context"] = context
        if self.security_protocol.startswith("SASL"):
            out |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.password,
            }
        return out

    def kafka_python(self) -> dict[str, Any]:
        """Return client() and what only kafka-python understands."""
        if self.broker_version is None:
            return self.client()
        return self.client() | {"api_version": tuple(int(part) for part in self.broker_version.split("."))}

    def consumer(self) -> dict[str, Any]:
        """Return client() and the arguments of every aiokafka consumer that reads records."""
        return self.client() | {"fetch_max_wait_ms": self.fetch_max_wait_ms, "check_crcs": self.check_crcs}


TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
"""What Kafka takes for one."""


class TopicSettings(_Group):
    """Topic names. Input kinds may share one topic; outputs and inputs have `partitions` partitions, references have one."""

    consents: TopicName = "consents"
    views: TopicName = "views"
    clicks: TopicName = "clicks"
    purchases: TopicName = "purchases"
    partitions: Annotated[int, Field(ge=1, le=4096)] = 4
    price_updates: TopicName = "price-updates"
    decisions: TopicName = "decisions"
    outcomes: TopicName = "outcomes"
    shadow_decisions: TopicName = "shadow-decisions"
    """What a shadow policy decides; nobody is charged by it."""
    dead_letters: TopicName = "dead-letters"
    changelog: TopicName = "pricetide-changelog"
    catalogue: TopicName = "catalogue"
    policies: TopicName = "policies"
    replication_factor: Annotated[int, Field(ge=1)] = 1
    decisions_retention_ms: Annotated[int, Field(ge=1)] = 90 * 86_400_000
    """Of outcomes and shadow decisions, too."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The topics on which a partition's transactions publish, under keys that begin with a user id."""
        return (self.price_updates, self.decisions, self.outcomes, self.shadow_decisions, self.dead_letters)

    @property
    def topology(self) -> Topology:
        """What of this decides bytes."""
        return Topology(
            partitions=self.partitions,
            consents=self.consents,
            views=self.views,
            clicks=self.clicks,
            purchases=self.purchases,
        )


class EncoderSettings(_Group):
    """The user transformer, without whose `model` prices are decided without one; and the text encoder, for people only."""

    model: Path | None = None
    """Directory of an artifact (`pricetide model export`), or a link to one. Another artifact under this name is taken up
    between two batches, without a restart."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """Where it runs; prices are equal byte for byte on the CPU only."""
    users_max: Annotated[int, Field(ge=64)] = 16_384
    """Users whose keys and values stay in memory, at 16 KiB each by default; others are rebuilt from their tokens."""
    poll_ms: Annotated[int, Field(ge=100)] = 5_000
    """How often `model` is looked at for another artifact, and the catalogue for texts that are new."""
    text: Path | None = None
    """Directory that `pricetide model text` wrote: items nearest in words to users and to search queries. No price reads it."""
    texts_per_second: Annotated[float, Field(gt=0.0, le=10_000.0)] = 10.0
    """Most new texts that a worker embeds, at about 10 ms of one core each, beside the events."""


class LearnerSettings(_Group):
    """How often a learner (`pricetide learn`) publishes what it has learned."""

    version_outcomes: Annotated[int, Field(ge=1, le=20_000)] = 5_000
    """Most outcomes between two versions; about as many are buffered, at 2 kB each."""
    version_seconds: Annotated[float, Field(gt=0.0, le=86_400.0)] = 300.0
    """Longest time from an outcome's arrival to the version that has gone past it."""
    keep_ms: Annotated[int, Field(ge=1)] | None = None
    """How long a version stays on the topic after the next one has come; None: a day longer than the decisions that name it."""


class Settings(BaseSettings):
    """Everything an operator sets."""

    model_config = SettingsConfigDict(env_prefix="PRICETIDE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    semantics: dict[str, Any] = Field(default_factory=dict)
    """Fields of contracts.semantics.Semantics; `consent_default` is required."""
    encoder: EncoderSettings = EncoderSettings()
    learner: LearnerSettings = LearnerSettings()
    group: Annotated[str, Field(min_length=1)] = "pricetide"
    """Consumer group, and the prefix of the transactional ids."""
    data_dir: Path = Path("data")
    """RocksDB and crash counts; one directory per worker."""
    host: str = "127.0.0.1"
    """Address the web server listens on, and part of this worker's name in the group."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 6066
    """Port of /livez, /readyz and /metrics; 0 takes any free one (it is logged)."""
    web_state: bool = False
    """Serve user state at /users/<id>: personal data, off unless asked for."""
    session_timeout_ms: Annotated[int, Field(ge=6_000)] = 10_000
    transaction_timeout_ms: Annotated[int, Field(ge=1_000)] = 20_000
    batch_max: Annotated[int, Field(ge=1, le=100_000)] = 8_192
    """Most events in a transaction, which only a backlog reaches: a user's state is then written once for more events."""
    buffer_max: Annotated[int, Field(ge=1)] = 8_192
    """Records buffered per topic and partition."""
    merge_grace_ms: Annotated[int, Field(ge=0)] = 20
    """How long an event waits for a topic that is at its end, in case something earlier is on its way."""
    liveness_ms: Annotated[int, Field(ge=1_000)] = 60_000
    """No commit for this long, with lag and a broker that answers, makes /livez fail; so does a rebalance that takes longer than
    this and rebalance_timeout_s."""
    dead_letter_bytes_max: Annotated[int, Field(ge=1_024, le=800_000)] = 800_000
    """A larger poison message is truncated in the dead letters, with its digest: it must fit into a record batch."""
    crashes_max: Annotated[int, Field(ge=1)] = 3
    """Crashes of one event before it is isolated to the dead letters."""
    block_cache_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """RocksDB block cache of the whole worker."""
    write_buffer_bytes: Annotated[int, Field(ge=1 << 20)] = 32 << 20
    """RocksDB memtable per partition; up to three at a time. Smaller ones flush and compact on the core that the events need."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flag over environment over TOML file."""
        path = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, path),) if path else ()
        return (init_settings, env_settings, *toml)

    @property
    def rebalance_timeout_s(self) -> float:
        """How long the group waits for a member to give up its partitions and join again; then it goes on without."""
        return max(REBALANCE_TIMEOUT_S, self.session_timeout_ms / 1000)

    @property
    def commit_timeout_s(self) -> float:
        """Longest wait for a transaction: by then the broker has aborted it, or is gone. The process ends and starts again."""
        return (self.transaction_timeout_ms + self.kafka.request_timeout_ms) / 1000

    @property
    def engine_semantics(self) -> Semantics:
        """The validated Semantics.

        Raises:
            BadSettings: a field is missing, unknown or out of range.
        """
        return _semantics_of(self.semantics)

    @property
    def outcome_window_ms(self) -> int:
        """Of the semantics, also where `consent_default` is not said. Raises as `engine_semantics`."""
        return _semantics_of({"consent_default": False} | self.semantics).outcome_window_ms


def _semantics_of(fields: dict[str, Any]) -> Semantics:
    try:
        return msgspec.convert(fields, Semantics, strict=False)
    except msgspec.ValidationError as error:
        hint = _UNSET_HINTS["semantics.consent_default"] if "consent_default" in str(error) else "correct it"
        raise BadSettings(f"Settings: semantics: {error}; {hint}") from None


def load_settings(config: Path | None = None, **flags: Any) -> Settings:  # noqa: ANN401 - click hands over any type
    """Return the settings; `flags` are dotted names (`kafka.bootstrap_servers`) with values, None meaning not given.

    Raises:
        BadSettings: what is wrong, where it was set, and what to do. Never shows a secret.
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise BadSettings(f"There is no settings file {path!r}: correct --config or {CONFIG_VARIABLE}")
    nested: dict[str, Any] = {}
    for dotted, value in flags.items():
        if value is None:
            continue
        target = nested
        *groups, last = dotted.split(".")
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise BadSettings(
                    f"Settings: {dotted}: {group} was given a value of its own: give its fields one by one"
                )
        target[last] = value
    try:
        return Settings(**nested)
    except ValidationError as error:
        raise BadSettings(
            "Settings: "
            + "; ".join(
                f"{'.'.join(str(part) for part in problem['loc'])}: {_PROBLEMS.get(problem['type'], problem['msg'])}"
                for problem in error.errors(include_input=False)
            )
        ) from None
    except SettingsError as error:
        raise BadSettings(
            f"Settings: {error}: set its fields one by one, as PRICETIDE_KAFKA__COMPRESSION=gzip"
        ) from None
    except ValueError as error:  # a TOML file that is none
        raise BadSettings(f"Settings file {path!r}: {error}") from None


def unknown_variables() -> list[str]:
    """Return the environment variables that are named like settings and are none: a mistake, or another program's."""
    prefix = "PRICETIDE_"
    known = {CONFIG_VARIABLE} | {f"{prefix}{name}".upper() for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(prefix) and name.partition("__")[0] not in known)
