from __future__ import annotations

import dataclasses
import json
import re
import traceback
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_fp.config import ENABLE_VARIABLE, ENV_PREFIX, Secret, Settings, load_settings, misspelt_variables
from stream_fp.engine import EngineSettings
from stream_fp.errors import ConfigError

FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}
SECRETS = ("sasl_password", "ssl_key_password")
#: Neither of these texts occurs in a message by chance.
HIDDEN = "hunter2-zebra"
VARIABLE = f"{ENV_PREFIX}GROUP_ID"

WRONG = [
    ("enabled", "maybe"), ("enabled", ""), ("create_topics", "2"),
    ("bootstrap_servers", ""), ("bootstrap_servers", "host"), ("bootstrap_servers", "host:port"),
    ("bootstrap_servers", "host:65536"), ("bootstrap_servers", "host:1,"), ("bootstrap_servers", "a b:1"),
    ("group_id", ""), ("input_topic", ""), ("output_topic", ""), ("dead_letter_topic", ""),
    ("input_topic", "a b/c"), ("output_topic", ".."), ("dead_letter_topic", "x" * 250),
    ("delivery", "at-most-once"), ("start_from", "middle"), ("offset_lost", "ignore"),
    ("max_poll_records", "0"), ("max_poll_records", "many"), ("max_poll_records", "1.5"),
    ("commit_interval_s", "0"), ("session_timeout_s", "-1"), ("transaction_timeout_s", "soon"),
    ("request_timeout_s", "nan"), ("max_request_bytes", "0"), ("max_request_bytes", str(2**31)),
    ("security_protocol", "plaintext"), ("sasl_mechanism", "GSSAPI"),
    ("checkpoints", ""), ("checkpoints", "thirty"), ("checkpoints", "30;40"), ("checkpoints", "24.9"),
    ("checkpoints", "50.1"), ("checkpoints", "40,30"), ("checkpoints", "30,30"), ("checkpoints", "nan"),
    ("completion", "guess"), ("distance_metric", "manhattan"), ("confidence_method", "gut"), ("assignment", "nearest"),
    ("min_events", "0"), ("timezone", "Mars/Olympus"), ("timezone", ""), ("timezone", "../../etc/passwd"),
    ("grace_s", "inf"), ("idle_timeout_s", "0"),
    ("max_open_sessions", "0"), ("max_events_per_session", "-5"), ("max_buffered_bytes", "1GB"),
    ("max_record_bytes", str(2**30)),
    ("http_port", "65536"), ("http_port", "-1"), ("stall_timeout_s", "0"), ("stall_exit_s", "0"),
    ("shutdown_grace_s", "0"),
    ("log_level", "debug"),
    ("log_format", "xml"),
    ("tracing", "zipkin"),
]  # fmt: skip
#: As TOML writes them; a file says `true` and 1.5 itself, so a text in their place is a mistake.
WRONG_IN_A_FILE = [
    ("enabled", "1"), ("enabled", '"true"'), ("http_port", '"9464"'), ("http_port", "1.5"), ("min_events", "true"),
    ("checkpoints", "true"), ("checkpoints", "[]"), ("checkpoints", "[30, 60]"), ("group_id", "7"),
    ("commit_interval_s", '"1"'), ("sasl_password", "7"), ("grace_s", "inf"), ("timezone", '"Mars/Olympus"'),
]  # fmt: skip


def load(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> Settings:
    return load_settings(flags or {}, environment or {}, file)


def toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, "utf-8")
    return path


def refused(*arguments: Any) -> ConfigError:  # noqa: ANN401 - those of `load`
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value


# ------------------------------------------------------------------------------------------------ layers, precedence


def test_nothing_given_is_off_with_the_documented_defaults() -> None:
    settings = load()
    assert settings == Settings()
    assert not settings.enabled
    assert settings.checkpoints == (30.0,)
    assert (settings.input_topic, settings.output_topic, settings.dead_letter_topic) == (
        "session-events", "session-fingerprints", "session-events-dlq",
    )  # fmt: skip
    assert settings.http_port == 9464
    assert (settings.distance_metric, settings.confidence_method) == ("euclidean", "softmax")


def test_file_alone_fills_settings_of_every_type(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'enabled = true\ngroup_id = "g"\nhttp_port = 0\ngrace_s = 60\ncheckpoints = [30, 40.5]\nsasl_password = "p"\n',
    )
    settings = load(file=file)
    assert settings.enabled
    assert (settings.group_id, settings.http_port, settings.grace_s) == ("g", 0, 60.0)
    assert settings.checkpoints == (30.0, 40.5)
    assert settings.sasl_password.reveal() == "p"


