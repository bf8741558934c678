"""The view of tasks that a model wrote, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest

from browser.synthetic import MALICIOUS
from browser.watched import Watched, until
from etude.report.page import write_report
from test_written import writing_run


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(writing_run(tmp_path_factory.mktemp("written") / "run", MALICIOUS).path).as_uri()


def test_a_written_task_is_found_by_keys_alone(watched: Watched, page_file: str) -> None:
    page = watched.open(page_file)
    page.keyboard.press("4")
    page.wait_for_selector(".list a")
    assert page.inner_text(".count-line") == "2 tasks of 2"
    page.keyboard.press("j")
    until(page, "document.querySelector('.episode')?.textContent.includes('teacher')")
    page.keyboard.press("j")
    until(page, "document.querySelector('.episode')?.textContent.includes('solved 1 of 4')")
    said = page.inner_text(".episode")
    assert "Written by policy at step 2 in episode 2-1; it left the buffer at step 4." in said
    assert "When it was written, 25% of the attempts at it were right." in said
    rows = page.eval_on_selector_all(".episode tbody tr", "l => l.map(r => r.innerText.split('\\t'))")
    assert rows[2] == ["4", "policy 1", "✓ pass", "4-0"]
    assert page.locator(".episode img, .episode script").count() == 0
    shown = page.inner_text(".episode .turns")
    assert "<img src=x onerror=" in shown
    assert not set(shown) & set("\x1b\x00\u202e\u202c\u2028")
    assert page.title() == "run · etude"
    page.keyboard.press("/")
    page.keyboard.type("4 + 4")
    until(page, "document.querySelectorAll('.list a').length === 1")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_selector(".detail .empty")
    page.evaluate("location.hash = '#view=episodes&episode=4-0'")
    page.wait_for_selector(".episode .token")


def test_filters_and_a_narrow_screen(chromium: Any, page_file: str) -> None:
    one = Watched(chromium, viewport={"width": 360, "height": 740}, has_touch=True)
    page = one.open(page_file + "#view=written")
    page.wait_for_selector(".list a")
    page.select_option("select[name=state]", "sometimes")
    assert page.inner_text(".count-line") == "1 task of 2"
    page.click(".list a")
    page.wait_for_selector(".episode tbody tr")
    assert one.overflow() <= 0
    page.click(".back")
    page.select_option("select[name=state]", "untried")
    assert page.inner_text(".count-line") == "1 task of 2"
    one.context.close()
    assert one.said == []
