"""A backtest's page in a real browser: sessions are found, shown and drawn, and hostile ones do nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from offline.artifacts import write_library
from offline.backtest import present
from offline.dataset import load_dataset
from offline.train import train
from stream_fp.library import load_library
from tests.support.backtests import a_row, rows_of, write_result
from tests.support.browser import chromium, emulate, log, requests
from tests.support.datasets import FIXED, write_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium import webdriver
    from selenium.webdriver.remote.webelement import WebElement

    from stream_fp.replay.rows import BacktestRow

N_SESSIONS: Final = 240
N_LEARNED: Final = 150
HOSTILE: Final = "</script><script>alert(1)</script>"
HOSTILE_TYPE: Final = "<img src=x onerror=alert(2)>"
#: Of a session: the line of what was seen, that of what came, and the marker of the prediction.
LINES: Final = "#chart .scatterlayer .js-line"
MARKER: Final = "#chart .scatterlayer .point"
OVERFLOW: Final = """
const root = document.documentElement;
return Math.max(root.scrollWidth, document.body.scrollWidth) - root.clientWidth;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def rows_and_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[BacktestRow], str]:
    """Rows of simulated sessions and odd ones, and the address of the page."""
    folder: Path = tmp_path_factory.mktemp("backtest")
    source = write_sessions(folder / "sessions.jsonl", N_SESSIONS, seed=5)
    trained = train(
        load_dataset(source).select(np.arange(N_LEARNED)), dataclasses.replace(FIXED, checkpoints_pct=(30.0, 40.0))
    )
    metadata = write_library(trained, folder / "v1")
    rows, summary = rows_of(source, load_library(folder / "v1"), metadata)
    rows += [
        a_row(500, session_id=HOSTILE, session_type=HOSTILE_TYPE),
        a_row(501, session_id="open", outcome="open"),
        a_row(502, session_id="no price", path_pct=[None] * 41, range_so_far_pct=0.0),
        a_row(503, session_id="again"),
        a_row(503, session_id="again", first_offset=9, offset=10),
    ]
    present([write_result(folder, rows, folder / "v1", summary=summary)], folder / "out", force=False, to_stderr=True)
    return rows, (folder / "out" / "report.html").as_uri()


@pytest.fixture
def page(browser: webdriver.Chrome, rows_and_page: tuple[list[BacktestRow], str]) -> Iterator[str]:
    """Open the page; afterwards the console must be empty and nothing asked for but the page."""
    _, address = rows_and_page
    emulate(browser, width=1200)
    browser.get("about:blank")
    requests(browser)
    browser.get(address)
    yield address
    assert log(browser, "browser") == []
    assert {url.partition("#")[0] for url in requests(browser)} <= {address}


def shown(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def text(browser: webdriver.Chrome, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def wait_for(browser: webdriver.Chrome, selector: str, n: int = 1) -> None:
    WebDriverWait(browser, 20).until(lambda b: len(shown(b, selector)) >= n)


def listed(browser: webdriver.Chrome) -> list[str]:
    return [row.text for row in shown(browser, "#list tbody th a")]


def show(browser: webdriver.Chrome, address: str, session_id: str, checkpoint: str = "30", more: str = "") -> None:
    """Go to the page of a session by its address."""
    browser.get(f"{address}#session={quote(session_id)}&checkpoint={checkpoint}{more}")
    WebDriverWait(browser, 20).until(lambda b: text(b, "#session-title") == session_id + (" (2)" if more else ""))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_overview_and_session_do_not_scroll_sideways(
    browser: webdriver.Chrome, page: str, width: int, scheme: str
) -> None:
    emulate(browser, width=width, scheme=scheme)
    browser.get("about:blank")
    browser.get(page)
    browser.execute_script("document.querySelectorAll('details').forEach(element => { element.open = true })")
    assert browser.execute_script(OVERFLOW) <= 0
    assert len([svg for svg in shown(browser, "#overview svg.plot") if svg.size["width"] >= 250]) > 15
    shown(browser, "#list tbody a")[5].click()
    wait_for(browser, MARKER)
    assert browser.execute_script(OVERFLOW) <= 0
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 23, 29)") == (scheme == "dark")


def test_session_page_draws_the_path_the_band_and_the_prediction(
    browser: webdriver.Chrome, page: str, rows_and_page: tuple[list[BacktestRow], str]
) -> None:
    row = next(row for row in reversed(rows_and_page[0]) if row.outcome == "known" and row.checkpoint_pct == 40.0)
    show(browser, page, row.session_id, "40")
    wait_for(browser, MARKER)
    assert len(shown(browser, MARKER)) == 1
    # Two edges of each of P10, P50 and P90, what was seen, what came; and two zones.
    assert len([line for line in shown(browser, LINES) if line.get_attribute("d")]) >= 8
    assert len(shown(browser, "#chart .scatterlayer .js-fill")) == 2
    assert row.session_type in text(browser, "#session-facts")
    result = "right" if row.archetype_id == row.true_archetype_id else "wrong"
    assert result in str(browser.find_element(By.ID, "session-verdict").get_attribute("class")).split()
    assert f"{row.final_range_pct:.2f}" in text(browser, "#session-cards")
    assert f"{row.n_events} events" in text(browser, "#session-cards")
    assert len(shown(browser, "#session-cards .bars.tall .label")) == len(row.probabilities)
    assert not browser.find_element(By.ID, "overview").is_displayed()


def test_keys_and_links_lead_through_the_sessions_and_back(browser: webdriver.Chrome, page: str) -> None:
    del page
    ids = listed(browser)
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "filter-text"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert browser.switch_to.active_element.text == ids[1]
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    WebDriverWait(browser, 20).until(lambda b: text(b, "#session-title").startswith(ids[1]))
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 20).until(lambda b: text(b, "#session-title").startswith(ids[2]))
    browser.find_element(By.ID, "previous").click()
    WebDriverWait(browser, 20).until(lambda b: text(b, "#session-title").startswith(ids[1]))
    assert text(browser, "#place").startswith("2 of ")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    WebDriverWait(browser, 20).until(lambda b: b.find_element(By.ID, "overview").is_displayed())
    assert browser.switch_to.active_element.text == ids[1]


