"""Take the documentation's pictures of a backtest's page, as its readers see it, with Chromium.

make screenshots
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.browser import chromium, emulate

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1200, 900


def main() -> int:
    """Open the page that is named, and take its pictures; returns the exit status."""
    page = Path(sys.argv[1]).resolve().as_uri()
    with chromium() as browser:
        browser.set_window_size(WIDTH, HEIGHT)
        emulate(browser, width=WIDTH)
        browser.get(page)
        for name, script in (
            ("backtest", "window.scrollTo(0, 0)"),
            ("session", 'document.querySelector(\'[href^="#"][href*="NY_"]\').click()'),
        ):
            browser.execute_script(script)
            browser.execute_script("return new Promise(done => setTimeout(done, 1000))")
            browser.save_screenshot(str(IMAGES / f"{name}.png"))
            print(IMAGES / f"{name}.png")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
