"""A broker that asks who is there: every way in gives the same predictions, and what is refused is said in one line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from confluent_kafka.admin import AclOperation, NewTopic, ResourceType  # type: ignore[attr-defined]

from offline.simulate import interleave, simulate_sessions
from tests.conftest import REQUIRE_BROKER
from tests.support.builders import write_tiny_library
from tests.support.kafka_jars import BrokerUnavailableError
from tests.support.lacking import lacking
from tests.support.secured_kafka import CLIENT, KEY_PASSWORD, PASSWORD, USER, Right, SecuredKafka
from tests.support.service import running_service
from tests.support.topics import consumed, publish_all, read_all

pytestmark = pytest.mark.timeout(120)

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
_OPERATIONS = {"Read": AclOperation.READ, "Write": AclOperation.WRITE}
_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
SECRETS = (PASSWORD, KEY_PASSWORD, "wrong-$ecret")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(SecuredKafka(folder=tmp_path_factory.mktemp("secured")))
        except BrokerUnavailableError as error:
            lacking(f"no Kafka of our own that asks for names: {error}", required_by=REQUIRE_BROKER)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_library(tmp_path_factory.mktemp("model") / "v0.0.1")


@pytest.fixture(scope="module")
def messages() -> list[tuple[bytes, bytes]]:
    simulated = interleave(simulate_sessions(6, seed=3))
    return [(str(message["session_id"]).encode(), msgspec.json.encode(message)) for message in simulated]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Topics and group of one test, all of whose names begin alike."""

    name: str

    @property
    def input(self) -> str:
        return f"{self.name}-in"

    @property
    def output(self) -> str:
        return f"{self.name}-out"

    @property
    def dead(self) -> str:
        return f"{self.name}-dlq"

    def needed(self) -> dict[str, list[Right]]:
        """What the service needs where the topics are there: what the commands on the page grant."""
        names = {
            "session-events": ("input", self.input),
            "session-fingerprints": ("output", self.output),
            "session-events-dlq": ("dead letters", self.dead),
            "stream-fp": ("group", self.name),
            "stream-fp-": ("transactions", f"{self.name}-"),
        }
        return {
            names[name][0]: [
                Right(_OPERATIONS[operation], kind, names[name][1], is_prefix=is_prefix) for operation in operations
            ]
            for operations, kind, name, is_prefix in _commands_of_the_page()
        }


