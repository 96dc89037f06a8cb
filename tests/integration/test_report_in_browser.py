"""The report's page in a real browser: it shows, it fits a phone, and it asks the network for nothing."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from offline.report_page import render_page
from tests.support.reports import empty_checkpoint, random_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUIRE_BROWSER: Final = "STREAM_FP_REQUIRE_BROWSER"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
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
    """Start Chromium without a window; it notes its console and its network."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        lacking = "no Chromium with its driver: install chromium and chromium-driver (Debian: apt-get install)"
        if os.environ.get(REQUIRE_BROWSER) == "1":
            pytest.fail(lacking, pytrace=False)
        pytest.skip(lacking)
    options = Options()
    options.binary_location = binary
    # Root and most containers have no sandbox for it, and small shared memory; the page is our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both are named, so that selenium does not look for them, or for newer ones, on the network.
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


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
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    log(browser, "browser")
    log(browser, "performance")

    browser.get(page_file.as_uri())
    found: dict[str, Any] = browser.execute_script(MEASURE)

    assert found["width"] == width
    assert found["overflow"] <= 0
    assert len(found["sizes"]) > 20
    assert all(250 <= w <= width and h >= 50 for w, h in found["sizes"])
    assert log(browser, "browser") == []
    assert requests(browser) == {page_file.as_uri()}


def log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """Return what a log of the browser has had since the last call."""
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def requests(browser: webdriver.Chrome) -> set[str]:
    """Return what was asked for since the last call; ``data:`` is no request, its content is in the page."""
    messages = [json.loads(entry["message"])["message"] for entry in log(browser, "performance")]
    urls = {
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    }
    return {url for url in urls if not url.startswith("data:")}
