"""The report's page in a real browser: it shows, it fits a phone, and it asks the network for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from offline.report_page import render_page
from tests.support.browser import chromium, emulate, log, requests
from tests.support.reports import empty_checkpoint, random_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium import webdriver

MEASURE: Final = """
document.querySelectorAll("details").forEach(element => { element.open = true });
const sizes = Array.from(document.querySelectorAll("svg"), element => {
  const box = element.getBoundingClientRect();
  return [box.width, box.height];
});
const root = document.documentElement;
return {
  sizes,
  width: innerWidth,
  overflow: Math.max(root.scrollWidth, document.body.scrollWidth) - root.clientWidth,
};
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = random_report(1, checkpoints=(25, 30))
    report.checkpoints["35"] = empty_checkpoint()
    report.settings["a_setting_of_a_very_long_name_" * 4] = "a/very/long/value/" * 20
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(report), "utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_page_shows_every_picture_and_does_not_scroll_sideways(
    browser: webdriver.Chrome, page_file: Path, width: int, scheme: str
) -> None:
    emulate(browser, width=width, scheme=scheme)

    browser.get(page_file.as_uri())
    found: dict[str, Any] = browser.execute_script(MEASURE)

    assert found["width"] == width
    assert found["overflow"] <= 0
    assert len(found["sizes"]) > 20
    assert all(250 <= w <= width and h >= 50 for w, h in found["sizes"])
    assert log(browser, "browser") == []
    assert requests(browser) == {page_file.as_uri()}
