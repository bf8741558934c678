"""The supervised data of the laboratory's model: worked solutions in the forms that methods will ask for, namely plain,
after a hint (worded as in `methods/hints/guide.py`), as a second attempt after feedback, and with the lines repeated as
a check. A share of the lines holds an error, so that the model's accuracy leaves room for a method to improve it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from etude import seeds
from etude.credit.imitate import imitate, tagged
from etude.lab.tasks import KINDS, LETTERS, LEVELS, lab_task, solution
from etude.models.tiny import LETTERS as CHARACTERS
from etude.rollout.demonstrate import answer_tokens
from etude.text.chat_template import Renderer
from etude.types import Episode, Message, Signal, Span, Task

AGAIN = "Try again."
CHECK = "check"
SHARES = {"plain": 0.6, "hinted": 0.15, "again": 0.1, "checking": 0.15}
SLIPS = 0.1  # share of the lines that are wrong
LEVEL_SHARES = (0.35, 0.3, 0.2, 0.1, 0.05)
KIND_SHARES = {"sum": 0.2, "chain": 0.25, "sort": 0.15, "reverse": 0.25, "count": 0.15}


def warmup_signals(renderer: Renderer, number: int, step: int, seed: int) -> list[Signal]:
    """`number` solutions to imitate, all from the quarter of the problems that is kept for the warm-up."""
    return [_signal(renderer, i, step, seed) for i in range(number)]


def _signal(renderer: Renderer, i: int, step: int, seed: int) -> Signal:
    rng = seeds.generator(seed, "warm-up", step, i)
    kind = str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
    level = int(rng.choice(len(LEVELS), p=LEVEL_SHARES))
    task = lab_task(kind, level, int(rng.integers(1 << 40)), warm_up=True)
    form = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    asked = list(task.prompt)
    lines, result = slipped(task, rng, SLIPS)
    spans: list[Span] = []
    if form == "hinted":
        hint = task.hints[rng.integers(len(task.hints))]
        asked = [Message("user", f"{asked[0].content}\n\nHint: {hint}")]
    spans.append(Span("user", renderer.prompt(asked)))
    if form == "checking" and level < 3:
        lines = [*lines, CHECK, *lines]
    if form == "again":
        wrong = solution(*slipped(task, rng, 0.5))
        spans.append(Span("assistant", answer_tokens(renderer, wrong)))
        said = [AGAIN, "That is not right.", _heard(task, wrong, "hint"), _heard(task, wrong, "full")]
        new = [Message("user", said[rng.integers(len(said))])]
        spans.append(Span("user", renderer.extend([*asked, Message("assistant", wrong)], new)[0]))
    spans.append(Span("assistant", answer_tokens(renderer, solution(lines, result)), tag="demonstration"))
    episode = Episode(task, tuple(spans), player="demonstration")
    return imitate(episode, tagged(episode, "demonstration"))


def slipped(task: Task, rng: np.random.Generator, slips: float) -> tuple[list[str], str]:
    """The task's lines and result with off-by-one errors in a share `slips` of the lines; running totals go on from the
    wrong value."""
    lines = list(task.meta["steps"])
    assert task.answer
    listed = len(task.answer) > 1  # the result lists the lines; else it is the last total
    off = 0
    for i, line in enumerate(lines):
        by = int(rng.choice([-1, 1])) if rng.random() < slips else 0
        off = by if listed else off + by
        lines[i] = line[:-1] + _moved(line[-1], off)
    return lines, "".join(lines) if listed else lines[-1][-1]


def _moved(symbol: str, by: int) -> str:
    ring = LETTERS if symbol.isalpha() else "0123456789"
    return ring[(ring.index(symbol) + by) % len(ring)]


def _heard(task: Task, answer: str, feedback: str) -> str:
    check: Any = task.check
    return str(replace(check, feedback=feedback)(answer).feedback)


def words() -> list[str]:
    """The vocabulary: words that stand for one token each, then characters."""
    said = ["That is not right.", " The right answer is ", " Line ", " is wrong.", AGAIN, "\n\nHint: "]
    kinds = [f"{kind} " for kind in KINDS]
    return [*said, *kinds, " in ", CHECK, "<answer>", "</answer>", *CHARACTERS]
