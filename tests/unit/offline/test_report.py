"""The evaluation report: its JSON, its words, its page and its pictures."""

from __future__ import annotations

import ast
import inspect
import math
import re
from html import escape
from html.parser import HTMLParser
from typing import Any, Final
from xml.etree import ElementTree as ET

import matplotlib as mpl
import msgspec
import pytest

from offline import report as report_module
from offline.report import Band, Group, Interval, Report, RestR2, decode_report, encode_report
from offline.report_page import render_page
from offline.report_plots import plot_archetypes, plot_reliability
from offline.report_words import main_checkpoint, verdict
from stream_fp.errors import DocumentError
from stream_fp.phases import PHASES
from tests.support.reports import empty_checkpoint, random_report

replace = msgspec.structs.replace

#: What would end an element, an attribute, a comment or a template expression, and what matplotlib reads as a formula.
HOSTILE: Final = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "]]> --> </text></svg></style>",
    r"$\frac{$ & &lt; %s {{ 7 * 7 }} {% raw %}",
    'id="x" url(#y) href="#z"',
    "nul \x00 bell \x07 escape \x1b turned \u202e line\nbreak",
    "漢字 \U0001f4c8 עברית",
    "javascript:alert(1) " + "very long " * 400,
)
VOID: Final = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Notes what a browser would meet, and that each element is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in {"href", "src", "xlink:href"}:
                self.references.append(value or "")
            elif name.startswith("on"):
                self.handlers.append(name)
            self.references += [f"#{target}" for target in re.findall(r"url\(#([^)]*)\)", value or "")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def svgs(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def assert_sound(page: str) -> Page:
    """Check that a page parses, that its parts find each other, and that it asks for nothing from elsewhere."""
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert parsed.handlers == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {reference for reference in parsed.references if not reference.startswith("#")} <= {"data:,"}
    assert {reference[1:] for reference in parsed.references if reference.startswith("#")} <= set(parsed.ids)
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page))
    assert not re.search(r"@import|url\((?!#)", page)
    for svg in svgs(page):
        ET.fromstring(svg)
    assert len(svgs(page)) == parsed.tags.count("svg")
    return parsed


