"""ChipSeek-R1: rewards of tools behind gates; how good a program is counts only once it works.

A program must be found in the reply, be read, pass its tests; only then is it measured: how large it is, and how much it computes,
against a program that works. The first gate that is not passed ends the list, so a small program that is wrong earns nothing for being
small. ChipSeek-R1: Generating Human-Surpassing RTL with LLM via Hierarchical Reward-Driven Reinforcement Learning, arXiv 2507.04736,
whose programs are circuits; here they are Python functions with unit tests (HumanEval, MBPP, or a file's own `tests`)."""

from __future__ import annotations

import ast
import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

from etude.fixtures.examples import example_episode
from etude.fixtures.given import given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.tasks import outcomes, sandbox
from etude.tasks.unit_tests import UnitTests
from etude.types import Episode, Verdict

# Runs in the sandbox, behind the program: how many lines are carried out in calls with these arguments.
COUNT = """
def __count__(calls):
    import sys
    lines = [0]
    def trace(frame, event, argument):
        lines[0] += event == "line"
        return trace
    sys.settrace(trace)
    try:
        for arguments in calls:
            {name}(*arguments)
    finally:
        sys.settrace(None)
    return lines[0]
"""


def parsed(code: str) -> ast.Module | None:
    """None where it is not Python."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def size(code: str) -> int:
    """Nodes of its syntax tree: names and layout cost nothing."""
    tree = parsed(code)
    return sum(1 for _ in ast.walk(tree)) if tree else 0


def calls_in(tests: str, name: str) -> list[list[Any]]:
    """The arguments with which tests call the function, so far as they stand there as literals."""
    found = []
    for node in ast.walk(ast.parse(tests)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.keywords:
            continue
        if node.func.id in (name, "candidate"):
            with contextlib.suppress(ValueError, TypeError):  # an argument that is no literal
                found.append([ast.literal_eval(a) for a in node.args])
    return found


@lru_cache(maxsize=4096)
def steps(code: str, name: str, tests: str) -> int:
    """Lines that the program carries out in the calls of its tests, counted in the sandbox; 0 where that cannot be told."""
    calls = calls_in(tests, name)
    process = sandbox.Process(sandbox.Limits())
    try:
        process.prepare()
        if not calls or process.load(code + COUNT.format(name=name)) is not None:
            return 0
        found = process.call("__count__", (calls,), {})
        return found.value if isinstance(found, outcomes.Returned) and isinstance(found.value, int) else 0
    finally:
        process.end()


def saved(mine: float, reference: float) -> float:
    """(reference - mine) / reference, within [-1, 1]; 0 where there is nothing to compare with."""
    return min(max((reference - mine) / reference, -1.0), 1.0) if mine and reference else 0.0


def tool_hierarchy(
    format_weight: Annotated[float, Setting("reward of a reply that holds a program", low=0)] = 0.1,
    syntax_weight: Annotated[float, Setting("reward of a program that is Python", low=0)] = 0.1,
    tests_weight: Annotated[float, Setting("reward of a program that passes its tests", low=0)] = 1.0,
    quality_weight: Annotated[
        float, Setting("most that a working program gains or loses, of tests_weight", low=0, high=0.99)
    ] = 0.3,
) -> Reward:
    """r_fmt + r_syn [Python] + r_fun [tests pass] + r_q [tests pass] mean over size and steps of (reference - mine) / reference.
    Other tasks than those with unit tests are passed or failed, without the gates before. A wrong
    program never earns more than one that works."""

    async def reward(episode: Episode) -> dict[str, float]:
        check = episode.task.check
        right = float(episode.correct)
        if not isinstance(check, UnitTests):
            return {"reward": tests_weight * right, "tests": right}
        block = check.block(episode.text)
        program = check.program(episode.text if block is None else block)
        python = float(parsed(program) is not None)
        held = 1.0 if block is not None else python
        found = {"format": held, "syntax": held * python, "tests": right}
        if right and quality_weight and check.gold:
            gold = check.program(check.gold)
            each = [await asyncio.to_thread(steps, code, check.name, check.tests) for code in (program, gold)]
            found |= {"size": saved(size(program), size(gold)), "steps": saved(*each)}
        quality = (found.get("size", 0.0) + found.get("steps", 0.0)) / 2
        total = format_weight * found["format"] + syntax_weight * found["syntax"]
        return {**found, "reward": total + tests_weight * (right + quality_weight * quality)}

    return reward


def graded(text: str, right: bool = False) -> Mapping[str, float]:
    """The scores of a reply to a task with one test, without the sandbox."""
    check = UnitTests("f", "assert f(1) == 2", gold="def f(x):\n    return x + 1\n")
    made = example_episode(float(right))
    task = replace(made.task, check=check)
    tried = replace(made, task=task, text=text, verdicts=(Verdict(float(right), right),))
    return asyncio.run(given_stage(RECIPE, "reward", quality_weight=0.0)(tried))


WORKS = "```python\ndef f(x):\n    return x + 1\n```"

RECIPE = Recipe(
    name="chipseek",
    base=GRPO,
    paper=Paper(
        "ChipSeek-R1: Generating Human-Surpassing RTL with LLM via Hierarchical Reward-Driven Reinforcement Learning",
        "2507.04736",
        2025,
    ),
    idea="A program passes gates: it is found in the reply, it can be read, it passes its tests. "
    "Each gate pays, and the first that is not passed ends the list. "
    "Only a program that works is measured, and earns more where it is smaller and computes less than the reference.",
    equation="r = r_fmt + r_syn [read] + r_fun [tests] + r_q [tests] mean_m clip((ref_m - m) / ref_m, -1, 1),  m: size, steps",
    departures=(
        "could not be verified: the weights and the form of the last term are guesses; only the abstract was at hand",
        "Python functions with unit tests in the place of circuits: nodes of the syntax tree for area, lines carried out for delay, no power, "
        "and no gate for synthesis",
        "steps are counted over calls that tests make with literal arguments, in the sandbox; a program that turns tracing off is not "
        "counted",
        "the cold start by imitation is a run of its own (sft)",
    ),
    confidence="guess",
    stages={"reward": stage(tool_hierarchy)},
    claim="The mean size and steps of programs that work fall, at a pass rate that is not lower than with tests alone.",
    manipulation=(Manipulated("one program in ten works", "score/tests", 0.1),),
    examples=(
        ByHand(
            "no program; one that is not Python; one that fails; one that works",
            lambda: [
                graded("No.")["reward"],
                graded("```python\ndef f(x:\n```")["reward"],
                graded("```python\ndef f(x):\n    return x\n```")["reward"],
                graded(WORKS, True)["reward"],
            ],
            [0, 0.1, 0.2, 1.2],
        ),
        ByHand(
            "Python without a block passes both gates before the tests",
            lambda: graded("def f(x):\n    return x")["reward"],
            0.2,
        ),
        ByHand(
            "half as large, twice as large, four times, not to be told",
            lambda: [saved(5, 10), saved(20, 10), saved(40, 10), saved(0, 10), saved(5, 0)],
            [0.5, -1, -1, 0, 0],
        ),
        ByHand(
            "of three calls two have literal arguments",
            lambda: calls_in("x = 3\nassert f(1) == 3 and f(x) > f(-4)\nassert g(5)", "f"),
            [[1], [-4]],
        ),
        ByHand(
            "names and layout cost nothing",
            lambda: size("def f(x):\n    return x") - size("def longer(name):  # a word\n\n    return name"),
            0,
        ),
        Reduction(
            "tasks without unit tests: GRPO",
            "grpo",
        ),
    ),
)
