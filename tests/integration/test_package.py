"""Wheel, sdist and image as users get them: what is in them, and that they run where nothing else is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.conftest import TopicFactory
from tests.support.builders import write_tiny_library
from tests.support.package import ROOT, built, clean_environment, copied_sources, python_for_everybody
from tests.support.service import free_port
from tests.support.topics import read_all

pytestmark = pytest.mark.timeout(240)

DATA: Final = (".parquet", ".csv", ".jsonl", ".npz", ".joblib", ".json", ".gz", ".zst")
#: What the service needs, and what that needs in turn.
ONLINE: Final = {
    "aiokafka", "async-timeout", "click", "cramjam",
    "msgspec", "numpy", "packaging", "prometheus-client", "python-json-logger",
    "typing-extensions", "tzdata",
}  # fmt: skip
USER: Final = 10001


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return built(copied_sources(tmp_path_factory.mktemp("sources")))


@pytest.fixture(scope="module")
def programs(package: tuple[Path, Path]) -> Iterator[Path]:
    """Programs of a clean environment that every user of this machine may run."""
    folder = Path(tempfile.mkdtemp(prefix="stream-fp-package-"))
    folder.chmod(0o755)
    try:
        yield clean_environment(folder / "environment", package[1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_wheel_holds_the_packages_and_nothing_else(package: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(package[1]) as wheel:
        names = wheel.namelist()
        (metadata,) = [name for name in names if name.endswith("/METADATA")]
        facts = Parser().parsestr(wheel.read(metadata).decode())
    assert {name.split("/")[0] for name in names} == {"stream_fp", "offline", metadata.split("/")[0]}
    assert "stream_fp/py.typed" in names
    assert [name for name in names if name.endswith(DATA) and ".dist-info/" not in name] == []
    assert {"offline", "demo", "otel", "dask", "ray", "zstd"} <= set(facts.get_all("Provides-Extra", []))
    assert facts["License-Expression"] == "Apache-2.0"


def test_sdist_holds_no_models_and_no_data(package: tuple[Path, Path]) -> None:
    with tarfile.open(package[0]) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    assert [name for name in names if name.endswith(DATA) or name.startswith(("models", "build", ".venv"))] == []
    assert {"pyproject.toml", "setup.py", "LICENSE", "README.md", "stream_fp/sessions.pxd"} <= set(names)


def test_clean_environment_has_only_what_the_service_needs(programs: Path) -> None:
    command = [str(programs / "python"), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, check=True).stdout
    found = {entry["name"].lower().replace("_", "-") for entry in json.loads(listed)}
    assert found - {"pip", "setuptools", "wheel"} == ONLINE | {"stream-fp"}


def test_check_works_in_it_and_what_is_missing_is_named(programs: Path, tmp_path: Path) -> None:
    model = write_tiny_library(tmp_path / "v0.0.1")
    checked = stream_fp(programs, "check", "--model-path", str(model), "--sidecar-dir", "")
    assert checked.returncode == 0, checked.stderr
    assert "library   ok" in checked.stdout
    demo = stream_fp(programs, "demo")
    assert demo.returncode == 2
    assert "pip install 'stream-fp[demo]'" in demo.stderr
    off = stream_fp(programs, "run")
    assert (off.returncode, off.stderr) == (0, "")
    assert "Session fingerprinting is off" in off.stdout


def stream_fp(programs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([programs / "stream-fp", *arguments], capture_output=True, text=True, check=False)


def test_types_are_seen_by_who_uses_it(programs: Path, tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(
        "from stream_fp import OnlineClassifierConfig, create_online_classifier\n"
        "reveal_type(create_online_classifier)\n"
        "OnlineClassifierConfig(no_such_field=1)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(programs / "python"), str(user)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "OnlineClassifier" in ended.stdout
    assert 'Unexpected keyword argument "no_such_field"' in ended.stdout
    assert "py.typed" not in ended.stdout


def dockerfile() -> tuple[dict[str, str], list[str], list[str]]:
    """Environment, command and health check of the service's image."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    stages = dict(
        re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", text.replace("\\\n", " "), re.MULTILINE | re.DOTALL)
    )
    (variables,) = re.findall(r"^ENV (.*)$", stages["base"], re.MULTILINE)
    environment = dict(pair.split("=", 1) for pair in variables.split())
    arguments = {
        name: json.loads(value)
        for name, value in re.findall(r"^(ENTRYPOINT|CMD) (.*)$", stages["service"], re.MULTILINE)
    }
    (health,) = re.findall(r"HEALTHCHECK .*CMD (\[.*\])$", stages["service"], re.MULTILINE)
    return environment, arguments["ENTRYPOINT"] + arguments["CMD"], json.loads(health)