def test_environment_alone_fills_settings_of_every_type() -> None:
    given = {
        "ENABLED": "true", "GROUP_ID": "g", "HTTP_PORT": "0", "GRACE_S": "60", "CHECKPOINTS": " 30, 40.5 ",
        "SASL_PASSWORD": "p", "CREATE_TOPICS": "false", "DELIVERY": "at-least-once",
    }  # fmt: skip
    settings = load(environment={f"{ENV_PREFIX}{name}": text for name, text in given.items()})
    assert settings.enabled
    assert not settings.create_topics
    assert (settings.group_id, settings.http_port, settings.grace_s) == ("g", 0, 60.0)
    assert (settings.checkpoints, settings.delivery) == ((30.0, 40.5), "at-least-once")
    assert settings.sasl_password.reveal() == "p"


def test_flags_alone_fill_settings_and_those_not_given_stay_at_their_default() -> None:
    settings = load({"group_id": "g", "http_port": "0", "checkpoints": "25,50", "enabled": True, "timezone": None})
    assert (settings.group_id, settings.http_port, settings.checkpoints) == ("g", 0, (25.0, 50.0))
    assert settings.enabled
    assert settings.timezone == "UTC"


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'group_id = "file"\n')
    assert load(file=file).group_id == "file"
    assert load(None, {VARIABLE: "environment"}, file).group_id == "environment"
    assert load({"group_id": "flag"}, {VARIABLE: "environment"}, file).group_id == "flag"
    assert load({"group_id": "flag"}, None, file).group_id == "flag"


def test_layers_that_name_different_settings_add_up(tmp_path: Path) -> None:
    file = toml(tmp_path, 'input_topic = "from-file"\n')
    settings = load({"output_topic": "from-flag"}, {VARIABLE: "from-environment"}, file)
    assert (settings.input_topic, settings.group_id, settings.output_topic) == (
        "from-file", "from-environment", "from-flag",
    )  # fmt: skip


def test_wrong_value_is_refused_although_a_stronger_layer_has_a_right_one() -> None:
    assert refused({"http_port": "1"}, {f"{ENV_PREFIX}HTTP_PORT": "x"}).source == "environment"


def test_variables_of_others_are_not_ours() -> None:
    assert load(environment={"GROUP_ID": "x", f"{ENV_PREFIX}NO_SUCH_SETTING": "1", "PATH": "/bin"}) == Settings()


# ------------------------------------------------------------------------------------------------------ turning it on


@pytest.mark.parametrize(("text", "on"), [("1", True), ("true", True), ("0", False), ("false", False), ("", False)])
def test_enabling_variable_turns_on_and_off(text: str, *, on: bool) -> None:
    assert load(environment={ENABLE_VARIABLE: text}).enabled is on


def test_enabling_variable_is_the_name_that_users_know() -> None:
    assert ENABLE_VARIABLE == "IRONFORGE_SESSION_FINGERPRINTING"


def test_enabling_variable_with_another_text_is_refused() -> None:
    error = refused(None, {ENABLE_VARIABLE: "on please"})
    assert (error.setting, error.source) == ("enabled", "environment")
    assert "'on please'" in str(error)


def test_enabling_variable_wins_over_the_file_and_loses_to_the_flag(tmp_path: Path) -> None:
    file = toml(tmp_path, "enabled = true\n")
    assert load(file=file).enabled
    assert not load(None, {ENABLE_VARIABLE: "0"}, file).enabled
    assert load({"enabled": True}, {ENABLE_VARIABLE: "0"}, file).enabled


# ------------------------------------------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_wrong_value_in_the_environment_names_setting_and_source(name: str, text: str) -> None:
    error = refused(None, {f"{ENV_PREFIX}{name.upper()}": text})
    assert (error.setting, error.source) == (name, "environment")
    assert str(error).startswith(f"setting `{name}` (environment): ")
    assert re.search(r"[Ee]xpected|[Ii]nvalid", str(error))


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_wrong_value_on_the_command_line_names_setting_and_source(name: str, text: str) -> None:
    error = refused({name: text})
    assert (error.setting, error.source) == (name, "command line")