def _commands_of_the_page() -> Iterator[tuple[list[str], ResourceType, str, bool]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--operation", action="append")
    parser.add_argument("--resource-pattern-type", default="literal")
    for option in _KINDS:
        parser.add_argument(f"--{option}")
    for line in PAGE.read_text().splitlines():
        if line.startswith("kafka-acls "):
            options, _ = parser.parse_known_args(shlex.split(line))
            (option,) = (option for option in _KINDS if getattr(options, option.replace("-", "_")))
            name = getattr(options, option.replace("-", "_"))
            yield options.operation, _KINDS[option], name, options.resource_pattern_type == "prefixed"


@pytest.fixture
async def topics(kafka: SecuredKafka, messages: list[tuple[bytes, bytes]]) -> Topics:
    made = Topics(name=f"safe-{uuid.uuid4().hex[:8]}")
    for done in kafka.admin.create_topics([NewTopic(t, 1, 1) for t in (made.input, made.output, made.dead)]).values():
        done.result(20)
    await publish_all(kafka.plain, made.input, messages)
    return made


def arguments(topics: Topics, model: Path) -> list[str]:
    return [
        "--session-fingerprinting", "--input-topic", topics.input, "--output-topic", topics.output,
        "--dead-letter-topic", topics.dead, "--group-id", topics.name, "--model-path", str(model),
        "--sidecar-dir", "", "--log-level", "DEBUG",
    ]  # fmt: skip


def by_password(kafka: SecuredKafka, mechanism: str, listener: str = "SCRAM") -> dict[str, str]:
    password = kafka.folder / "password"
    password.write_text(f"{PASSWORD}\n")
    return {
        "STREAM_FP_BOOTSTRAP_SERVERS": kafka.at(listener),
        "STREAM_FP_SECURITY_PROTOCOL": "SASL_PLAINTEXT" if listener == "OPEN" else "SASL_SSL",
        "STREAM_FP_SASL_MECHANISM": mechanism,
        "STREAM_FP_SASL_USERNAME": USER,
        "STREAM_FP_SASL_PASSWORD_FILE": str(password),
        "STREAM_FP_SSL_CA_FILE": str(kafka.ca),
    }


def by_certificate(kafka: SecuredKafka) -> dict[str, str]:
    key_password = kafka.folder / "key-password"
    key_password.write_text(KEY_PASSWORD)
    return {
        "STREAM_FP_BOOTSTRAP_SERVERS": kafka.at("MUTUAL"),
        "STREAM_FP_SECURITY_PROTOCOL": "SSL",
        "STREAM_FP_SSL_CA_FILE": str(kafka.ca),
        "STREAM_FP_SSL_CERT_FILE": str(kafka.folder / "client.pem"),
        "STREAM_FP_SSL_KEY_FILE": str(kafka.folder / "client.key"),
        "STREAM_FP_SSL_KEY_PASSWORD_FILE": str(key_password),
    }


async def replayed(environment: dict[str, str], topics: Topics, model: Path) -> tuple[int | None, bytes, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_fp", "replay", "--input-topic", topics.input, "--model-path", str(model),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip
    output, error = await process.communicate()
    return process.returncode, output, error.decode()


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "PLAIN without TLS", "certificate"])
async def test_every_way_in_gives_the_same_predictions_with_the_least_rights_and_shows_no_secret(
    *, kafka: SecuredKafka, topics: Topics, model: Path, messages: list[tuple[bytes, bytes]], tmp_path: Path, way: str
) -> None:
    if way == "certificate":
        environment, principal = by_certificate(kafka), CLIENT
    else:
        environment = by_password(kafka, way.split(maxsplit=1)[0], "OPEN" if "without" in way else "SCRAM")
        principal = USER
    kafka.allow(principal, [right for rights in topics.needed().values() for right in rights])
    async with running_service(tmp_path / "log", *arguments(topics, model), environment=environment) as service:
        await service.wait_ready()
        await consumed(service, len(messages))
        shown = [service.output(), *[(await service.get(path))[1] for path in ("/metrics", "/readyz", "/healthz")]]
        arguments_shown = Path(f"/proc/{service.process.pid}/cmdline")
        shown.append(await asyncio.to_thread(arguments_shown.read_text))
        assert await service.terminate() == 0, service.output()
        shown.append(service.output())
    said = [record.value for record in await read_all(kafka.plain, topics.output)]
    status, output, error = await replayed(environment, topics, model)
    assert status == 0, error
    assert sorted(output.splitlines()) == sorted(said)
    assert len(said) >= 5
    _no_secret_in([*shown, error])


