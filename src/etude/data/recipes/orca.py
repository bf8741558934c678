"""Orca: system messages that ask for explanations, and an easier teacher before a stronger one.

Mukherjee et al., arXiv 2306.02707. A system message is drawn for every query, from a plain "answer" to "explain like I'm five"; the
answers are explanation traces. Queries are capped by task, for diversity. Training goes first over an intermediate teacher's data, then
over a stronger one's: make both with `--teacher`, then `etude data mix in_order`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated

from etude.data.filters import answered, different, unrepeating
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.types import Message

SYSTEMS = (
    "",
    "Think step by step and say why each step is right.",
    "Explain as you would to a child of five, then answer.",
    "Give the answer first, then the reasons for it.",
    "Answer briefly.",
    "Answer, and write down every intermediate result on a line of its own.",
    "Say which fact or rule you use before you use it.",
    "Solve the problem, then check the result in another way.",
)


def orca(
    who: Annotated[str, Setting("who answers", choices=("policy", "teacher"))] = "policy",
    systems: Annotated[tuple[str, ...], Setting("system messages to draw from, joined by ;")] = SYSTEMS,
    cap: Annotated[int, Setting("most queries of one kind of task; 0: no bound", low=0)] = 0,
    right: Annotated[bool, Setting("keep right answers alone")] = True,
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 0.7,
) -> Callable[[Workshop], list[Item]]:
    """(system message, query, explanation) triples."""

    def make(shop: Workshop) -> list[Item]:
        seen: Counter[str] = Counter()
        tasks = []
        for task in shop.drawn(shop.wanted):
            seen[task.kind] += 1
            if not cap or seen[task.kind] <= cap:
                tasks.append(task)
        rng = shop.random("systems")
        chosen = [systems[rng.integers(len(systems))] for _ in tasks]
        prompts = [
            [*([Message("system", s)] if s else []), *(m for m in t.prompt if m.role != "system")]
            for t, s in zip(tasks, chosen, strict=True)
        ]
        replies = shop.said(prompts, "traces", who, temperature=temperature)
        rights = shop.judged(list(zip(tasks, replies, strict=True))) if right else [True] * len(tasks)
        items = []
        for task, said, text, good in zip(tasks, prompts, replies, rights, strict=True):
            base = of_task(task, shop.spec)
            row = {
                **base.row,
                "prompt": [{"role": m.role, "content": m.content} for m in said],
                "reference": text,
            }
            if good:
                items.append(Item(row, {**base.came, "writer": shop.scribe(who).name}))
        shop.sieve.items = items
        shop.sieve.counts.append(
            ("answers that the check accepts" if right else "answers", len(tasks), len(items))
        )
        sieve = shop.sieve.through("empty ones", answered).through(
            "answers that repeat themselves", unrepeating()
        )
        return sieve.through("the same", different).items

    return make


RECIPE = DataRecipe(
    name="orca",
    verb=MAKE,
    build=stage(orca),
    paper=Paper("Orca: Progressive Learning from Complex Explanation Traces of GPT-4", "2306.02707", 2023),
    idea="Every query comes with a system message that asks for an explanation of some form. The teacher's explanations, not its bare "
    "answers, are what the student imitates.",
    departures=(
        "eight system messages of this package's own in the place of the paper's sixteen",
        "right answers alone are kept, where there is a check; the paper keeps all",
    ),
    needs=("answers",),
)