@pytest.mark.parametrize(("name", "text"), WRONG_IN_A_FILE)
def test_wrong_value_in_a_file_names_setting_and_file(tmp_path: Path, name: str, text: str) -> None:
    file = toml(tmp_path, f"{name} = {text}\n")
    error = refused(None, None, file)
    assert (error.setting, error.source) == (name, f"file {file}")


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {name for name, _ in WRONG}))
def test_setting_without_a_wrong_value_above_takes_any_text(name: str) -> None:
    # Whoever adds a setting with bounds adds a value beyond them to the list.
    kind = msgspec.inspect.type_info(FIELDS[name].type)
    kind = kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind
    assert isinstance(kind, msgspec.inspect.StrType | msgspec.inspect.CustomType)


def test_stall_that_ends_the_service_before_it_is_reported_is_refused() -> None:
    error = refused({"stall_exit_s": "30"})
    assert str(error) == "setting `stall_exit_s` (command line): expected at least `stall_timeout_s` = 60, got 30"


@pytest.mark.parametrize("checkpoints", ["25", "50", "25,50", "25,30,35,40,45,50", "33.3"])
def test_checkpoints_from_25_to_50_are_taken(checkpoints: str) -> None:
    assert load({"checkpoints": checkpoints}).checkpoints == tuple(float(text) for text in checkpoints.split(","))


@pytest.mark.parametrize("text", ["no_such_setting = 1\n", "[kafka]\ngroup_id = 'g'\n", "Group_Id = 'g'\n"])
def test_unknown_key_in_a_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = toml(tmp_path, text)
    error = refused(None, None, file)
    assert error.setting == re.split(r"[\]\s]", text.lstrip("["))[0]
    assert error.source == f"file {file}"
    assert "there is no such setting" in str(error)


@pytest.mark.parametrize(
    "content", [b"group_id = \n", b"= 1\n", b"group_id = 'a'\ngroup_id = 'b'\n", b"group_id = '\xff'"]
)
def test_file_that_is_no_toml_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    error = refused(None, None, file)
    assert error.setting == "config"
    assert str(file) in str(error)


def test_file_that_is_missing_or_a_folder_is_refused_with_its_name(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        error = refused(None, None, path)
        assert error.setting == "config"
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("first", "second"),
    [("input_topic", "output_topic"), ("input_topic", "dead_letter_topic"), ("output_topic", "dead_letter_topic")],
)
def test_one_topic_for_two_purposes_is_refused(first: str, second: str) -> None:
    error = refused({first: "same", second: "same"})
    assert error.setting == "output_topic"
    assert "'same'" in str(error)


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl_without_a_user_name_is_refused(protocol: str) -> None:
    assert refused({"security_protocol": protocol}).setting == "sasl_username"
    assert load({"security_protocol": protocol, "sasl_username": "me"}).security_protocol == protocol


@pytest.mark.parametrize("name", ["ssl_cert_file", "ssl_key_file"])
def test_certificate_without_key_or_key_without_certificate_is_refused(name: str) -> None:
    assert refused({name: "file.pem"}).setting == "ssl_cert_file"
    assert load({"ssl_cert_file": "cert.pem", "ssl_key_file": "key.pem"}).ssl_key_file == "key.pem"


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().group_id = "other"  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------------ secrets


def test_secret_shows_itself_nowhere_but_to_whom_it_is_revealed() -> None:
    secret = Secret(HIDDEN)
    assert secret.reveal() == HIDDEN
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", "{0}".format(secret), "%s" % secret):  # noqa: UP030, UP031, UP032
        assert HIDDEN not in text


def test_secret_is_true_where_there_is_one() -> None:
    assert Secret(HIDDEN)
    assert not Secret("")


def test_secrets_are_not_in_repr_or_str_of_the_settings(tmp_path: Path) -> None:
    file = toml(tmp_path, f'sasl_password = "{HIDDEN}"\n')
    for settings in (load(None, {f"{ENV_PREFIX}{name.upper()}": HIDDEN for name in SECRETS}), load(file=file)):
        assert settings.sasl_password.reveal() == HIDDEN
        assert HIDDEN not in repr(settings)
        assert HIDDEN not in str(settings)


@pytest.mark.parametrize(
    "wrong",
    [f'sasl_password = ["{HIDDEN}"]', f'ssl_key_password = {{ a = "{HIDDEN}" }}', f'sasl_password_file = ["{HIDDEN}"]'],
)
def test_secret_of_a_wrong_type_is_refused_without_being_told(tmp_path: Path, wrong: str) -> None:
    error = refused(None, None, toml(tmp_path, wrong))
    assert error.setting == wrong.split(maxsplit=1)[0]
    assert HIDDEN not in "".join(traceback.format_exception(error))


