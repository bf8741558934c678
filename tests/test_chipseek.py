"""Rewards of tools behind gates, with the sandbox that runs programs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from etude.assembly import build
from etude.errors import UserError
from etude.fixtures.examples import example_episode
from etude.methods import find
from etude.methods.reward_shaping.chipseek import size, steps
from etude.tasks.unit_tests import UnitTests
from etude.types import Verdict

LOOP = "def total(n):\n    found = 0\n    for i in range(n + 1):\n        found += i\n    return found\n"
FORMULA = "def total(n):\n    return n * (n + 1) // 2\n"
TESTS = "assert total(4) == 10\nassert total(10) == 55"


def test_lines_that_are_carried_out_are_counted() -> None:
    """Of the loop 4 + 2 (n + 1) - 1 lines or one more, by version: the header is met once more than the body."""
    assert steps(FORMULA, "total", TESTS) == 2
    counted = steps(LOOP, "total", TESTS)
    assert counted in (2 * (5 + 11) + 2 * 3, 2 * (5 + 11) + 2 * 2)
    assert steps(LOOP, "total", "assert total(10) == 55") < counted


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("raise SystemExit", TESTS),
        ("def other(n):\n    return n\n", TESTS),
        (FORMULA, "x = 4\nassert total(x) == 10"),
    ],
    ids=["ends", "missing", "no literal arguments"],
)
def test_what_cannot_be_counted_is_nothing(code: str, tests: str) -> None:
    assert steps(code, "total", tests) == 0


def graded(text: str, right: bool = True, **settings: float) -> dict[str, float]:
    _, stages = build(find("chipseek"), {f"reward.{k}": v for k, v in settings.items()})
    made = example_episode(0.0)
    check = UnitTests("total", TESTS, gold=LOOP)
    verdict = Verdict(float(right), right)
    tried = replace(made, task=replace(made.task, check=check), text=text, verdicts=(verdict,))
    return asyncio.run(stages["reward"](tried))


def test_a_program_is_measured_once_it_works() -> None:
    good, same = graded(f"```python\n{FORMULA}```"), graded(f"Here:\n```python\n{LOOP}```")
    assert same["reward"] == pytest.approx(1.2)
    assert good["size"] == pytest.approx(1 - size(FORMULA) / size(LOOP))
    assert good["steps"] == pytest.approx(1 - 2 / steps(LOOP, "total", TESTS))
    assert good["reward"] == pytest.approx(1.2 + 0.3 * (good["size"] + good["steps"]) / 2)
    small = graded("```python\ndef total(n):\n    return n\n```", right=False)
    assert small["reward"] == pytest.approx(0.2)
    assert "size" not in small


def test_a_wrong_program_may_not_earn_more() -> None:
    with pytest.raises(UserError, match="must lie in"):
        build(find("chipseek"), {"reward.quality_weight": 1.0})
