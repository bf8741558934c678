"""Program distillation: problems with answers become problems with programs that were run.

Leveraging Training Data in Few-Shot Prompting for Numerical Reasoning (Jie and Lu, arXiv 2305.18170). For each problem up to K programs
are sampled; each is run, and stays where what it returns is the problem's answer. Problems that no program solves are left out. A small
model is then trained to write programs, which are run at test time.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any

from etude.data.filters import answered
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.recipe import Paper
from etude.rollout.attempts import below
from etude.settings import Setting, stage
from etude.tasks.extract import value
from etude.tasks.program import Program, code_of
from etude.types import Task

NAME = "solution"
ASK = "Write a Python function solution() without arguments that computes the answer and returns it as a number. Give the code alone, in a ```python block."


def number(text: str | None) -> int | float | None:
    """A gold answer as a program would return it; None where it is no number."""
    found = value(text) if text else None
    if found is None:
        return None
    return int(found) if Fraction(found).denominator == 1 else float(found)


def same_program(code: str) -> str:
    """What is left of a program without its names' spelling and its comments: programs that differ in these alone are one."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return code
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.setdefault(node.id, f"v{len(names)}")
    return ast.dump(tree)


def returned(shop: Workshop, pairs: list[tuple[Task, str]]) -> list[int | float | None]:
    """What each program returned, if it is the gold answer, a whole number as int or float; None where it is not."""
    found: list[int | float | None] = [None] * len(pairs)
    for kind in (int, float):
        wanted = {i: number(task.answer) for i, (task, _) in enumerate(pairs) if found[i] is None}
        fits = {i: kind(gold) for i, gold in wanted.items() if gold is not None and kind(gold) == gold}
        checked = [
            (Task(pairs[i][0].prompt, Program(NAME, (((), gold),)), answer=pairs[i][0].answer), pairs[i][1])
            for i, gold in fits.items()
        ]
        for i, right in zip(fits, shop.judged(checked), strict=True):
            found[i] = fits[i] if right else None
    return found


def programs(
    k: Annotated[int, Setting("programs sampled for a problem", low=1, high=10_000)] = 4,
    keep: Annotated[int, Setting("programs that a problem keeps at most", low=1, high=10_000)] = 2,
    who: Annotated[str, Setting("who writes them", choices=("policy", "teacher"))] = "policy",
    ask: Annotated[str, Setting("what is asked below the problem")] = ASK,
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 0.7,
) -> Callable[[Workshop], list[Item]]:
    """Programs whose result is the gold answer. They run in the sandbox."""

    def make(shop: Workshop) -> list[Item]:
        tasks = [t for t in shop.drawn(shop.wanted) if number(t.answer) is not None]
        asked = [(task, below(task.prompt, ask)) for task in tasks for _ in range(k)]
        texts = shop.said([prompt for _, prompt in asked], "programs", who, temperature=temperature)
        results = returned(shop, [(task, text) for (task, _), text in zip(asked, texts, strict=True)])
        items, seen = [], dict[str, set[str]]()
        for (task, prompt), text, result in zip(asked, texts, results, strict=True):
            code = code_of(text)
            known = seen.setdefault(task.key, set())
            if result is None or same_program(code) in known or len(known) == keep:
                continue
            known.add(same_program(code))
            base = of_task(task, shop.spec)
            row: dict[str, Any] = {
                "prompt": prompt[-1].content,
                "answer": code,
                "function": NAME,
                "cases": [[[], result]],
                "kind": task.kind,
            }
            items.append(Item(row, {**base.came, "writer": shop.scribe(who).name}))
        shop.sieve.items = items
        said = f"different programs whose result is the answer ({sum(r is not None for r in results)} were right), at most {keep} a problem"
        shop.sieve.counts.append((said, len(texts), len(items)))
        return shop.sieve.through("empty ones", answered).items

    return make


RECIPE = DataRecipe(
    name="programs",
    verb=MAKE,
    build=stage(programs),
    paper=Paper("Leveraging Training Data in Few-Shot Prompting for Numerical Reasoning", "2305.18170", 2023),
    idea="Programs are sampled for problems with numbers as answers and run; those whose result is the answer are what a small model learns "
    "to write. Their rows are checked by running, too.",
    departures=(
        "programs are asked for in words, without the paper's demonstrations; retrieving similar problems at test time is not part of this",
        "two programs that differ in names and comments alone are one",
    ),
    needs=("answers",),
)