def script(service: str, **replaced: str) -> str:
    """What a helper of the compose file runs, with some of its words replaced."""
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    text: str = services[service]["command"][0].replace("$$", "$")
    for word, other in replaced.items():
        assert word in text
        text = text.replace(word, other)
    return text


async def ran(program: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", program, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_what_a_compose_run_starts_works_as_an_unprivileged_user_who_can_write_to_one_folder(
    programs: Path, broker: str, topic_factory: TopicFactory, tmp_path: Path
) -> None:
    topic, output = await topic_factory(3), await topic_factory(3, prefix="fingerprints")
    dead = await topic_factory(1, prefix="dlq")
    shared = programs.parent.parent
    state, models = shared / "state", shared / "models"
    state.mkdir()
    train = script("trainer", **{"/tmp/": f"{tmp_path}/", "/models/": f"{models}/"})  # noqa: S108 - the image's
    for _ in range(2):  # the second time, as when everything is started again, there is nothing to do
        await ran(train, tmp_path)
    words = {
        "/tmp/": f"{tmp_path}/", "/var/lib/stream-fp": str(tmp_path), "kafka:9094": broker, "10x": "max",  # noqa: S108
        "--output-topic session-events": f"--output-topic {topic}", "while true": "for _ in 1 2",
    }  # fmt: skip
    await ran(script("feeder", **words), tmp_path)
    assert (tmp_path / "day").read_text() == "2\n"
    n_records = len(await read_all(broker, topic))
    assert n_records > 10_000

    environment, command, health = dockerfile()
    services: Any = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    environment |= services["service"]["environment"]
    port = str(free_port())
    environment |= {
        "PATH": f"{programs}:/usr/bin:/bin",
        "STREAM_FP_BOOTSTRAP_SERVERS": broker, "STREAM_FP_INPUT_TOPIC": topic, "STREAM_FP_OUTPUT_TOPIC": output,
        "STREAM_FP_DEAD_LETTER_TOPIC": dead, "STREAM_FP_GROUP_ID": f"group-{topic}", "STREAM_FP_HTTP_PORT": port,
        "STREAM_FP_MODEL_PATH": environment["STREAM_FP_MODEL_PATH"].replace("/models/", f"{models}/"),
        "STREAM_FP_SIDECAR_DIR": environment["STREAM_FP_SIDECAR_DIR"].replace("/var/lib/stream-fp", str(state)),
    }  # fmt: skip
    options: dict[str, Any] = {"env": environment, "cwd": state}
    if os.getuid() == 0:
        if python_for_everybody() is None:
            pytest.skip("no Python 3.11 or later with venv that other users than root may run")
        os.chown(state, USER, USER)
        options |= {"user": USER, "group": USER, "extra_groups": []}
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*") if not path.is_relative_to(state)}
    process = await asyncio.create_subprocess_exec(
        *command, **options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(60):
            while await (
                await asyncio.create_subprocess_exec(*health, **options, stderr=asyncio.subprocess.DEVNULL)
            ).wait():
                await asyncio.sleep(0.2)
            while len(predictions := await read_all(broker, output)) < 100 and process.returncode is None:
                await asyncio.sleep(0.2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert all(json.loads(line)["level"] in {"INFO", "WARNING"} for line in said.decode().splitlines())
    assert {json.loads(one.value)["session_id"].split("_2026")[0] for one in predictions} <= {
        "PREMARKET", "NY_AM", "LUNCH", "NY_PM"
    }  # fmt: skip
    assert len(list((state / "sidecars").iterdir())) >= 100
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*") if not path.is_relative_to(state)} == before
