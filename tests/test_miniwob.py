"""Pages of MiniWoB in a real browser: what is seen, what commands do, and that a page repeats itself."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Iterator
from typing import Any

import pytest

from browser.conftest import CHROMIUM
from etude.errors import UserError
from etude.evaluate.players import play
from etude.rollout import turns
from etude.rollout.attempts import attempt
from etude.tasks import load
from etude.tasks.adapters import miniwob
from etude.tools.kit import CALLS, Kit
from etude.types import Request, Task
from test_tools_in_conversation import talk

there = all(importlib.util.find_spec(name) for name in ("miniwob", "playwright"))
paged = pytest.mark.skipif(
    not there or CHROMIUM is None, reason="skipped: no Chromium, Playwright or miniwob here"
)


def a_page(spec: str, seed: int = 0) -> Task:
    return load(f"miniwob:{spec}").draw(Request(), seed, 0)


@pytest.fixture
def tabs() -> Iterator[None]:
    """Afterwards no tab is left open."""
    yield
    assert not miniwob.chromium()._browser.contexts


def buttons(seen: Any) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, text in re.findall(r'\[(\d+)\] button "(.*)"', str(seen)):
        found.setdefault(text, []).append(int(number))
    return found


@paged
def test_the_right_button_and_a_wrong_one(tabs: None) -> None:
    task = next(t for t in (a_page("click-button", i) for i in range(9)) if len(buttons(made(t))) > 1)
    assert "click NUMBER" in task.prompt[0].content
    seen = made(task)
    wanted = re.search(r'Click on the "(.*)" button', seen)
    assert wanted
    others = [numbers[0] for text, numbers in buttons(seen).items() if text != wanted[1]]
    for number, right in ((buttons(seen)[wanted[1]][0], True), (others[0], False)):
        world: Any = task.environment(0)
        assert world.observe() == seen, "the same page every time"
        assert world.act("click 99")[0].startswith("That cannot be done.\nTask: Click on")
        said, verdict = world.act(f"I see it.\nclick {number}")
        assert (verdict.correct, verdict.reward) == (right, float(right))
        assert said == ("You have done it." if right else "That was not what the page asked for.")
        with pytest.raises(RuntimeError, match="over"):
            world.act("click 1")
        world.close()
        world.close()


def made(task: Task) -> str:
    world: Any = task.environment(0)
    try:
        return world.observe()
    finally:
        world.close()


@paged
def test_a_form_is_filled_in_by_calls(tabs: None) -> None:
    """Several calls of one reply are turns of one page; the tools wait in threads, and the tab is closed at the end."""
    task = a_page("login-user,commands=tools")
    seen = made(task)
    name, word = re.findall(r'"([^"]+)"', seen.splitlines()[0])
    fields = [int(n) for n in re.findall(r"\[(\d+)\] field", seen)]
    (button,) = buttons(seen)["Login"]
    replies = [
        f'<type>{{"number": {fields[0]}, "text": "{name}"}}</type>',
        f'<type>{{"number": {fields[1]}, "text": "{word}"}}</type>',
        f"<click>{button}</click>",
    ]
    conversation, script = talk(replies, Kit(), task)
    verdict, _ = asyncio.run(attempt(conversation, task.prompt, 1))
    assert verdict.correct
    assert "Act by calling tools" in script.asked[0]
    assert f'field "{name}"' in script.asked[1]
    assert [c["name"] for c in conversation.done().notes[CALLS]] == ["type", "type", "click"]


@paged
def test_lists_and_players_and_turns(tabs: None) -> None:
    task = a_page("choose-list,turns=2")
    world: Any = task.environment(0)
    question = asyncio.run(turns.observe(world)).splitlines()[0]
    wanted = re.search(r"Select (.*) from", question)
    assert wanted
    number = next(n for n, (_, options) in world._seen.elements.items() if wanted[1] in options)
    assert f"choose {number}: {wanted[1]}" in world.actions()
    assert f'list "{wanted[1]}" of' in world.act(f"choose {number}: {wanted[1]}")[0]
    assert world.act("choose 1: nothing such")[1].feedback == "You have no turns left."
    world.close()
    verdict, replies = play("greedy", a_page("click-button"))
    assert len(replies) <= 8
    assert verdict is not None


@paged
def test_what_is_no_page_is_named() -> None:
    with pytest.raises(UserError, match=r"no page 'click-buton'; did you mean 'click-button'"):
        load("miniwob:click-buton")
    with pytest.raises(UserError, match=r"turns=0 is out of range"):
        load("miniwob:click-button,turns=0")
