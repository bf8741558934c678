"""The demo's plan can be built."""

from __future__ import annotations

from etude.cli import demo
from etude.train.setup import resolve


def test_its_plan_is_one() -> None:
    recipe, settings, stages = resolve(demo.plan())
    assert (recipe.name, demo.plan().model) == ("grpo", "smollm2")
    assert stages["update"].lr == float(demo.plan().changes["update.lr"])
    assert settings.eval_problems >= 100
    assert demo.plan(3).budget.steps == 3
