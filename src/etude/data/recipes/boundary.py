"""Data at the boundary: for every kind of task the first level of difficulty at which the model fails.

After Synthesizing Agentic Data for Web Agents with Progressive Difficulty Enhancement Mechanisms: a question is made harder step by
step while a baseline agent still solves it, and is kept at the first complexity where it does not. Here the steps are the levels of a
generator; a level counts as failed where the share of right attempts falls below a bound. The items are new tasks of that level, with
their worked solutions, or with right answers of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from etude.data.filters import answered, different
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.types import Request, Task


def drawn_at(shop: Workshop, kind: str, level: float, number: int, offset: int = 0) -> list[Task]:
    """Different tasks of a kind and level, none held out."""
    return shop.tasks.different(number, shop.seed, Request(kind=kind, difficulty=level), offset)


def boundary(
    probe: Annotated[int, Setting("tasks of a level that are tried", low=1, high=10_000)] = 16,
    tries: Annotated[int, Setting("attempts at each", low=1, high=1_000)] = 4,
    bound: Annotated[
        float, Setting("share of right attempts below which a level counts as failed", low=0, high=1)
    ] = 0.5,
    who: Annotated[str, Setting("whose answers are imitated", choices=("source", "teacher"))] = "source",
) -> Callable[[Workshop], list[Item]]:
    """As many items of every kind, of its first failed level (its last, where none fails)."""

    def make(shop: Workshop) -> list[Item]:
        kinds = {kind: shop.tasks.levels(kind) for kind in shop.tasks.kinds}
        if not any(len(levels) > 1 for levels in kinds.values()):
            raise UserError(
                "boundary needs tasks of several levels, as a generator's are; leave its level out"
            )
        each = max(1, shop.wanted // len(kinds))
        items: list[Item] = []
        for kind, levels in kinds.items():
            level, share = levels[-1], 0.0
            for candidate in levels:
                tried = shop.attempts(drawn_at(shop, kind, candidate, probe), tries)
                rights = [e.correct for mine in tried for e in mine]
                level, share = candidate, sum(rights) / max(1, len(rights))
                if share < bound:
                    break
            tasks = drawn_at(shop, kind, level, each, offset=10**6)
            for task, text in zip(tasks, answers(shop, tasks, who), strict=True):
                if text:
                    writer = shop.scribe("teacher").name if who == "teacher" else "its source"
                    base = of_task(task, shop.spec).but(reference=text)
                    items.append(base.noted(writer=writer, solved=round(share, 4), level=level))
            shop.sieve.counts.append(
                (f"{kind}: level {level:g}, of which the model solves {share:.0%}", len(tasks), len(items))
            )
        shop.sieve.items = items
        return shop.sieve.through("empty ones", answered).through("the same", different).items

    return make


def answers(shop: Workshop, tasks: list[Task], who: str) -> list[str]:
    """The tasks' own solutions, or the teacher's right answers; "" where there is none."""
    if who == "source":
        return [t.reference or t.answer or "" for t in tasks]
    texts = shop.said([list(t.prompt) for t in tasks], "boundary", "teacher", greedy=True)
    rights = shop.judged(list(zip(tasks, texts, strict=True)))
    return [text if right else "" for text, right in zip(texts, rights, strict=True)]


RECIPE = DataRecipe(
    name="boundary",
    verb=MAKE,
    build=stage(boundary),
    paper=Paper(
        "Synthesizing Agentic Data for Web Agents with Progressive Difficulty Enhancement Mechanisms",
        "",
        2025,
    ),
    idea="The model tries tasks of rising difficulty until it fails. Training data is made at that level of every kind: what it can nearly do.",
    departures=(
        "the paper makes web questions harder by retrieval, with an agent that also checks facts; here a generator's levels are the steps",
        "the bound of a half and the numbers of trials are guesses",
    ),
    needs=("policy", "answers"),
)
