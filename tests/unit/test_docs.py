"""The documentation: what is generated is as the code has it, and the site that is built hangs together."""

from __future__ import annotations

import html.parser
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from jsonschema import Draft202012Validator, ValidationError

from docs.generate import pages
from offline.simulate import interleave, simulate_sessions
from stream_fp.classifier import Classifier
from stream_fp.config import Settings
from stream_fp.engine import Engine, EngineSettings
from stream_fp.files import FileRecord
from stream_fp.library import load_library
from stream_fp.messages import encode_prediction
from stream_fp.outcomes import Published
from stream_fp.predictor import Predictor
from tests.support.builders import write_tiny_library
from tests.support.schemas import ASYNCAPI, check_value

ROOT: Final = Path(__file__).parents[2]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_pages_are_as_the_code_has_it(path: Path) -> None:
    assert path.read_text("utf-8") == pages()[path], "run `make reference`"


def test_every_setting_has_its_row() -> None:
    (text,) = [text for path, text in pages().items() if path.name == "configuration.md"]
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert rows == [field.name for field in msgspec.structs.fields(Settings)]


class Page(html.parser.HTMLParser):
    """Collects what a page refers to, and what in it may be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = {name: value or "" for name, value in attrs}
        self.ids |= {facts[name] for name in ("id", "name") if name in facts}
        if tag == "a" and "href" in facts:
            self.links.append(facts["href"])
        if tag in {"script", "img", "iframe"} and "src" in facts:
            self.loaded.append(facts["src"])
        if tag == "link" and facts.get("rel") in {"stylesheet", "icon", "preload"}:
            self.loaded.append(facts["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return {path: Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: dict[Path, Page]) -> None:
    wrong = []
    for path, page in site.items():
        if path.name == "404.html":  # is served at any address, so it has absolute links
            continue
        wrong += [f"{path.name} loads {address}" for address in page.loaded if urlsplit(address).netloc]
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if not target.exists():
                wrong.append(f"{path.name}: {address}")
            elif parts.fragment and target in site and unquote(parts.fragment) not in site[target].ids:
                wrong.append(f"{path.name}: {address} (no such place)")
    assert wrong == []


def test_every_alert_has_its_section(site: dict[Path, Page]) -> None:
    (runbook,) = [page for path, page in site.items() if path.name == "runbook.html"]
    rules = (ROOT / "deploy" / "prometheus" / "rules" / "stream-fp.yml").read_text()
    alerts = [line.split()[-1] for line in rules.splitlines() if line.strip().startswith("- alert:")]
    assert len(alerts) >= 14
    assert {alert.lower() for alert in alerts} <= runbook.ids


def test_every_link_of_an_alert_leads_to_its_place_in_the_site_and_in_the_repository(site: dict[Path, Page]) -> None:
    (root,) = [path.parent for path in site if path.name == "runbook.html"]
    rules = (ROOT / "deploy" / "prometheus" / "rules" / "stream-fp.yml").read_text()
    # Two links of each alert: below the address where the site is served, and else the file.
    links = re.findall(r"\{\{ \. \}\}/([^#\s]+)#([\w-]+)\{\{ else \}\}([^#\s]+)#([\w-]+)\{\{ end \}\}", rules)
    assert len(links) == rules.count("- alert:") == rules.count("runbook_url:")
    for page, anchor, file, same_anchor in links:
        assert page == "runbook.html"
        assert anchor in site[root / page].ids
        assert (file, same_anchor) == ("docs/runbook.md", anchor)


def references(document: Any) -> Iterator[str]:  # noqa: ANN401 - any part of a document
    if isinstance(document, dict):
        if "$ref" in document:
            yield document["$ref"]
        for part in document.values():
            yield from references(part)
    elif isinstance(document, list):
        for part in document:
            yield from references(part)


def test_references_of_the_asyncapi_document_lead_somewhere() -> None:
    for reference in references(ASYNCAPI):
        place: Any = ASYNCAPI
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
    assert ASYNCAPI["asyncapi"].startswith("3.")
    addresses = {channel["address"] for channel in ASYNCAPI["channels"].values()}
    defaults = Settings()
    assert addresses == {defaults.input_topic, defaults.output_topic, defaults.dead_letter_topic}
    for message in ASYNCAPI["components"]["messages"].values():
        for part in ("payload", "headers"):
            Draft202012Validator.check_schema(message[part])
    for schema in ASYNCAPI["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_real_messages_and_predictions_are_what_the_schemas_say(tmp_path: Path) -> None:
    messages = [msgspec.json.encode(message) for message in interleave(simulate_sessions(14, seed=9))]
    for message in messages:
        check_value("event", message)
    library = load_library(write_tiny_library(tmp_path / "v0.0.1"))
    engine = Engine(
        Predictor(Classifier(library)),
        EngineSettings(),
        schedules=library.schedules,
        typical_events=library.typical_events,
    )
    stream = [
        FileRecord(offset, json.loads(message)["session_id"].encode(), message)
        for offset, message in enumerate(messages)
    ]
    said = [
        encode_prediction(outcome.prediction)
        for outcome in engine.process_all(stream)
        if isinstance(outcome, Published)
    ]
    assert len(said) >= 10
    for prediction in said:
        check_value("prediction", prediction)


def test_schemas_refuse_what_is_wrong() -> None:
    for wrong in ({"price": "much"}, {"htf_regime": 3}, {"session_metadata": {"expected_events": 0}}):
        with pytest.raises(ValidationError):
            check_value("event", json.dumps({"kind": "event", **wrong}).encode())
    with pytest.raises(ValidationError):
        check_value("prediction", b"{}")