def _no_secret_in(texts: list[str]) -> None:
    for text in texts:
        assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SASL_PASSWORD_FILE": "", "SASL_PASSWORD": "wrong-$ecret"}, "`sasl_username`"),
        ({"SASL_USERNAME": "nobody"}, "`sasl_username`"),
        ({"SSL_CA_FILE": "{folder}/stranger.pem"}, "`ssl_ca_file`"),
        ({"SSL_CA_FILE": ""}, "`ssl_ca_file`"),
        ({"BOOTSTRAP_SERVERS": "localhost:{SCRAM}"}, "`bootstrap_servers`"),
        ({"BOOTSTRAP_SERVERS": "127.0.0.1:{EXPIRED}"}, "expired"),
        ({"BOOTSTRAP_SERVERS": "127.0.0.1:{MUTUAL}", "SECURITY_PROTOCOL": "SSL"}, "`ssl_cert_file`"),
        ({"SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "`security_protocol`"),
        ({"BOOTSTRAP_SERVERS": "127.0.0.1:{OPEN}"}, "`security_protocol`"),
        ({"SASL_PASSWORD_FILE": "{folder}/none"}, "`sasl_password_file`"),
        ({"SSL_CERT_FILE": "{folder}/client.pem", "SSL_KEY_FILE": "{folder}/client.key"}, "`ssl_key_password`"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else None,
)
async def test_who_is_not_let_in_is_told_in_one_line_which_setting_it_is(
    *, kafka: SecuredKafka, topics: Topics, model: Path, tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    facts = {"folder": str(kafka.folder), **{name: str(port) for name, port in kafka.ports.items()}}
    environment = by_password(kafka, "SCRAM-SHA-512") | {
        f"STREAM_FP_{name}": text.format(**facts) for name, text in changed.items()
    }
    async with running_service(
        tmp_path / "log", *arguments(topics, model), "--request-timeout-s", "8", environment=environment
    ) as service:
        status = await asyncio.wait_for(service.process.wait(), 60)
        last = service.output().splitlines()[-1]
        assert status != 0
        assert last.startswith("stream-fp: ")
        assert words in last, last
        _no_secret_in([service.output()])


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ("input", "`{input}` does not exist on the broker, or this user may not see it"),
        ("group", "READ on group `{name}`"),
        ("output", "WRITE on topic `{output}`"),
        ("dead letters", "WRITE on topic `{dead}`"),
        ("transactions", "WRITE on the transactional ids that begin with `{name}-`"),
    ],
)
async def test_right_that_is_lacking_is_named(
    *, kafka: SecuredKafka, topics: Topics, model: Path, tmp_path: Path, lacking: str, words: str
) -> None:
    kafka.allow(USER, [right for name, rights in topics.needed().items() if name != lacking for right in rights])
    async with running_service(
        tmp_path / "log", *arguments(topics, model), "--stall-timeout-s", "2", "--stall-exit-s", "4",
        environment=by_password(kafka, "SCRAM-SHA-512"),
    ) as service:  # fmt: skip
        assert await asyncio.wait_for(service.process.wait(), 60) != 0
        expected = words.format(name=topics.name, input=topics.input, output=topics.output, dead=topics.dead)
        assert expected in service.output().splitlines()[-1]


async def test_dead_letter_topic_that_only_denies_writing_is_named_and_nothing_is_lost(
    kafka: SecuredKafka, topics: Topics, model: Path, tmp_path: Path
) -> None:
    """To see a topic is one right, to write to it another: that this is lacking shows with the first dead letter."""
    rights = topics.needed() | {"dead letters": [Right(AclOperation.DESCRIBE, ResourceType.TOPIC, topics.dead)]}
    kafka.allow(USER, [right for group in rights.values() for right in group])
    await publish_all(kafka.plain, topics.input, [(b"a", b"no json")])
    options = [*arguments(topics, model), "--stall-timeout-s", "2", "--stall-exit-s", "4"]
    environment = by_password(kafka, "SCRAM-SHA-512")
    async with running_service(tmp_path / "log", *options, environment=environment) as service:
        assert await asyncio.wait_for(service.process.wait(), 60) != 0
        (last,) = [line for line in service.output().splitlines() if line.startswith("stream-fp: ")]
        assert f"WRITE on topic `{topics.dead}`" in last
    kafka.allow(USER, topics.needed()["dead letters"])
    async with running_service(tmp_path / "again", *options, environment=environment) as service:
        await service.wait_ready()
        while not (dead := await read_all(kafka.plain, topics.dead)):
            await asyncio.sleep(0.1)
        assert await service.terminate() == 0
    assert len(dead) == 1
    assert len(await read_all(kafka.plain, topics.output)) >= 5


async def test_replay_needs_to_read_its_topic_and_nothing_else(
    kafka: SecuredKafka, topics: Topics, model: Path
) -> None:
    kafka.allow(USER, topics.needed()["input"])
    status, output, error = await replayed(by_password(kafka, "SCRAM-SHA-512"), topics, model)
    assert status == 0, error
    assert len(output.splitlines()) >= 5


async def test_it_creates_its_topics_where_it_may(
    kafka: SecuredKafka, topics: Topics, model: Path, tmp_path: Path
) -> None:
    for done in kafka.admin.delete_topics([topics.output, topics.dead]).values():
        done.result(20)
    kafka.allow(USER, [right for rights in topics.needed().values() for right in rights])
    for topic in (topics.output, topics.dead):
        for operation in (AclOperation.CREATE, AclOperation.DESCRIBE):
            kafka.allow(USER, [Right(operation, ResourceType.TOPIC, topic)])
    environment = by_password(kafka, "SCRAM-SHA-512")
    async with running_service(tmp_path / "log", *arguments(topics, model), environment=environment) as service:
        await service.wait_ready()
        while len(await read_all(kafka.plain, topics.output)) < 5:
            await asyncio.sleep(0.1)
        assert await service.terminate() == 0
