"""Auto-CoT: demonstrations that nobody wrote, from questions that nobody answered.

Zhang et al., arXiv 2210.03493, and its release (amazon-research/auto-cot). Questions of a pool are clustered; in every cluster, the one
nearest to its centre first, the model is asked to think step by step, and the first chain that is short and comes to an answer is its
demonstration. Chains may be wrong; since each cluster gives one, wrong ones are not all of a kind. No gold answer is looked at: where
there are some, the card says how many of the demonstrations are right.

    etude data make auto_cot -m MODEL -t TASKS -n 4 --out shown
    etude eval MODEL -t TASKS --set run.examples=shown/data.jsonl --set run.shots=3
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np

from etude.data.embedding import clustered, embedded
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.recipe import Paper
from etude.rollout.attempts import answer_of, below
from etude.settings import Setting, stage
from etude.tasks.unlabelled import unlabelled
from etude.types import Array, Episode, Message, Span, Task


def auto_cot(
    pool: Annotated[int, Setting("questions that are clustered", low=1, high=100_000)] = 100,
    trigger: Annotated[str, Setting("what the model is told below each question")] = "Think step by step.",
    question_words: Annotated[int, Setting("longest question of a demonstration", "words", low=1)] = 60,
    lines: Annotated[int, Setting("longest chain of a demonstration", "lines", low=1)] = 5,
    tries: Annotated[int, Setting("questions of a cluster that are tried at most", low=1)] = 8,
) -> Callable[[Workshop], list[Item]]:
    """At most one demonstration a cluster, as many clusters as items are wanted."""

    def make(shop: Workshop) -> list[Item]:
        tasks = shop.drawn(max(pool, shop.wanted))
        points = embedded(shop.own, [asked(shop, task) for task in tasks])
        centres, labels = clustered(points, shop.wanted, shop.random("auto_cot"))
        waiting = {
            c: [tasks[i] for i in order if len(tasks[i].prompt[-1].content.split()) <= question_words][:tries]
            for c, order in enumerate(nearest_first(points, centres, labels))
        }
        chosen: dict[int, tuple[Task, str, str, int]] = {}
        for number in range(tries):
            turn = {c: mine[number] for c, mine in waiting.items() if c not in chosen and number < len(mine)}
            texts = shop.said(
                [told(task, trigger) for task in turn.values()], f"auto_cot {number}", greedy=True
            )
            for (c, task), text in zip(turn.items(), texts, strict=True):
                if answer := fits(task, text, lines):
                    chosen[c] = (task, text.strip(), answer, number + 1)
        items = [demonstration(shop, c, *chosen[c]) for c in sorted(chosen)]
        rights = shop.judged([(task, text) for task, text, _, _ in chosen.values()])
        shop.sieve.items = items
        shop.sieve.counts.append(
            (
                f"one short chain with an answer a cluster (of which {sum(rights)} are right)",
                len(centres),
                len(items),
            )
        )
        return items

    return make


def asked(shop: Workshop, task: Task) -> Episode:
    """The question alone, as the model reads it."""
    return Episode(task, (Span("user", shop.own.renderer.prompt(list(task.prompt))),))


def told(task: Task, trigger: str) -> list[Message]:
    return list(below(task.prompt, trigger))


def nearest_first(points: Array, centres: Array, labels: Array) -> list[list[int]]:
    """The points of every cluster by their distance to its centre; ties by number."""
    away = np.linalg.norm(points - centres[labels], axis=1)
    return [
        sorted(np.flatnonzero(labels == c).tolist(), key=lambda i: (float(away[i]), i))
        for c in range(len(centres))
    ]


def fits(task: Task, text: str, lines: int) -> str | None:
    """The answer that a chain comes to, if it is at most so many lines long and ends with the answer."""
    said = [line for line in text.splitlines() if line.strip()]
    answer = answer_of(unlabelled(task), text)
    if not answer or len(said) > lines:
        return None
    last = " ".join(said[-1].split()).casefold().rstrip(" .!)]}*$")
    return answer if last.endswith(answer.rstrip(" .!)]}*$")) else None


def demonstration(shop: Workshop, cluster: int, task: Task, text: str, answer: str, tried: int) -> Item:
    base = of_task(task, shop.spec)
    row = {name: value for name, value in base.row.items() if name not in ("answer", "reference")}
    writer = shop.scribe("policy").name
    return Item({**row, "answer": answer, "reference": text}, base.came).noted(
        writer=writer, cluster=cluster, tried=tried
    )


RECIPE = DataRecipe(
    name="auto_cot",
    verb=MAKE,
    build=stage(auto_cot),
    paper=Paper("Automatic Chain of Thought Prompting in Large Language Models", "2210.03493", 2022),
    idea="Questions are clustered, and the model's own short chain for a central question of each cluster becomes a demonstration. Some "
    "are wrong; of different kinds of question, they are not wrong in the same way.",
    departures=(
        "questions are embedded by the model's own hidden states, not by a sentence encoder",
        "a chain passes where it ends with the answer that the task's rule reads from it; the release asks that of arithmetic, and of "
        "other tasks only for a full stop",
        "a cluster of which no question passes gives none, as in the release",
    ),
    needs=("policy",),
)
