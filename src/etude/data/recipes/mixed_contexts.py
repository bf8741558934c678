"""RW-Steering's training data: questions behind passages of which some mislead, and answers that sort the passages first.

Context Engineering for Trustworthiness: Rescorla Wagner Steering Under Mixed and Inappropriate Contexts (arXiv 2509.04500). A few
misleading passages among many good ones pull an answer more than their share. The model first learns to say which passages fit (`labels`),
then to say so and to answer from those alone (`answers`). A task brings its passages in two columns, `relevant` and `misleading`, each a
text or a list of texts:

    etude data make mixed_contexts -t questions.jsonl --set mixed_contexts.target=labels --out sorted
    etude data make mixed_contexts -t questions.jsonl --out answered
    etude data mix in_order sorted/data.jsonl answered/data.jsonl --out stages

An item's difficulty is the share of misleading passages, so `etude eval` prints the behaviour curve, accuracy over that share, of any set
that was made with `target=plain`, shares and passages of which nothing was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np

from etude.data.filters import answered, different
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.types import Message, Task

RELEVANT, MISLEADING = "relevant", "misleading"
ASK = {
    "plain": "",
    "labels": "\n\nWhich passages fit the question, and which do not?",
    "answers": "\n\nSay first which passages fit the question and which do not. Then answer from those that fit.",
}


def passages_of(task: Task, column: str) -> list[str]:
    """The texts of a column. UserError where there is none."""
    found = task.meta.get(column)
    texts = [found] if isinstance(found, str) else list(found) if isinstance(found, list | tuple) else []
    texts = [t.strip() for t in texts if isinstance(t, str) and t.strip()]
    if not texts:
        raise UserError(
            f"the task '{task.prompt[-1].content[:40]}' has no '{column}', a passage or a list of passages"
        )
    return texts


def arranged(
    relevant: Sequence[str], misleading: Sequence[str], number: int, share: float, rng: np.random.Generator
) -> tuple[list[str], list[bool]]:
    """`number` passages in a random order, round(share number) of them misleading, and whether each fits; each used again only when all
    of its kind were used."""
    bad = round(share * number)
    kinds = rng.permutation([True] * (number - bad) + [False] * bad)
    stacks: dict[bool, list[str]] = {True: [], False: []}
    texts = []
    for fits in map(bool, kinds):
        if not stacks[fits]:
            mine = relevant if fits else misleading
            stacks[fits] = [mine[i] for i in rng.permutation(len(mine))]
        texts.append(stacks[fits].pop())
    return texts, [bool(k) for k in kinds]


def sorted_out(fits: Sequence[bool]) -> str:
    """Which passages fit, by number from 1."""
    good = ", ".join(str(i) for i, f in enumerate(fits, 1) if f) or "none"
    bad = ", ".join(str(i) for i, f in enumerate(fits, 1) if not f) or "none"
    return f"Fit: {good}. Do not fit: {bad}."


def mixed_contexts(
    target: Annotated[
        str,
        Setting(
            "what is to be said: the task's own answer; which passages fit; that, and then the answer",
            choices=("answers", "labels", "plain"),
        ),
    ] = "answers",
    passages: Annotated[int, Setting("passages before a question", low=1, high=1_000)] = 10,
    shares: Annotated[
        tuple[str, ...], Setting("shares of misleading passages, one drawn for each item, joined by ;")
    ] = (
        "0",
        "0.1",
        "0.5",
        "0.9",
    ),
    every: Annotated[bool, Setting("each question with every share, in place of one drawn")] = False,
) -> Callable[[Workshop], list[Item]]:
    """Items whose prompts hold passages."""
    try:
        parts = [float(share) for share in shares]
    except ValueError:
        parts = []
    if not parts or not all(0 <= p <= 1 for p in parts):
        raise UserError(
            f"mixed_contexts.shares is '{';'.join(shares)}'; it must be numbers from 0 to 1, joined by ;"
        )

    def make(shop: Workshop) -> list[Item]:
        items, rng = [], shop.random("mixed contexts")
        for task in shop.drawn(shop.wanted):
            good, bad = passages_of(task, RELEVANT), passages_of(task, MISLEADING)
            for share in parts if every else [parts[rng.integers(len(parts))]]:
                texts, fits = arranged(good, bad, passages, share, rng)
                shown = "\n".join(f"[{i}] {text}" for i, text in enumerate(texts, 1))
                said = f"{shown}\n\n{task.prompt[-1].content}{ASK[target]}"
                prompt = [*task.prompt[:-1], Message("user", said)]
                item = of_task(task, shop.spec)
                row = {
                    "prompt": said if len(prompt) == 1 else [vars(m) for m in prompt],
                    "difficulty": fits.count(False) / passages,
                }
                answer = task.reference or task.answer or ""
                if target == "labels":
                    row |= {"answer": sorted_out(fits), "reference": sorted_out(fits)}
                elif target == "answers":
                    row |= {"reference": f"{sorted_out(fits)}\n{answer}"}
                items.append(item.but(**row).noted(writer="its source", misleading=fits.count(False)))
        shop.sieve.items = items
        shop.sieve.counts.append(("questions with passages", len(items), len(items)))
        return shop.sieve.through("empty ones", answered).through("the same", different).items

    return make


RECIPE = DataRecipe(
    name="mixed_contexts",
    verb=MAKE,
    build=stage(mixed_contexts),
    paper=Paper(
        "Context Engineering for Trustworthiness: Rescorla Wagner Steering Under Mixed and Inappropriate Contexts",
        "2509.04500",
        2025,
    ),
    idea="A model that reads ten passages is misled by one wrong one more than by a tenth. It learns to say of each passage whether it fits "
    "the question, and to answer from those that do; few mixtures are seen in training, others in the examination.",
    departures=(
        "only the abstract was at hand: the two stages, the words and the shares are guesses",
        "the behaviour curve is accuracy by the share of misleading passages; the Rescorla-Wagner model is not fitted to it",
        "passages are the user's, in two columns of the task file",
    ),
    needs=("answers",),
)
