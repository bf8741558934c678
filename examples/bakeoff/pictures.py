"""Takes pictures of a comparison's page and of one of its episodes, as they look in a browser.

python examples/bakeoff/pictures.py runs/bakeoff docs
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from etude.report.page import write_report

ARGUMENTS = ["--no-sandbox", "--disable-gpu"]


def main(comparison: str, out: str) -> None:
    page = write_report(comparison).resolve().as_uri()
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for name, scheme, width in (
            ("bakeoff", "light", 1180),
            ("bakeoff-dark", "dark", 1180),
            ("bakeoff-phone", "light", 390),
        ):
            tab = browser.new_page(
                viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=1.5
            )
            tab.goto(page)
            tab.wait_for_selector("[data-chart=compute] canvas")
            _shot(tab, place / f"{name}.png")
            tab.close()
        tab = browser.new_page(viewport={"width": 1180, "height": 860}, device_scale_factor=1.5)
        tab.goto(page)
        tab.click("table.arms a:has-text('episodes')")
        tab.wait_for_selector(".list a")
        tab.select_option("select[name=sort]", "rescored")
        tab.wait_for_timeout(400)
        tab.click(".list a")
        tab.wait_for_selector(".turn.mine .token")
        if tab.locator("button[data-value=change]").count():
            tab.click("button[data-value=change]")
        tab.screenshot(path=place / "bakeoff-episode.png")
        browser.close()


def _shot(tab: Page, path: Path) -> None:
    """The verdict, the curves, the differences and the table of arms; settings and environment are left to the page."""
    tab.wait_for_timeout(400)
    bottom = tab.evaluate("document.querySelector('table.arms').getBoundingClientRect().bottom + scrollY")
    tab.set_viewport_size({"width": tab.viewport_size["width"], "height": int(bottom) + 24})
    tab.wait_for_timeout(400)
    tab.screenshot(path=path)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["runs/bakeoff", "docs"]))
