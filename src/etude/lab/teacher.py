"""Who lays the examples out that the laboratory's model is taught with: one task, and what is said about it. A share of its
lines is wrong (`SLIPS`), less after help, so that all that is asked of the model can be improved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.lab.problems import ShakyHand, Worked, solve
from etude.lab.tasks import first_wrong, lab_task
from etude.lab.worlds import marked
from etude.types import Task


@dataclass(frozen=True)
class Said:
    """A turn, or (`goes_on`) the beginning of the model's turn that follows. `learnt`: imitated."""

    role: str
    text: str
    learnt: bool = False
    goes_on: bool = False


Example = list[Said]

SLIPS = {"plain": 0.1, "again": 0.1, "helped": 0.04, "shown": 0.15, "judged": 0.08, "repeated": 0.35}
"""Share of wrong lines: of a solution, of another try without help, of one with help, of attempts that are shown to be
judged; of wrong judgements; and of tries without help that are the attempt before once more."""
FEWER_SLIPS = {**SLIPS, "helped": 0.01, "judged": 0.02, "repeated": 0.6}
"""For the last lesson: what sets help apart from another try is learnt from few examples where it is plain to see."""


class Teacher:
    """One task of the taught quarter, and what is said about it, drawn by `rng`."""

    def __init__(
        self, kind: str, level: int, rng: np.random.Generator, slips: Mapping[str, float] = SLIPS
    ) -> None:
        self.rng, self.slips = rng, slips
        self.task: Task = lab_task(kind, level, int(rng.integers(1 << 40)), "hint", teaching=True)
        self.question = self.task.prompt[0].content
        self.lines: list[str] = list(self.task.meta.get("steps", ()))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def one_of(self, *texts: str) -> str:
        """One of them, the first in more than half of all cases: it is what recipes say."""
        return texts[0] if self.chance(0.5) else texts[self.rng.integers(len(texts))]

    def worked(self, slips: str, steady: int = 0) -> Worked:
        """Lines and result, the first `steady` lines right."""
        return solve(self.question, ShakyHand(self.rng, self.slips[slips], steady))

    def answer(self, slips: str, steady: int = 0) -> str:
        return marked(*self.worked(slips, steady))

    def wrong(self) -> Worked:
        """Working that ends in a wrong result."""
        share = self.slips["shown"]
        while True:
            lines, result = solve(self.question, ShakyHand(self.rng, share))
            if result != self.task.answer:
                return lines, result
            share = 0.5

    def up_to_the_slip(self) -> tuple[list[str], int]:
        """The lines of an attempt up to its first wrong one, and that one's number."""
        wrong, result = self.wrong()
        at = first_wrong(self.lines, marked(wrong, result))
        return wrong[:at], at

    def attempt(self) -> Worked:
        """Working that is wrong, or, in a third of all cases, right."""
        return (self.lines, self.task.answer or "") if self.chance(1 / 3) else self.wrong()

    def told(self, attempt: str, *kinds: str) -> str:
        """What the task's check says of an attempt, at one of these kinds of feedback."""
        check: Any = self.task.check
        return str(replace(check, feedback=kinds[self.rng.integers(len(kinds))])(attempt).feedback)

    def judged(self, attempt: str) -> int:
        """The first wrong line, from 1 (0: none); now and then misjudged."""
        right = first_wrong(self.lines, attempt)
        return int(self.rng.integers(len(self.lines) + 1)) if self.chance(self.slips["judged"]) else right


def asked(text: str) -> Said:
    return Said("user", text)


def shown(text: str, goes_on: bool = False) -> Said:
    return Said("assistant", text, goes_on=goes_on)


def learnt(text: str) -> Said:
    return Said("assistant", text, learnt=True)
