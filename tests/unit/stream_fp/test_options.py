from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from stream_fp.config import ENV_PREFIX, Secret, Settings
from stream_fp.engine import EngineSettings
from stream_fp.errors import ConfigError
from stream_fp.options import ENGINE_SETTINGS, setting_options, settings_from

FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}
SECRETS = {name for name, field in FIELDS.items() if isinstance(field.default, Secret)}
WITH_FLAG = [name for name in FIELDS if name not in SECRETS | {"enabled"}]
#: Another value than the default, where a text will not do.
OTHER = {
    "create_topics": "false", "delivery": "at-least-once", "start_from": "latest", "offset_lost": "earliest",
    "security_protocol": "SSL", "sasl_mechanism": "SCRAM-SHA-512", "checkpoints": "30,45", "completion": "count",
    "distance_metric": "cosine", "confidence_method": "calibrated", "assignment": "full_centroid",
    "timezone": "Asia/Tokyo", "log_level": "ERROR", "log_format": "json", "tracing": "otlp",
    "bootstrap_servers": "one:9092,two:9093",
}  # fmt: skip
#: A certificate and its key are given together or not at all.
TOGETHER = {"ssl_cert_file": "ssl_key_file", "ssl_key_file": "ssl_cert_file"}


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}", raising=False)
    monkeypatch.delenv(f"{ENV_PREFIX}CONFIG", raising=False)


def options_of(names: tuple[str, ...] | None = None) -> dict[str, click.Option]:
    """Return the options of a command with these settings, by flag."""

    @click.command()
    @setting_options(names)
    def command(**_: Any) -> None:  # noqa: ANN401 - as click hands them over
        """Do nothing."""

    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert all(len(option.opts) == 1 for option in options)
    return {option.opts[0]: option for option in options}


def loaded(*arguments: str) -> Settings:
    """Return the settings that a command line gives."""
    found: list[Settings] = []

    @click.command()
    @setting_options()
    def command(config: Path | None, **flags: Any) -> None:  # noqa: ANN401 - as above
        found.append(settings_from(config, flags))

    result = CliRunner().invoke(command, arguments)
    if result.exception is not None:
        raise result.exception
    return found[0]


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def other_value(name: str) -> str:
    default = FIELDS[name].default
    return OTHER.get(name) or (str(default + 1) if isinstance(default, int | float) else "something-else")


def test_every_setting_has_a_flag_but_secrets_and_enabled() -> None:
    assert [*options_of()] == ["--config", *map(flag, WITH_FLAG)]


@pytest.mark.parametrize("name", WITH_FLAG)
def test_flag_help_has_description_environment_name_and_default(name: str) -> None:
    text = options_of()[flag(name)].help or ""
    description = next(meta.description for meta in FIELDS[name].type.__metadata__ if meta.description)
    assert text.startswith(description)
    assert f"[{ENV_PREFIX}{name.upper()}; default: " in text
    assert not text.endswith("default: ]")


def test_flag_help_shows_defaults_as_one_would_type_them() -> None:
    shown = {name: (options.help or "").rpartition("default: ")[2] for name, options in options_of().items()}
    assert shown["--checkpoints"] == "30]"
    assert shown["--create-topics"] == "true]"
    assert shown["--commit-interval-s"] == "1.0]"
    assert shown["--sidecar-dir"] == "sidecars]"
    assert shown["--minidash-path"] == "none]"


def test_flag_shows_what_it_takes() -> None:
    shown = {name: options.metavar for name, options in options_of().items()}
    assert shown["--completion"] == "[auto|declared|schedule|count]"
    assert shown["--checkpoints"] == "PCT[,PCT...]"
    assert shown["--create-topics"] == "true|false"
    assert (shown["--http-port"], shown["--grace-s"], shown["--group-id"]) == ("INTEGER", "NUMBER", "TEXT")


@pytest.mark.parametrize("name", WITH_FLAG)
def test_flag_sets_its_setting_and_no_other(name: str) -> None:
    arguments = [flag(name), other_value(name)]
    if name in TOGETHER:
        arguments += [flag(TOGETHER[name]), "beside.pem"]
    settings = loaded(*arguments)
    changed = {other for other in FIELDS if getattr(settings, other) != getattr(Settings(), other)}
    assert changed - SECRETS == {name} | ({TOGETHER[name]} if name in TOGETHER else set())


@pytest.mark.parametrize("name", WITH_FLAG)
def test_variable_named_in_the_help_sets_the_setting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}", other_value(name))
    if name in TOGETHER:
        monkeypatch.setenv(f"{ENV_PREFIX}{TOGETHER[name].upper()}", "beside.pem")
    by_variable = loaded()
    monkeypatch.undo()
    beside = [flag(TOGETHER[name]), "beside.pem"] if name in TOGETHER else []
    assert getattr(by_variable, name) == getattr(loaded(flag(name), other_value(name), *beside), name)


def test_settings_file_comes_from_flag_or_variable_and_the_flag_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_flag, by_variable = tmp_path / "flag.toml", tmp_path / "variable.toml"
    by_flag.write_text('group_id = "flag"\n')
    by_variable.write_text('group_id = "variable"\n')
    assert loaded("--config", str(by_flag)).group_id == "flag"
    monkeypatch.setenv(f"{ENV_PREFIX}CONFIG", str(by_variable))
    assert loaded().group_id == "variable"
    assert loaded("--config", str(by_flag)).group_id == "flag"
    assert loaded("--config", str(by_flag), "--group-id", "given").group_id == "given"


def test_settings_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        loaded("--config", str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_secret_on_the_command_line_is_refused(name: str) -> None:
    # Everybody on the machine can read a command line.
    with pytest.raises(SystemExit):
        loaded(flag(name), "x")


def test_command_with_some_settings_has_their_flags_only() -> None:
    assert [*options_of(("model_path", "timezone"))] == ["--config", "--model-path", "--timezone"]


def test_engine_settings_are_all_that_decides_over_predictions() -> None:
    # `keep_events` is for training, and the three that are not the engine's choose the method.
    of_engine = {field.name for field in dataclasses.fields(EngineSettings)} - {"keep_events"}
    renamed = {"checkpoints_pct": "checkpoints", "grace_us": "grace_s", "idle_timeout_us": "idle_timeout_s"}
    methods = {"model_path", "distance_metric", "confidence_method", "assignment"}
    assert set(ENGINE_SETTINGS) == {renamed.get(name, name) for name in of_engine} | methods
    assert len(ENGINE_SETTINGS) == len(set(ENGINE_SETTINGS))
