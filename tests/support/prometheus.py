"""A real Prometheus on loopback, with the rules of `deploy/`, and `promtool`; where lacking, skipped or failed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final, Self

from tests.support.lacking import lacking
from tests.support.service import free_port

__all__ = ["RULES", "RULE_TESTS", "Prometheus", "promtool"]

REQUIRE_PROMETHEUS: Final = "STREAM_FP_REQUIRE_PROMETHEUS"
_DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES: Final = _DEPLOY / "rules" / "stream-fp.yml"
RULE_TESTS: Final = tuple(sorted((_DEPLOY / "tests").glob("*.yml")))
_START_S: Final = 30.0


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        what = f"no {program}: install prometheus (Debian: apt-get install prometheus)"
        lacking(what, required_by=REQUIRE_PROMETHEUS)
    return path


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run `promtool`."""
    return subprocess.run(
        [_found("promtool"), *map(str, arguments)], input=given, capture_output=True, text=True, check=False
    )


def _hurried(rules: str) -> str:
    """Shorten what rules look back; thresholds stay."""
    for ago, seconds in (("5m", 10), ("10m", 30), ("15m", 30), ("30m", 30), ("1h", 30), ("6h", 30), ("1d", 60)):
        rules = rules.replace(f"[{ago}]", f"[{seconds}s]")
    # Four starts of a process, which on a busy machine take ten seconds each.
    rules = re.sub(r"(changes\(.*)\[\w+\]", r"\1[90s]", rules)
    rules = rules.replace("stalled_seconds > 60", "stalled_seconds > 4")
    rules = rules.replace("offset 15m", "offset 15s").replace("offset 6h", "offset 30s")
    always = re.sub(r"and on \(\)\s+\((?:day_of_week|hour)\(\)[^)]*\)\n", "\n", rules)
    assert "()" not in re.sub(r"group_left \(\)", "", always)
    return always


class Prometheus:
    """Scrapes targets every second, and evaluates our rules as often, with alerts that wait for a second only.

    Parameters
    ----------
    folder : Path
        Takes its configuration and data.
    targets : sequence of str
        ``host:port``, of the job ``stream-fp``.
    hurried : bool
        Rules look back seconds where they look back minutes, hours or a day, and at any time of the week.
    """

    def __init__(self, folder: Path, targets: list[str], *, hurried: bool = False) -> None:
        rules = re.sub(r"interval: \w+", "interval: 1s", re.sub(r"\bfor: \w+", "for: 1s", RULES.read_text()))
        if hurried:
            rules = _hurried(rules)
        (folder / "rules.yml").write_text(rules)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "stream-fp", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    _found("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        self._log = folder / "log"

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(_START_S):
                while not await self._answers():
                    assert self._process.poll() is None, self._log.read_text()
                    await asyncio.sleep(0.1)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 20)

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression now, each with `metric` and `value`."""
        answer = await self._get("query", query=expression)
        found: list[dict[str, Any]] = answer["result"]
        return found

    async def wait_for(self, expression: str, timeout_s: float = 40.0) -> list[dict[str, Any]]:
        """Return the series of an expression as soon as there are some."""
        async with asyncio.timeout(timeout_s):
            while not (found := await self.query(expression)):
                await asyncio.sleep(0.2)
            return found

    async def has_fired(self, alert: str, timeout_s: float = 60.0) -> None:
        """Return once an alert fires, or has done so within the last minutes."""
        try:
            await self.wait_for(f'max_over_time(ALERTS{{alertname="{alert}", alertstate="firing"}}[10m])', timeout_s)
        except TimeoutError as error:
            (rule,) = [rule for rule in await self.rules() if rule["name"] == alert]
            parts = {part: await self.query(part) for part in re.findall(r"[\w:]*stream_fp[\w:]*", rule["query"])}
            error.add_note(f"{alert} has not fired: {rule}, {parts}")
            raise

    async def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their state."""
        return [rule for group in (await self._get("rules"))["groups"] for rule in group["rules"]]

    async def _answers(self) -> bool:
        try:
            await self.query("vector(1)")
        except OSError:
            return False
        return True

    async def _get(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"

        def read() -> dict[str, Any]:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
                data: dict[str, Any] = json.load(answer)["data"]
                return data

        return await asyncio.to_thread(read)
