"""Chromium without a window, which looks at pages as their readers do, and notes its console and its network."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.support.lacking import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chromium", "emulate", "log", "requests"]

REQUIRE_BROWSER: Final = "STREAM_FP_REQUIRE_BROWSER"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Start Chromium; the test is skipped where there is none, or fails where one is required."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        what = "no Chromium with its driver: install chromium and chromium-driver (Debian: apt-get install)"
        lacking(what, required_by=REQUIRE_BROWSER)
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


def emulate(browser: webdriver.Chrome, *, width: int, scheme: str = "light") -> None:
    """Show pages at a width in pixels, light or dark, and forget what the logs have had so far."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    log(browser, "browser")
    log(browser, "performance")


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