def test_list_is_searched_filtered_and_sorted(
    browser: webdriver.Chrome, page: str, rows_and_page: tuple[list[BacktestRow], str]
) -> None:
    del page
    rows = [row for row in rows_and_page[0] if row.checkpoint_pct == 30.0]
    n_wrong = sum(row.true_archetype_id not in {None, row.archetype_id} and row.session_type == "ny_am" for row in rows)
    Select(browser.find_element(By.ID, "filter-result")).select_by_value("wrong")
    Select(browser.find_element(By.ID, "filter-type")).select_by_value("ny_am")
    WebDriverWait(browser, 20).until(lambda b: text(b, "#count").startswith(f"{n_wrong} of {len(rows)} sessions"))
    browser.find_element(By.ID, "filter-clear").click()
    WebDriverWait(browser, 20).until(lambda b: text(b, "#count").startswith(f"{len(rows)} of"))
    browser.find_element(By.ID, "filter-text").send_keys("london_2025-01")
    expected = sorted(row.session_id for row in rows if row.session_id.lower().startswith("london_2025-01"))
    shown(browser, "#list thead button")[0].click()
    assert listed(browser) == expected
    shown(browser, "#list thead button")[0].click()
    assert listed(browser) == expected[::-1]
    assert shown(browser, "#list thead th")[0].get_attribute("aria-sort") == "descending"


def test_more_sessions_are_shown_on_demand(browser: webdriver.Chrome, page: str) -> None:
    del page
    n = len(listed(browser))
    browser.find_element(By.ID, "more").click()
    assert len(listed(browser)) > n


def test_hostile_session_is_shown_as_text_and_does_nothing(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, HOSTILE)
    wait_for(browser, MARKER)
    assert browser.title == f"{HOSTILE} at 30 %"
    assert HOSTILE_TYPE in text(browser, "#session-facts")
    assert shown(browser, "img") == []
    assert len(shown(browser, "script")) == 3
    browser.find_element(By.ID, "back").click()
    WebDriverWait(browser, 20).until(lambda b: b.find_element(By.ID, "overview").is_displayed())
    assert HOSTILE in listed(browser)


def test_sessions_that_lack_something_are_shown(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, "open")
    assert "not known" in text(browser, "#session-verdict")
    show(browser, page, "no price")
    WebDriverWait(browser, 20).until(lambda b: "no price to draw" in text(b, "#chart"))
    show(browser, page, "again", more="&nth=2")
    wait_for(browser, MARKER)


def test_address_of_no_session_shows_the_overview(browser: webdriver.Chrome, page: str) -> None:
    browser.get(f"{page}#session=nobody&checkpoint=30")
    assert browser.find_element(By.ID, "overview").is_displayed()


def test_chart_follows_the_scheme_of_the_system(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, "again")
    wait_for(browser, MARKER)
    colors: list[Any] = []
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        WebDriverWait(browser, 20).until(
            lambda b: b.execute_script("return document.getElementById('chart').layout.font.color") not in colors
        )
        colors.append(browser.execute_script("return document.getElementById('chart').layout.font.color"))
    assert len(set(colors)) == 2
