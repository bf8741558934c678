"""A Chromium for the tests of pages; they are passed over where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from browser.watched import Watched

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-quic"]  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Of one module: while it is there its event loop runs, in which no test of another module could run its own."""
    if CHROMIUM is None:
        pytest.skip("skipped: no Chromium here (apt-get install chromium)")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="skipped: no Playwright here (pip install playwright)"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    one = Watched(chromium)
    yield one
    one.context.close()
    assert one.said == [], "nothing on the console"