def with_text(value: object, text: str) -> object:
    """Put `text` in the place of every text of a tree of builtins, but for the keys by which numbers are found."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [with_text(part, text) for part in value]
    if isinstance(value, dict):
        return {name: with_text(part, text) for name, part in value.items()}
    return value


def hostile_report(text: str) -> Report:
    report: Any = with_text(msgspec.to_builtins(random_report(3, n_archetypes=2, checkpoints=(30,))), text)
    (checkpoint,) = report["checkpoints"].values()
    for groups in (checkpoint["by_month"], checkpoint["by_session_type"]):
        groups[text] = next(iter(groups.values()))
    for place in ("settings", "n_left_out", "archetype_sizes", "overall_phase_rates"):
        report[place][text] = next(iter(report[place].values()))
    for picture in report["archetypes"]:
        picture["session_types"] = {text: 1.0}
        picture["phase_rates"][text] = 1.0
    report["checkpoints"][text] = checkpoint
    return msgspec.convert(report, Report)


@pytest.fixture(scope="module")
def report() -> Report:
    return random_report(1)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render_page(report)


@pytest.fixture(scope="module")
def small() -> Report:
    return random_report(2, n_archetypes=3, checkpoints=(30,), n=90)


# ------------------------------------------------------------------------------------------------------------- JSON


def test_report_written_and_read_is_the_same(report: Report) -> None:
    content = encode_report(report)
    assert decode_report(content) == report
    assert content.startswith(b'{\n  "model_version"')
    assert encode_report(decode_report(content)) == content


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_number_that_is_not_finite_is_refused_with_its_place(small: Report, number: float) -> None:
    checkpoint = replace(small.checkpoints["30"], accuracy_interval=Interval(low=0.1, high=number))
    with pytest.raises(ValueError, match=r"finite.*\$\.checkpoints\.30\.accuracy_interval\.high"):
        encode_report(replace(small, checkpoints={"30": checkpoint}))
    band = Band(p10=[0.0, number], p50=[], p90=[])
    with pytest.raises(ValueError, match=r"\$\.archetypes\[1\]\.mean_band\.p10\[1\]"):
        encode_report(replace(small, archetypes=[small.archetypes[0], replace(small.archetypes[1], mean_band=band)]))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"model_version": 1}', b"\xff\xfe"])
def test_content_that_is_no_report_is_refused_with_the_files_name(content: bytes) -> None:
    with pytest.raises(DocumentError, match=r"run/report\.json: expected an evaluation report"):
        decode_report(content, where="run/report.json")


def test_every_field_says_what_it_is() -> None:
    tree = ast.parse(inspect.getsource(report_module))
    for structure in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, follower in zip(structure.body, [*structure.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(follower, ast.Expr), f"{structure.name}: {ast.unparse(field)}"
                assert isinstance(follower.value, ast.Constant)
                assert len(str(follower.value.value).splitlines()) == 1


def test_outcomes_of_the_rest_hold_every_phase() -> None:
    assert set(PHASES) < set(RestR2.__struct_fields__)


# ------------------------------------------------------------------------------------------------------------ words


def test_verdict_names_the_figures_of_the_usual_checkpoint(report: Report) -> None:
    checkpoint = report.checkpoints["30"]
    text = " ".join(verdict(report)).replace("\u00a0", " ")
    said = (
        f"At 30 % the model names the right archetype in {checkpoint.accuracy * 100:.0f} % of the sessions (70 to 77)"
    )
    assert text.startswith(said)
    assert "from session type and regime: 58 %. That is 12 to 20 points more." in text
    assert "When it says 85 %, it is right in 87 %." in text
    assert "within the forecast's 80 % band in 79 % of the sessions, and its error is 16 % smaller" in text
    assert "all later than those the library was learned from" in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.02, 0.09, "That is 2 to 9 points more."), (-0.01, 0.04, "may be chance"), (-0.09, -0.02, "is worse than")],
)
def test_verdict_claims_no_more_than_the_interval_of_the_gain(
    small: Report, low: float, high: float, said: str
) -> None:
    checkpoint = replace(small.checkpoints["30"], best_guess_gain_interval=Interval(low=low, high=high))
    assert said in verdict(replace(small, checkpoints={"30": checkpoint}))[0]


def test_verdict_says_when_the_forecast_is_no_better_or_worse(small: Report) -> None:
    for ratio, interval, said in (
        (0.98, Interval(low=0.9, high=1.05), "does not clearly differ"),
        (1.2, Interval(low=1.1, high=1.3), "20\u00a0% larger"),
    ):
        checkpoint = replace(small.checkpoints["30"], pinball_ratio=ratio, pinball_ratio_interval=interval)
        assert said in " ".join(verdict(replace(small, checkpoints={"30": checkpoint})))


def test_verdict_says_when_the_library_may_know_the_sessions(small: Report) -> None:
    training = replace(small.training, last_date=small.last_date)
    assert "all later" not in " ".join(verdict(replace(small, training=training)))


def test_main_checkpoint_is_the_judged_one_nearest_to_the_usual(small: Report) -> None:
    judged = small.checkpoints["30"]
    assert main_checkpoint(replace(small, checkpoints={"45": judged, "35": judged, "30": empty_checkpoint()})) == "35"
    assert main_checkpoint(replace(small, checkpoints={"30": empty_checkpoint()})) is None
    assert main_checkpoint(replace(small, checkpoints={"whole": judged})) == "whole"


# ------------------------------------------------------------------------------------------------- page and pictures


def test_page_is_sound_and_needs_nothing_else(page: str) -> None:
    parsed = assert_sound(page)
    assert parsed.tags.count("svg") > 20


def test_page_shows_figures_with_intervals_names_and_notes(report: Report, page: str) -> None:
    text = Page(page).text
    for expected in ("70.4 to 77.4", "Full centroids", *report.notes, report.library_path):
        assert expected in text
    for picture in report.archetypes:
        assert text.count(picture.name) >= 2  # the card and the confusion matrix
        assert picture.examples[0].session_id in text


def test_same_report_gives_the_same_bytes_whatever_the_style(small: Report) -> None:
    before = (render_page(small), plot_reliability(small, "30"), plot_archetypes(small))
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "black"}):
        style = dict(mpl.rcParams)
        after = (render_page(small), plot_reliability(small, "30"), plot_archetypes(small))
        assert dict(mpl.rcParams) == style
    assert after == before


# Two at a time: drawing takes seconds.
@pytest.mark.parametrize("text", [" ".join(HOSTILE[i::4]) for i in range(4)], ids=range(4))
def test_hostile_text_stays_text(text: str) -> None:
    report = hostile_report(text)
    page = render_page(report)
    parsed = assert_sound(page)
    assert "img" not in parsed.tags
    if "<" in text:
        assert text not in page
        assert escape(text, quote=False).split()[0] in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
    for document in (plot_archetypes(report), plot_reliability(report, text)):
        ET.fromstring(document)
        assert "<script" not in document


def test_pictures_are_documents_of_800_pixels_that_keep_text_as_text(report: Report) -> None:
    for document, said in (
        (plot_reliability(report, "30"), "612 sessions"),
        (plot_archetypes(report), "0 · quiet drift with gaps"),
    ):
        root = ET.fromstring(document)
        assert root.attrib["width"] == "800"
        assert said in {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", document))


@pytest.mark.parametrize("n_archetypes", [0, 1, 9])
def test_any_number_of_archetypes_renders(n_archetypes: int) -> None:
    report = random_report(5, n_archetypes=max(1, n_archetypes), checkpoints=(30,))
    if not n_archetypes:
        report = replace(report, n_archetypes=0, archetypes=[], archetype_sizes={})
    assert_sound(render_page(report))
    ET.fromstring(plot_archetypes(report))


def test_report_without_checkpoints_or_judged_sessions_renders(small: Report) -> None:
    bare = replace(small, checkpoints={}, archetypes=[], notes=[], settings={}, n_left_out={}, overall_phase_rates={})
    assert "nothing can be said" in assert_sound(render_page(bare)).text
    unreached = replace(small, checkpoints={"30": empty_checkpoint(), "35": empty_checkpoint(0)})
    text = assert_sound(render_page(unreached)).text
    assert "No session was judged at this checkpoint." in text
    assert "–" in text
    assert "0.0 %" not in text
    ET.fromstring(plot_reliability(unreached, "35"))


def test_values_that_are_missing_are_dashes(small: Report) -> None:
    nothing = RestR2(**dict.fromkeys(RestR2.__struct_fields__))
    hopeless = RestR2(**dict.fromkeys(RestR2.__struct_fields__, -7.25))
    group = Group(
        n=0,
        accuracy=0,
        log_loss=0,
        baseline_type_regime_accuracy=0,
        baseline_type_regime_log_loss=0,
        coverage_80=None,
        pinball_ratio=None,
        rest_r2_mean=None,
        baseline_type_regime_rest_r2_mean=None,
    )
    checkpoint = replace(
        small.checkpoints["30"],
        confusion=[[0, 0, 0], [1, 0, 0], []],
        rest_r2=nothing,
        baseline_type_rest_r2=hopeless,
        by_month={"2025-01": group},
        by_session_type={},
    )
    shapeless = [
        replace(
            picture, n_sessions=0, share=0, examples=[], mean_band=Band(p10=[], p50=[], p90=[]), phase_rates={},
            session_types={}, volatility_class="",
        )
        for picture in small.archetypes
    ]  # fmt: skip
    text = assert_sound(render_page(replace(small, checkpoints={"30": checkpoint}, archetypes=shapeless))).text
    assert "an unknown share" in text
    assert "−7.25" in text
    assert text.count("no sessions") >= len(shapeless)
    ET.fromstring(plot_archetypes(replace(small, archetypes=shapeless)))
