"""Ensemble-Instruct: an answer stays where writers agree.

Lee et al., arXiv 2310.13961. Of each task three answers: o0 of the generator, o1 and o2 of two annotators. Where o0 equals one of the
others it stays; else where these two agree theirs does; else the answer with the largest sum of ROUGE-L to the other two, if all three
share more than a hundredth; else nothing. For short answers that is a majority of three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from etude.data.filters import answered, different
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.evaluate.completion import rouge_l
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.tasks.extract import extract

LEAST = 0.01


def normal(text: str) -> str:
    """Case and blanks do not count, nor a final full stop."""
    return " ".join(text.casefold().split()).rstrip(".")


def consensus(answers: list[str]) -> int | None:
    """Which of three answers stays, by its number; None where they have nothing in common. Empty answers count for nothing."""
    first, second, third = (normal(a) for a in answers)
    if first and first in (second, third):
        return 0
    if second and second == third:
        return 1
    if not (first and second and third):
        return None
    words = [a.split() for a in (first, second, third)]
    ids = {w: i for i, w in enumerate(dict.fromkeys(w for said in words for w in said))}
    coded = [[ids[w] for w in said] for said in words]
    shared = {(i, j): rouge_l(coded[i], coded[j]) for i in range(3) for j in range(i)}
    if min(shared.values()) <= LEAST:
        return None
    sums = [sum(v for pair, v in shared.items() if i in pair) for i in range(3)]
    return sums.index(max(sums))


def ensemble(
    annotators: Annotated[
        str, Setting("who gives the second and the third answer", choices=("teacher", "policy"))
    ] = "policy",
    temperature: Annotated[float, Setting("sampling temperature of annotators", low=0.01, high=10)] = 0.7,
    short: Annotated[
        bool, Setting("compare the last number of each answer, where all three have one")
    ] = True,
) -> Callable[[Workshop], list[Item]]:
    """Answers of three draws that agree. The tasks' gold answers are not looked at; with them the card tells how many are right."""

    def make(shop: Workshop) -> list[Item]:
        tasks = shop.drawn(shop.wanted)
        prompts = [list(t.prompt) for t in tasks]
        said = [
            shop.said(prompts, "generator", greedy=True),
            *(shop.said(prompts, f"annotator {i}", annotators, temperature=temperature) for i in (1, 2)),
        ]
        items, rights = [], []
        for i, task in enumerate(tasks):
            texts = [replies[i] for replies in said]
            found = [extract(t, "last_number") for t in texts] if short else [None]
            which = consensus([f or "" for f in found] if all(found) else texts)
            if which is None:
                continue
            rights.append((task, texts[which]))
            writer = shop.scribe("policy" if which == 0 else annotators).name
            base = of_task(task, shop.spec)
            row = {k: v for k, v in base.row.items() if k not in ("answer", "reference")}
            answer = found[which] if all(found) else texts[which]
            items.append(
                Item(
                    {**row, "answer": answer, "reference": texts[which]},
                    {**base.came, "writer": writer, "agreed": which},
                )
            )
        right = sum(shop.judged(rights))
        shop.sieve.items = items
        shop.sieve.counts.append(
            (
                f"answers on which three agree ({right} of {len(items)} are right by the gold answer)",
                len(tasks),
                len(items),
            )
        )
        return shop.sieve.through("empty ones", answered).through("the same", different).items

    return make


RECIPE = DataRecipe(
    name="ensemble",
    verb=MAKE,
    build=stage(ensemble),
    paper=Paper(
        "Ensemble-Instruct: Generating Instruction-Tuning Data with a Heterogeneous Mixture of LMs",
        "2310.13961",
        2023,
    ),
    idea="Three answers to every task, by the model and by annotators; one stays where they agree, in words or in most of them. No gold "
    "answer is looked at.",
    departures=(
        "tasks are given, not written by the model; annotators are draws of one model, the policy or the teacher",
        "answers with numbers are compared by their last number",
    ),
    needs=("answers",),
)
