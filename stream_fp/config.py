"""Settings: one frozen structure, filled from flags, environment and a TOML file, in that order of precedence.

Every field is a key of the TOML file, the environment variable ``STREAM_FP_<NAME>`` and, but for secrets, the flag
``--<name>``. A wrong value stops the start with one line that names the setting and where it came from.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from stream_fp.classifier import AssignmentMethod, ConfidenceMethod, DistanceMetric
from stream_fp.completion import CompletionPolicy
from stream_fp.engine import EngineSettings
from stream_fp.errors import ConfigError
from stream_fp.times import SECOND_US, zone_of

__all__ = [
    "ENABLE_VARIABLE",
    "ENV_PREFIX",
    "MAX_CHECKPOINT_PCT",
    "MIN_CHECKPOINT_PCT",
    "Secret",
    "Settings",
    "load_settings",
    "misspelt_variables",
]

ENV_PREFIX: Final = "STREAM_FP_"
#: Turns the service on from the environment, beside ``STREAM_FP_ENABLED``.
ENABLE_VARIABLE: Final = "IRONFORGE_SESSION_FINGERPRINTING"
#: Before the first a prefix says too little, after the second a prediction comes too late to be of use.
MIN_CHECKPOINT_PCT: Final = 25.0
MAX_CHECKPOINT_PCT: Final = 50.0

_SERVER: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):[0-9]{1,5}")
_MAX_PORT: Final = 65_535
#: What brokers allow.
_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")

Positive = Annotated[int, Meta(ge=1)]
#: What the engine counts to: compiled, its numbers have 64 bits.
Bound = Annotated[int, Meta(ge=1, le=2**53)]
#: Kafka carries times in milliseconds and sizes in bytes as 32-bit integers.
Seconds = Annotated[float, Meta(gt=0, le=2_000_000)]


class Secret:
    """A text that never shows itself; `reveal` hands it to whom it is for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._text)


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set; each field's description is the help text of its flag."""

    enabled: Annotated[bool, Meta(description="Turn session fingerprinting on.")] = False

    # Kafka
    bootstrap_servers: Annotated[str, Meta(min_length=1, description="Kafka brokers, host:port, by comma.")] = (
        "localhost:9092"
    )
    group_id: Annotated[str, Meta(min_length=1, description="Consumer group.")] = "stream-fp"
    input_topic: Annotated[str, Meta(min_length=1, description="Topic of session events; only read.")] = (
        "session-events"
    )
    output_topic: Annotated[str, Meta(min_length=1, description="Topic of predictions.")] = "session-fingerprints"
    dead_letter_topic: Annotated[str, Meta(min_length=1, description="Topic of records that cannot be used.")] = (
        "session-events-dlq"
    )
    create_topics: Annotated[bool, Meta(description="Create output and dead-letter topic where missing.")] = True
    delivery: Annotated[
        Literal["exactly-once", "at-least-once"],
        Meta(description="at-least-once is for brokers without transactions: a crash may repeat a prediction."),
    ] = "exactly-once"
    start_from: Annotated[
        Literal["earliest", "latest"], Meta(description="Where a group that never committed begins.")
    ] = "earliest"
    offset_lost: Annotated[
        Literal["fail", "earliest", "latest"],
        Meta(description="What to do when the topic no longer holds what the committed offset needs."),
    ] = "fail"
    max_poll_records: Annotated[Positive, Meta(description="Records taken from a partition at once.")] = 500
    commit_interval_s: Annotated[
        Seconds, Meta(description="Progress is committed at least this often, with or without predictions.")
    ] = 1.0
    session_timeout_s: Annotated[
        Seconds, Meta(description="Silence after which the broker gives this member's partitions to others.")
    ] = 10.0
    transaction_timeout_s: Annotated[
        Seconds, Meta(description="Time after which the broker aborts a transaction left open.")
    ] = 30.0
    request_timeout_s: Annotated[Seconds, Meta(description="Time that the broker has to answer a request.")] = 20.0
    max_request_bytes: Annotated[
        Positive, Meta(le=2**31 - 1, description="Largest record to publish, before compression.")
    ] = 16 * 2**20
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Meta(description="How to talk to the brokers.")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="How to prove who we are.")
    ] = "PLAIN"
    sasl_username: Annotated[str, Meta(description="User name for SASL.")] = ""
    sasl_password: Annotated[Secret, Meta(description="Password for SASL.")] = Secret("")
    sasl_password_file: Annotated[str, Meta(description="File that holds the password for SASL.")] = ""
    ssl_ca_file: Annotated[
        str, Meta(description="Certificates of the authorities to trust; the system's if empty.")
    ] = ""
    ssl_cert_file: Annotated[str, Meta(description="Certificate of this client.")] = ""
    ssl_key_file: Annotated[str, Meta(description="Private key of this client.")] = ""
    ssl_key_password: Annotated[Secret, Meta(description="Password of the private key.")] = Secret("")
    ssl_key_password_file: Annotated[str, Meta(description="File that holds the password of the private key.")] = ""

    # Model and method
    model_path: Annotated[str, Meta(description="Folder of the trained library.")] = ""
    checkpoints: Annotated[
        tuple[float, ...], Meta(min_length=1, description="Completions, in per cent, at which to predict; 25 to 50.")
    ] = (30.0,)
    completion: Annotated[CompletionPolicy, Meta(description="How completion is measured.")] = "auto"
    distance_metric: Annotated[DistanceMetric, Meta(description="Distance to the centroids.")] = "euclidean"
    confidence_method: Annotated[ConfidenceMethod, Meta(description="How distances become a confidence.")] = "softmax"
    assignment: Annotated[AssignmentMethod, Meta(description="How the archetype is chosen; auto: as did best.")] = (
        "auto"
    )
    min_events: Annotated[Bound, Meta(description="A session with fewer events gets no prediction.")] = 5
    timezone: Annotated[str, Meta(description="Zone of time stamps without an offset.")] = "UTC"
    grace_s: Annotated[Seconds, Meta(description="How long after its end a session stays open, in event time.")] = (
        1800.0
    )
    idle_timeout_s: Annotated[
        Seconds, Meta(description="Silence that closes a session without a known end, in event time.")
    ] = 21_600.0

    # Bounds on memory
    max_open_sessions: Annotated[Bound, Meta(description="Open sessions of a partition.")] = 1_000_000
    max_events_per_session: Annotated[Bound, Meta(description="Events that a session may buffer.")] = 50_000
    max_buffered_bytes: Annotated[Bound, Meta(description="Bytes of events that a partition may buffer.")] = 2**31
    max_record_bytes: Annotated[Positive, Meta(le=2**30 - 1, description="Larger records become dead letters.")] = 2**20

    # What is written beside the topic, and what is shown
    sidecar_dir: Annotated[str, Meta(description="Folder for the sidecar files; none are written if empty.")] = (
        "sidecars"
    )
    minidash_path: Annotated[str, Meta(description="HTML page that gets a row a prediction; none if empty.")] = ""
    http_host: Annotated[str, Meta(description="Address of /metrics, /healthz and /readyz.")] = "0.0.0.0"  # noqa: S104 - scraped from outside the container
    http_port: Annotated[int, Meta(ge=0, le=65535, description="Its port; 0 takes any free one.")] = 9464
    stall_timeout_s: Annotated[
        Seconds, Meta(description="A partition with records waiting and no progress for so long is unhealthy.")
    ] = 60.0
    stall_exit_s: Annotated[
        Seconds, Meta(description="A partition that has stalled for so long ends the service, to be started anew.")
    ] = 300.0
    shutdown_grace_s: Annotated[Seconds, Meta(description="Time to finish in after SIGTERM.")] = 20.0
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="What to log.")] = "INFO"
    log_format: Annotated[Literal["console", "json"], Meta(description="Lines to read, or a JSON object a line.")] = (
        "console"
    )
    tracing: Annotated[
        Literal["off", "otlp"],
        Meta(description="Traces to an OpenTelemetry collector (extra `otel`), set up by OTEL_ variables."),
    ] = "off"

    def engine_settings(self) -> EngineSettings:
        """Return the part that the engine's behaviour depends on."""
        return EngineSettings(
            checkpoints_pct=self.checkpoints,
            completion=self.completion,
            min_events=self.min_events,
            grace_us=int(self.grace_s * SECOND_US),
            idle_timeout_us=int(self.idle_timeout_s * SECOND_US),
            timezone=self.timezone,
            max_open_sessions=self.max_open_sessions,
            max_events_per_session=self.max_events_per_session,
            max_buffered_bytes=self.max_buffered_bytes,
            max_record_bytes=self.max_record_bytes,
        )

    def sasl_secret(self) -> str:
        """Return the password for SASL, from the setting or from the file.

        Raises
        ------
        ConfigError
            When the file cannot be read.
        """
        return _secret_of(self.sasl_password, "sasl_password_file", self.sasl_password_file)

    def ssl_key_secret(self) -> str:
        """Return the password of the private key, from the setting or from the file.

        Raises
        ------
        ConfigError
            When the file cannot be read.
        """
        return _secret_of(self.ssl_key_password, "ssl_key_password_file", self.ssl_key_password_file)


