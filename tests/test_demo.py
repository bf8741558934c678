"""The demo's plan can be built."""

from __future__ import annotations

import re

import etude
from etude.cli import demo
from etude.tasks import load
from etude.train.setup import resolve


def test_its_plan_is_one() -> None:
    recipe, settings, stages = resolve(demo.plan())
    assert (recipe.name, demo.plan().model) == ("grpo", "smollm2")
    assert stages["update"].lr == float(demo.plan().changes["update.lr"])
    assert settings.eval_problems >= 100
    assert demo.plan(3).budget.steps == 3


def test_what_it_shows_solved_is_right_and_asked_as_its_tasks_are() -> None:
    shown = load(f"{demo.EXAMPLES}:eval_share=0").sources[0].tasks("train")
    assert len(shown) == int(demo.plan().changes["run.shots"])
    drawn = [load(demo.TASKS).draw(etude.Request(), i, 0).prompt[-1].content for i in range(60)]
    frames = {re.sub(r"\d+ [-+] \d+", "SUM", text) for text in drawn}
    for task in shown:
        asked = task.prompt[-1].content
        assert re.sub(r"\d+ [-+] \d+", "SUM", asked) in frames
        found = re.search(r"(\d+) ([-+]) (\d+)", asked)
        assert found is not None
        assert int(task.answer or "") == int(found[1]) + int(f"{found[2]}{found[3]}")


def test_second_attempts_are_shown_beside_first_ones() -> None:
    """Where every first attempt was right nobody made a second one, and its share is the whole."""
    some = {"mean": 0.5, "attempts": {"first": 0.25, "second": 0.5}}
    shown = demo.screen({"before": some, "after": {"mean": 1.0, "attempts": {}}}).splitlines()
    assert len(shown) == 3
    assert shown[1].split() == ["first", "attempt", "25.0%", "->", "100.0%"]
    assert shown[2].split() == ["second", "attempt", "50.0%", "->", "100.0%"]