def test_secrets_are_not_in_the_error_about_another_setting() -> None:
    error = refused({"timezone": "nowhere"}, {f"{ENV_PREFIX}SASL_PASSWORD": HIDDEN})
    assert HIDDEN not in "".join(traceback.format_exception(error))


def test_every_setting_that_holds_a_password_is_a_secret() -> None:
    of_type = [name for name, field in FIELDS.items() if isinstance(field.default, Secret)]
    assert tuple(of_type) == SECRETS
    assert [name for name in FIELDS if name.endswith("password")] == of_type


def test_password_comes_from_its_file_without_the_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    for line_end in ("", "\n", "\r\n"):
        file.write_bytes(f" {HIDDEN} ä{line_end}".encode())
        settings = load({"sasl_password_file": str(file)}, {f"{ENV_PREFIX}SASL_PASSWORD": "other"})
        assert settings.sasl_secret() == f" {HIDDEN} ä"
        assert HIDDEN not in repr(settings)


def test_password_without_a_file_is_the_setting() -> None:
    assert load(environment={f"{ENV_PREFIX}SASL_PASSWORD": HIDDEN}).sasl_secret() == HIDDEN
    assert load().sasl_secret() == ""


def test_password_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    settings = load({"sasl_password_file": str(tmp_path / "absent")})
    with pytest.raises(ConfigError, match="absent") as caught:
        settings.sasl_secret()
    assert caught.value.setting == "sasl_password_file"


def test_password_file_that_is_no_text_is_refused_without_being_told(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(HIDDEN.encode() + b"\xff")
    with pytest.raises(ConfigError) as caught:
        load({"sasl_password_file": str(file)}).sasl_secret()
    assert caught.value.setting == "sasl_password_file"
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


# ------------------------------------------------------------------------------------------------- the fields as such


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_description_of_one_sentence(name: str) -> None:
    hint = typing.get_type_hints(Settings, include_extras=True)[name]
    (description,) = [meta.description for meta in hint.__metadata__ if meta.description]
    assert description.endswith(".")


@pytest.mark.parametrize("name", FIELDS)
def test_every_default_is_valid_when_it_is_given(tmp_path: Path, name: str) -> None:
    default = FIELDS[name].default
    if isinstance(default, Secret):
        default = default.reveal()
    # What JSON writes for texts, numbers, booleans and lists, TOML reads.
    file = toml(tmp_path, f"{name} = {json.dumps(default)}\n")
    assert getattr(load(file=file), name) == getattr(Settings(), name) or name in SECRETS


def test_engine_gets_the_settings_in_its_own_units() -> None:
    settings = load(
        {
            "checkpoints": "30,40", "completion": "count", "min_events": "7", "grace_s": "1.5", "idle_timeout_s": "2",
            "timezone": "Asia/Tokyo", "max_open_sessions": "3", "max_events_per_session": "4",
            "max_buffered_bytes": "5", "max_record_bytes": "6",
        }
    )  # fmt: skip
    assert settings.engine_settings() == EngineSettings(
        checkpoints_pct=(30.0, 40.0), completion="count", min_events=7, grace_us=1_500_000, idle_timeout_us=2_000_000,
        timezone="Asia/Tokyo", max_open_sessions=3, max_events_per_session=4, max_buffered_bytes=5, max_record_bytes=6,
    )  # fmt: skip


def test_defaults_of_settings_and_engine_agree() -> None:
    ours, engines = Settings().engine_settings(), EngineSettings()
    assert dataclasses.asdict(ours) == dataclasses.asdict(engines)


@pytest.mark.parametrize(
    "servers", ["localhost:9092", "a:1, b:65535", "[::1]:9092", "kafka-0.kafka.svc.cluster.local:9093"]
)
def test_brokers_are_taken_as_host_and_port(servers: str) -> None:
    assert load({"bootstrap_servers": servers}).bootstrap_servers == servers


def test_single_checkpoint_in_a_file_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("checkpoints = 40\n")
    assert load_settings({}, {}, path).checkpoints == (40.0,)


def test_wrong_choice_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match="expected one of euclidean, cosine, mahalanobis, got 'euclid'"):
        load({"distance_metric": "euclid"})


def test_variable_that_is_nearly_a_setting_is_found() -> None:
    environment = {
        "STREAM_FP_HTP_PORT": "1",
        "STREAM_FP_HTTP_PORT": "2",
        "STREAM_FP_SOMETHING_ELSE": "3",
        "HTTP_PORTS": "4",
    }
    assert misspelt_variables(environment) == {"STREAM_FP_HTP_PORT": "STREAM_FP_HTTP_PORT"}
