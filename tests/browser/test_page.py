"""The page in a real browser: Debian's Chromium, driven by Playwright. It must work, and it must stay quiet."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser.synthetic import MALICIOUS, Words, extra_metrics, make_comparison, make_run, make_step
from browser.watched import Watched, until
from etude.report.page import write_report
from etude.report.run import RunDirectory
from etude.report.server import make_server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "alpha", steps=45, collapse=True)
    make_comparison(root / "bake", steps=3)
    write_report(root / "alpha")
    write_report(root / "bake")
    return root


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    server = make_server(root)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def colours(page: Any) -> list[str]:
    return list(
        page.eval_on_selector_all(
            ".turn.mine .token", "list => list.map(n => getComputedStyle(n).backgroundColor)"
        )
    )


def test_curves_offline(watched: Watched, root: Path) -> None:
    page = watched.open((root / "alpha" / "report.html").as_uri())
    charts = set(page.eval_on_selector_all("[data-chart]", "list => list.map(n => n.dataset.chart)"))
    assert {
        "heldout",
        "reward",
        "signal",
        "length",
        "truncated",
        "entropy",
        "kl_start",
        "gap",
        "grad_norm",
        "time",
    } <= charts
    assert {"kinds", "curriculum", "losses", "risk-coverage", "abstention"} <= charts
    assert "wrong among the surest answers" in page.inner_text("[data-chart=risk-coverage]")
    until(page, "document.querySelectorAll('[data-chart] canvas').length >= 14")
    assert "12.0% →" in page.inner_text(".tiles")
    assert page.inner_text(".history") == "from step 22 on: update.lr 0.00001 → 0.000003"
    health = page.inner_text(".health")
    assert "entropy collapse" in health
    page.click(".findings li:has-text('entropy collapse') a")
    page.wait_for_selector(".episode .token")
    assert page.url.split("episode=")[1].split("-")[0] in health
    assert watched.asked == [watched.page.url.split("#")[0]], "one file, and nothing from anywhere"


def test_the_horizontal_axis_can_be_changed(watched: Watched, root: Path) -> None:
    page = watched.open((root / "alpha" / "report.html").as_uri())
    page.click("button[data-value='seconds']")
    page.hover("[data-chart=reward] .u-over")
    assert page.inner_text("[data-chart=reward] .reading").startswith("seconds ")


def test_filter_and_sort(watched: Watched, root: Path) -> None:
    page = watched.open((root / "alpha" / "report.html").as_uri() + "#view=episodes")
    run = RunDirectory.open(root / "alpha")
    table = run.episodes(columns=["kind", "step", "correct", "reward", "origin"]).to_pylist()
    page.wait_for_selector(".list a")

    def count() -> int:
        page.wait_for_timeout(250)
        return int(page.inner_text(".count-line").split()[0])

    assert count() == len(table)
    page.select_option("select[name=kind]", "maze")
    assert count() == sum(r["kind"] == "maze" for r in table)
    page.select_option("select[name=verdict]", "fail")
    assert count() == sum(r["kind"] == "maze" and r["correct"] is False for r in table)
    page.fill("input[name=from]", "5")
    page.fill("input[name=to]", "9")
    assert count() == sum(
        r["kind"] == "maze" and r["correct"] is False and 5 <= r["step"] <= 9 for r in table
    )
    page.select_option("select[name=verdict]", "")
    page.fill("input[name=low]", "1")
    assert count() == sum(r["kind"] == "maze" and r["reward"] == 1 and 5 <= r["step"] <= 9 for r in table)
    for name in ("from", "to", "low"):
        page.fill(f"input[name={name}]", "")
    page.select_option("select[name=kind]", "")
    page.select_option("select[name=verdict]", "error")
    assert count() == sum(r["origin"] == "failed" for r in table) > 0
    page.select_option("select[name=verdict]", "")
    page.select_option("select[name=sort]", "change")
    page.wait_for_timeout(250)
    page.click(".list a")
    page.wait_for_selector(".verdict.fail + .turn")
    assert page.locator(".turns > .verdict").count() == 2, "wrong at first, right at last"


def test_an_episode_is_coloured_by_credit_logp_and_mask(watched: Watched, root: Path) -> None:
    page = watched.open((root / "alpha" / "report.html").as_uri() + "#view=episodes")
    page.wait_for_selector(".list a")
    page.select_option("select[name=sort]", "spread")
    page.wait_for_timeout(250)
    page.click(".list a:has(.mark.pass)")
    page.wait_for_selector(".turn.mine .token")
    by_credit = colours(page)
    assert page.locator(".turn.mine .token.plus").count() == len(by_credit)
    assert len(set(by_credit)) > 5, "credit fades along the answer, and so do the colours"
    given = page.eval_on_selector_all(
        ".turn:not(.mine) .token", "l => l.map(n => getComputedStyle(n).backgroundColor)"
    )
    assert set(given) == {"rgba(0, 0, 0, 0)"}, "what was given carries no credit"
    page.click("button[data-value=logp]")
    by_logp = colours(page)
    assert by_logp != by_credit
    page.keyboard.press("c")
    assert len(set(colours(page))) == 1
    page.click("button[data-value=credit]")
    page.click(".strip .fail")
    page.wait_for_selector(".episode .badge.fail")
    assert page.locator(".turn.mine .token.minus").count() > 0
    assert not set(colours(page)) & set(by_credit), "loss of credit is another colour"
    page.focus(".turns")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".token-facts").startswith("token 0 ·")
    page.click(".beside summary")
    page.wait_for_selector(".columns .column .token")
    assert page.locator(".columns .column").count() >= 6


def test_an_episode_is_coloured_by_what_the_update_did(watched: Watched, root: Path) -> None:
    """What was praised became likelier, what was blamed less likely; only groups that were scored again show it."""
    page = watched.open((root / "alpha" / "report.html").as_uri() + "#view=episodes")
    page.wait_for_selector(".list a")
    page.select_option("select[name=sort]", "rescored")
    page.wait_for_timeout(250)
    page.click(".list a:has(.mark.pass)")
    page.wait_for_selector(".turn.mine .token")
    by_credit = colours(page)
    page.click("button[data-value=change]")
    assert colours(page) != by_credit
    assert page.locator(".turn.mine .token.plus").count() > 0
    assert page.locator(".turn.mine .token.minus").count() == 0
    assert page.locator(".turn:not(.mine) .token.plus").count() == 0
    page.hover(".turn.mine .token.plus")
    said = page.inner_text(".token-facts")
    before, after = (
        float(said.split(f"{word} ")[1].split("%")[0]) for word in ("probability", "after the update")
    )
    assert after >= before > 0
    page.click(".strip .fail")
    page.wait_for_selector(".episode .badge.fail")
    assert page.locator(".turn.mine .token.minus").count() > 0
    assert page.locator(".turn.mine .token.plus").count() == 0
    page.evaluate("location.hash = '#view=episodes&episode=45-20'")
    until(page, "document.querySelector('.episode h2')?.textContent.includes('45-20')")
    assert page.locator("button[data-value=change]").count() == 0, "this group was not scored again"


def test_a_hostile_completion_is_inert(watched: Watched, root: Path) -> None:
    page = watched.open((root / "alpha" / "report.html").as_uri() + "#view=episodes&episode=45-0")
    page.wait_for_selector(".turn.mine .token")
    shown = page.inner_text(".turn.mine .words")
    assert "</script><script>document.title='owned'</script><img src=x onerror=" in shown
    assert "⟨ESC⟩[31mred" in shown
    assert "⟨202E⟩gnp.exe" in shown
    assert not set(shown) & set("\x1b\x00\u202e\u202c\u2028")
    assert page.title() == "alpha · etude"
    assert page.locator("main img, main script, main iframe").count() == 0
    assert MALICIOUS not in page.content()


def test_the_policy_stops_what_would_get_through(chromium: Any, root: Path) -> None:
    one = Watched(chromium)
    page = one.open((root / "alpha" / "report.html").as_uri())
    page.evaluate(
        "() => { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">');"
        " const s = document.createElement('script'); s.textContent = 'document.title = 2'; document.body.append(s);"
        " fetch('http://127.0.0.1:9/').catch(() => {}); }"
    )
    page.wait_for_timeout(300)
    assert page.title() == "alpha · etude"
    assert sum("Content Security Policy" in line for line in one.said) >= 3
    one.context.close()


def test_keys_alone_are_enough(watched: Watched, root: Path) -> None:
    page = watched.open((root / "alpha" / "report.html").as_uri())
    page.keyboard.press("2")
    page.wait_for_selector(".list a")
    page.keyboard.press("j")
    page.wait_for_selector(".episode")
    first = page.url
    page.keyboard.press("j")
    until(page, f"location.href !== {first!r}")
    page.keyboard.press("k")
    until(page, f"location.href === {first!r}")
    page.keyboard.press("/")
    page.keyboard.type("door")
    until(page, "[...document.querySelectorAll('.asked')].every(n => n.textContent.includes('door'))")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_selector(".detail .empty")
    page.keyboard.press("?")
    assert page.locator("dialog[open] dt").count() > 5
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.wait_for_selector("table.facts")
    assert "optimizer.learning_rate" in page.inner_text("main")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(chromium: Any, root: Path, scheme: str) -> None:
    one = Watched(chromium, color_scheme=scheme)
    page = one.open((root / "alpha" / "report.html").as_uri())

    def lightness(name: str) -> int:
        found = page.evaluate(f"getComputedStyle(document.body).{name}")
        return sum(int(part) for part in found[4:-1].split(",")) // 3

    for dark in [True, False] if scheme == "dark" else [False, True]:
        assert (lightness("backgroundColor") < 60) == dark
        assert (lightness("color") > 190) == dark
        page.keyboard.press("t")
        page.wait_for_selector(".tiles")
    one.context.close()
    assert one.said == []


@pytest.mark.parametrize("where", ["alpha", "bake"])
def test_a_phone_has_no_sideways_scrolling(chromium: Any, root: Path, where: str) -> None:
    one = Watched(chromium, viewport={"width": 360, "height": 740}, has_touch=True)
    page = one.open((root / where / "report.html").as_uri())
    views = ["#view=curves", "#view=episodes", "#view=episodes&episode=3-2", "#view=settings", ""]
    for view in views:
        page.evaluate("view => { location.hash = view; }", view)
        page.wait_for_timeout(250)
        assert one.overflow() <= 0, view
    page.evaluate("location.hash = '#view=episodes&episode=3-2'")
    page.wait_for_selector(".episode .token")
    assert not page.is_visible(".list")
    page.click(".back")
    page.wait_for_selector(".list a")
    assert not page.is_visible(".episode")
    one.context.close()
    assert one.said == []


def test_a_comparison_without_tuning_leaves_no_word_behind(watched: Watched, root: Path) -> None:
    path = root / "bake" / "results.json"
    before = path.read_text()
    results = json.loads(before)
    del results["tuning"]
    results["arms"][0]["settings"]["update.decay"] = None
    try:
        path.write_text(json.dumps(results))
        page = watched.open(write_report(root / "bake").as_uri())
        text = page.inner_text("main")
    finally:
        path.write_text(before)
        write_report(root / "bake")
    assert "Settings that differ" in text
    assert "Learning rates tried" not in text
    assert "undefined" not in text
    assert "null" not in text


def test_a_comparison_and_its_arms(watched: Watched, root: Path) -> None:
    page = watched.open((root / "bake" / "report.html").as_uri())
    text = page.inner_text("main")
    assert "grpo+sec is better than grpo by 8.0 points" in text
    assert "✗ truncated 71% of its answers" in text
    assert "+8.0 [+2.0, +14.0]" in text
    assert "learning_rate" in text
    assert page.inner_text("table.tuning tr").split("\t") == ["grpo", "✓ 3.0e-5: 41.0%", "1.0e-5: 28.0%"]
    assert (
        "temperature"
        not in page.inner_text("section:has-text('Settings that differ')").split("Environment")[0]
    )
    page.click("button[data-value=tokens]")
    page.wait_for_selector("[data-chart=compute] canvas")
    page.click("tr:has-text('grpo+sec') a:has-text('episodes')")
    page.wait_for_selector(".list a")
    assert page.input_value("select[name=run]") == "grpo+sec/seed-0"
    page.click(".list a")
    page.wait_for_selector(".turn.mine .token")
    page.select_option("select[name=run]", "rft/seed-1")
    until(page, "location.hash.includes('rft')")
    page.wait_for_selector(".list a")
    page.click(".tabs a:has-text('Curves')")
    page.wait_for_selector("[data-chart=reward] canvas")
    assert watched.asked == [watched.page.url.split("#")[0]]


def test_served_and_live(watched: Watched, root: Path, address: str) -> None:
    live = make_run(root / "live", steps=3)
    page = watched.open(address)
    page.click("a:text-is('live')")
    page.wait_for_selector("[data-chart=reward] canvas")
    assert "\n3\n" in page.inner_text(".tiles")
    rng, words = np.random.default_rng(5), Words()
    groups, signals = make_step(words, rng, 0.5)
    live.write_step(4, {"reward": 0.5, **extra_metrics(4, 4, rng, False)}, signals, groups, words.decode)
    until(page, "document.querySelector('.tiles').innerText.includes('\\n4\\n')")
    page.keyboard.press("2")
    page.wait_for_selector(".list a")
    assert "step 4" in page.inner_text(".list li")
    page.click(".list a")
    page.wait_for_selector(".turn.mine .token")
    page.goto(address + "?run=bake")
    page.click("tr:has-text('rft') a:has-text('run 2')")
    page.wait_for_selector("[data-chart=reward] canvas")
    assert all(url.startswith(address) for url in watched.asked)
