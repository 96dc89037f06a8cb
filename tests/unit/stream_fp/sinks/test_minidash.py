from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_fp import create_online_classifier
from stream_fp.sinks import minidash
from stream_fp.sinks.minidash import write_row
from tests.support.builders import SESSION_ID, event, make_prediction, write_tiny_library

if TYPE_CHECKING:
    from pathlib import Path


class Page(HTMLParser):
    """The body rows of a page as lists of cell texts, and every tag that occurs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr" and attrs:
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def rows_of(path: Path) -> list[list[str]]:
    return Page(path.read_text("utf-8")).rows


def test_first_row_makes_the_page(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dash.html"
    write_row(make_prediction(pct_seen=28.8), path)
    assert rows_of(path) == [
        ["NY_AM_2025-07-29", "28.8 %", "1: calm drift", "50%", "medium", "0.20 - 0.50 - 1.00 %",
         "expansion_phase, liquidity_sweep",
         "2025-07-29T14:15:00", "0.0.1"]
    ]  # fmt: skip


def test_same_prediction_written_again_changes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "dash.html"
    write_row(make_prediction(), path)
    once = path.read_bytes()
    write_row(make_prediction(), path)
    assert path.read_bytes() == once


def test_newest_row_is_on_top_and_replaces_its_older_self(tmp_path: Path) -> None:
    path = tmp_path / "dash.html"
    for session_id in ("A", "B", "C", "A"):
        write_row(make_prediction(session_id=session_id), path)
    assert [row[0] for row in rows_of(path)] == ["A", "C", "B"]


def test_checkpoints_and_model_versions_have_rows_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "dash.html"
    write_row(make_prediction(checkpoint_pct=30.0), path)
    write_row(make_prediction(checkpoint_pct=50.0), path)
    write_row(make_prediction(checkpoint_pct=50.0, model_version="0.0.2"), path)
    assert [row[-1] for row in rows_of(path)] == ["0.0.2", "0.0.1", "0.0.1"]


def test_only_the_newest_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minidash, "MAX_ROWS", 5)
    path = tmp_path / "dash.html"
    for i in range(12):
        write_row(make_prediction(session_id=f"S{i}"), path)
    assert [row[0] for row in rows_of(path)] == ["S11", "S10", "S9", "S8", "S7"]


hostile_ids = st.lists(
    st.sampled_from(
        (
            *('"', "'", "<", ">", "&", "</tr>", "{", "}", "a", "\\1", "&quot;"),
            '<tr data-key="x">',
            "<script>alert(1)</script>",
        )
    ),
    min_size=1,
    max_size=8,
).map("".join)


@given(one=hostile_ids, other=hostile_ids)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_session_ids_are_shown_and_not_obeyed(tmp_path: Path, one: str, other: str) -> None:
    path = tmp_path / "dash.html"
    path.unlink(missing_ok=True)
    for session_id in (one, other, one):
        write_row(make_prediction(session_id=session_id), path)
    page = Page(path.read_text("utf-8"))
    assert [row[0] for row in page.rows] == list(dict.fromkeys((one, other)))
    assert "script" not in page.tags


def test_page_written_by_hand_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "dash.html"
    path.write_text("<html>something else</html>")
    write_row(make_prediction(), path)
    assert len(rows_of(path)) == 1


def test_row_shows_the_forecast_of_the_session(tmp_path: Path) -> None:
    classifier = create_online_classifier(enabled=True, model_path=write_tiny_library(tmp_path / "v0.0.1"))
    events = [event(minute=minute, price=100 + minute % 5 / 10) for minute in range(0, 60, 3)]
    prediction = classifier.classify_partial_session({"events": events, "session_metadata": {}}, session_id=SESSION_ID)
    assert prediction is not None
    classifier.write_minidash_row(prediction, tmp_path / "dash.html")
    (row,) = rows_of(tmp_path / "dash.html")
    stats = prediction.predicted_stats
    band = stats.natural_units.range_pct
    assert row == [
        SESSION_ID,
        f"{prediction.pct_seen:g} %",
        f"{prediction.archetype_id}: {prediction.classification_metadata.archetype_name}",
        f"{100 * prediction.confidence:.0f}%",
        stats.volatility_class,
        f"{band.p10:.2f} - {band.p50:.2f} - {band.p90:.2f} %",
        ", ".join(phase for phase, _ in stats.top_phases),
        prediction.classification_metadata.timestamp[:19],
        "0.0.1",
    ]


def test_hostile_archetype_name_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    prediction, name = make_prediction(), "</td></tr><script>\"calm\" & 'wild'</script>"
    how = msgspec.structs.replace(prediction.classification_metadata, archetype_name=name)
    write_row(msgspec.structs.replace(prediction, classification_metadata=how), tmp_path / "dash.html")
    page = Page((tmp_path / "dash.html").read_text("utf-8"))
    assert [row[2] for row in page.rows] == [f"1: {name}"]
    assert "script" not in page.tags
