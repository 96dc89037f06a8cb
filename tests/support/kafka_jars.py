"""Find a Java, and fetch the jars of Kafka's broker with Maven.

`kafka/pom.xml` names the version. The jars stay in `build/kafka/libs`, so only the first start needs a network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["RESOURCES", "ROOT", "BrokerUnavailableError", "fetch_jars", "find_java", "kafka_version"]

ROOT = Path(__file__).resolve().parents[2]
RESOURCES = Path(__file__).resolve().parent / "kafka"
JARS = ROOT / "build" / "kafka" / "libs"

MIN_JAVA = 17
# Enough for 46 MB from a slow mirror.
FETCH_TIMEOUT_S = 600.0


class BrokerUnavailableError(RuntimeError):
    """Raised when this machine lacks what a broker needs. The text says what to install."""


def find_java() -> str:
    """Return the path of a Java that can run the broker: `JAVA_HOME` first, then `PATH`."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    java = java or shutil.which("java")
    if java is None:
        message = f"no Java {MIN_JAVA} or later (Debian: apt-get install openjdk-{MIN_JAVA}-jre-headless)"
        raise BrokerUnavailableError(message)
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', answer)
    if found is None or int(found[1]) < MIN_JAVA:
        message = f"{java} is not Java {MIN_JAVA} or later: {answer.strip().splitlines()[:1]}"
        raise BrokerUnavailableError(message)
    return java


def fetch_jars() -> Path:
    """Return the folder with the broker's jars; the first call after a change of `pom.xml` fetches them.

    The folder's name comes from the contents of `pom.xml`, and it appears complete or not at all: Maven fills
    a folder of another name, which is renamed at the end.
    """
    jars = JARS / hashlib.sha256(_pom()).hexdigest()[:12]
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        message = "no Maven to fetch Kafka's jars with (Debian: apt-get install maven)"
        raise BrokerUnavailableError(message)
    JARS.mkdir(parents=True, exist_ok=True)
    # One at a time: Maven's own repository is not made for several.
    with (JARS / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return jars if jars.is_dir() else _fetched(maven, jars)


def _fetched(maven: str, jars: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix="incomplete-", dir=JARS) as folder:
        partial = Path(folder) / "jars"
        command = [maven, "-q", "-B", "-f", str(RESOURCES / "pom.xml"), "dependency:copy-dependencies"]
        try:
            result = subprocess.run(
                [*command, f"-DoutputDirectory={partial}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=FETCH_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            message = f"Maven did not fetch Kafka's jars within {FETCH_TIMEOUT_S:g} s"
            raise BrokerUnavailableError(message) from error
        if result.returncode:
            errors = [line for line in result.stdout.splitlines() if "ERROR" in line]
            message = "Maven could not fetch Kafka's jars:\n  " + "\n  ".join(errors[:3])
            raise BrokerUnavailableError(message)
        partial.rename(jars)
    return jars


def kafka_version() -> str:
    """Return the version of Kafka that `kafka/pom.xml` names."""
    found = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>(.+?)<", _pom().decode())
    return found[1] if found else "?"


def _pom() -> bytes:
    return (RESOURCES / "pom.xml").read_bytes()
