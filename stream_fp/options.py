"""Command-line flags made from the settings, so that a setting is described in one place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import click
import msgspec

from stream_fp.config import ENV_PREFIX, Secret, Settings, load_settings, misspelt_variables

__all__ = ["ENGINE_SETTINGS", "TOPIC_SETTINGS", "setting_options", "settings_from"]

Command = TypeVar("Command", bound=Callable[..., Any])

#: What decides over predictions.
ENGINE_SETTINGS: Final = (
    "model_path", "checkpoints", "completion", "distance_metric", "confidence_method", "assignment", "min_events",
    "timezone", "grace_s", "idle_timeout_s", "max_open_sessions", "max_events_per_session", "max_buffered_bytes",
    "max_record_bytes",
)  # fmt: skip

#: What it takes to read the input topic.
TOPIC_SETTINGS: Final = (
    "bootstrap_servers", "input_topic", "request_timeout_s", "security_protocol", "sasl_mechanism", "sasl_username",
    "sasl_password_file", "ssl_ca_file", "ssl_cert_file", "ssl_key_file",
    "ssl_key_password_file",
)  # fmt: skip


def setting_options(names: tuple[str, ...] | None = None) -> Callable[[Command], Command]:
    """Add ``--config`` and a flag for each setting (secrets excepted) to a click command.

    Values stay texts here: `load_settings` converts and checks those of flags, environment and file alike.
    """

    def decorate(command: Command) -> Command:
        for field in reversed(msgspec.structs.fields(Settings)):
            kind, description = _unwrapped(field.type)
            if kind is Secret or field.name == "enabled" or (names is not None and field.name not in names):
                continue
            command = click.option(
                f"--{field.name.replace('_', '-')}",
                field.name,
                default=None,
                metavar=_metavar(kind),
                help=f"{description} [{ENV_PREFIX}{field.name.upper()}; default: {_shown(field.default)}]",
            )(command)
        return click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            default=None,
            help=f"TOML file of settings. [{ENV_PREFIX}CONFIG]",
        )(command)

    return decorate


def settings_from(config: Path | None, flags: dict[str, Any]) -> Settings:
    """Load the settings of a command.

    Raises
    ------
    ConfigError
        When one is wrong.
    """
    if config is None and (named := os.environ.get(f"{ENV_PREFIX}CONFIG")):
        config = Path(named)
    for variable, meant in misspelt_variables(os.environ).items():
        click.echo(f"stream-fp: {variable} is no setting and does nothing; was {meant} meant?", err=True)
    return load_settings(flags, os.environ, config)


def _unwrapped(kind: Any) -> tuple[Any, str]:  # noqa: ANN401 - a type expression
    if hasattr(kind, "__metadata__"):
        inner = get_args(kind)[0]
        description = next((m.description for m in kind.__metadata__ if m.description), "")
        return _unwrapped(inner)[0], description
    return kind, ""


def _metavar(kind: Any) -> str:  # noqa: ANN401 - a type expression
    if get_args(kind) and all(isinstance(choice, str) for choice in get_args(kind)):
        return "[" + "|".join(get_args(kind)) + "]"
    if get_origin(kind) is tuple:
        return "PCT[,PCT...]"
    return {bool: "true|false", int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(f"{value:g}" for value in default)
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default == "" else str(default)