def _secret_of(secret: Secret, setting: str, file: str) -> str:
    if not file:
        return secret.reveal()
    try:
        text = Path(file).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(setting, f"{file}: {error.strerror}") from error
    except UnicodeDecodeError:
        # The cause holds the bytes that were read.
        raise ConfigError(setting, f"{file}: expected text in UTF-8") from None
    if not text:
        raise ConfigError(setting, f"{file}: expected a password, got an empty file")
    return text


_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Settings)}


def load_settings(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Fill the settings; flags win over environment, environment over file.

    Parameters
    ----------
    flags : mapping
        Those given on the command line, by name of the setting.
    environment : mapping
        Usually ``os.environ``.
    file : Path, optional
        TOML file.

    Raises
    ------
    ConfigError
        When a setting is unknown or has a wrong value.
    """
    layers = (
        (f"file {file}", _from_file(file) if file is not None else {}),
        ("environment", _from_environment(environment)),
        ("command line", {name: value for name, value in flags.items() if value is not None}),
    )
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for name, value in layer.items():
            if name not in _FIELDS:
                raise ConfigError(name, "there is no such setting", source=source)
            values[name], sources[name] = _convert(name, value, source), source
    settings = Settings(**values)
    _check(settings, sources)
    return settings


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that look like a setting's and are none, each with the one that was probably meant."""
    known = [f"{ENV_PREFIX}{name.upper()}" for name in _FIELDS]
    return {
        variable: near[0]
        for variable in sorted(environment)
        if variable.startswith(ENV_PREFIX)
        and variable not in known
        and (near := difflib.get_close_matches(variable, known, n=1, cutoff=0.85))
    }


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError("config", f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config", f"{path}: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    layer = {
        name: environment[variable] for name in _FIELDS if (variable := f"{ENV_PREFIX}{name.upper()}") in environment
    }
    if environment.get(ENABLE_VARIABLE):
        layer["enabled"] = environment[ENABLE_VARIABLE]
    return layer


def _convert(name: str, value: object, source: str) -> Any:  # noqa: ANN401 - as many types as settings
    if name == "checkpoints" and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif name == "checkpoints" and isinstance(value, int | float):
        value = [value]
    try:
        return msgspec.convert(value, _FIELDS[name].type, strict=source.startswith("file"), dec_hook=_secret)
    except msgspec.ValidationError as error:
        choices = _choices(_FIELDS[name].type)
        why = f"expected one of {', '.join(choices)}" if choices else str(error)
        shown = "" if "password" in name else f", got {value!r}" if choices else f": {value!r}"
        raise ConfigError(name, f"{why}{shown}", source=source) from error


def _choices(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - a type expression
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return get_args(kind) if get_origin(kind) is Literal else ()


def _secret(kind: type, value: object) -> Secret:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    msg = f"Expected `str`, got `{type(value).__name__}`"
    raise msgspec.ValidationError(msg)


def _check(settings: Settings, sources: Mapping[str, str]) -> None:
    checkpoints = settings.checkpoints
    if sorted(set(checkpoints)) != list(checkpoints) or not (
        MIN_CHECKPOINT_PCT <= checkpoints[0] <= checkpoints[-1] <= MAX_CHECKPOINT_PCT
    ):
        why = f"expected ascending percentages from 25 to 50, got {list(checkpoints)}"
        raise ConfigError("checkpoints", why, source=sources.get("checkpoints", ""))
    try:
        zone_of(settings.timezone)
    except ValueError as error:
        raise ConfigError("timezone", str(error), source=sources.get("timezone", "")) from error
    for server in settings.bootstrap_servers.split(","):
        if not _SERVER.fullmatch(server.strip()) or int(server.rpartition(":")[2]) > _MAX_PORT:
            why = f"expected host:port, several by comma, got {settings.bootstrap_servers!r}"
            raise ConfigError("bootstrap_servers", why, source=sources.get("bootstrap_servers", ""))
    if settings.stall_exit_s < settings.stall_timeout_s:
        why = f"expected at least `stall_timeout_s` = {settings.stall_timeout_s:g}, got {settings.stall_exit_s:g}"
        raise ConfigError("stall_exit_s", why, source=sources.get("stall_exit_s", ""))
    for name in ("input_topic", "output_topic", "dead_letter_topic"):
        if not _TOPIC.fullmatch(topic := getattr(settings, name)):
            why = f"expected the name of a topic (up to 249 of a-z, A-Z, 0-9, `.`, `_`, `-`), got {topic!r}"
            raise ConfigError(name, why, source=sources.get(name, ""))
    topics = [settings.input_topic, settings.output_topic, settings.dead_letter_topic]
    if len(set(topics)) != len(topics):
        raise ConfigError(
            "output_topic", f"expected three different topics for input, output and dead letters, got {topics}"
        )
    if settings.security_protocol.startswith("SASL") and not settings.sasl_username:
        raise ConfigError("sasl_username", f"expected a user name for `{settings.security_protocol}`, got none")
    if bool(settings.ssl_cert_file) != bool(settings.ssl_key_file):
        raise ConfigError("ssl_cert_file", "expected certificate and key file both or neither")
