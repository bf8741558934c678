"""SwS: a first phase finds out what the policy does not learn, a second one gets new tasks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from etude.curriculum.band import within
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import answer_of, reworded
from etude.rollout.conversation import Failed
from etude.rollout.second import worded
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.tasks.check import Exact
from etude.tasks.posed import by_majority, worked_out
from etude.types import Array, Episode, Group, Message, Request, Task

WHY = "weak"


Unit = tuple[str, float]  # kind and level


def slope(values: Sequence[float]) -> float:
    """The least-squares slope over 0, 1, 2, ...; 0 for a single value."""
    times = np.arange(len(values)) - (len(values) - 1) / 2
    return float(times @ np.array(values) / max(times @ times, 1e-12)) if len(values) else 0.0


def is_weak(accuracy: Sequence[float], most: float = 0.5) -> bool:
    """Whether accuracy never rose above `most` and is not rising."""
    return bool(accuracy) and max(accuracy) <= most and slope(accuracy) <= 0


def failure_ratios(weak: Mapping[Unit, bool]) -> dict[str, float]:
    """The share of each kind's levels that are weak; kinds without any are left out."""
    of: dict[str, list[bool]] = {}
    for (kind, _), failing in weak.items():
        of.setdefault(kind, []).append(failing)
    return {kind: float(np.mean(found)) for kind, found in sorted(of.items()) if any(found)}


class Weakness:
    """Two phases. The first draws the source's own mixture and logs the accuracy of every level of every kind, in
    `parts` parts. In the second, `share` of the tasks are new ones of weak levels, a kind getting as much as the
    share of its levels that are weak."""

    def __init__(
        self,
        first: Annotated[
            float, Setting("share of the budget that the first phase takes", low=0.01, high=1)
        ] = 0.5,
        parts: Annotated[
            int, Setting("parts of the first phase in which accuracy is logged", low=1, high=64)
        ] = 4,
        most: Annotated[float, Setting("accuracy above which a level is not weak", low=0, high=1)] = 0.5,
        share: Annotated[
            float, Setting("share of the second phase's tasks that go to weak levels", low=0, high=1)
        ] = 0.5,
    ) -> None:
        self.first, self.parts, self.most, self.share = first, parts, most, share
        self.tried: dict[Unit, Array] = {}  # int64[parts, 2]: right attempts and all
        self.progress = 0.0  # of the step that is under way

    def next(self, n: int, context: Any) -> list[Request]:
        self.progress = context.progress
        weak = self.weak() if self.progress >= self.first else {}
        ratios = failure_ratios(weak)
        if not ratios:
            return [Request() for _ in range(n)]
        return [
            self._one(context.rng("weak", context.drawn + i), weak, ratios, context.tasks) for i in range(n)
        ]

    def _one(
        self, rng: np.random.Generator, weak: Mapping[Unit, bool], ratios: Mapping[str, float], tasks: Any
    ) -> Request:
        if rng.random() >= self.share:
            return Request()
        kinds = list(ratios)
        budget = np.array(list(ratios.values()))
        kind = kinds[rng.choice(len(kinds), p=budget / budget.sum())]
        levels = sorted(level for (k, level), failing in weak.items() if k == kind and failing)
        level = levels[rng.integers(len(levels))]
        return Request(kind, level if level in tasks.levels(kind) else None, why=WHY)

    def weak(self) -> dict[Unit, bool]:
        """Every level that was met, and whether it is weak."""
        return {unit: is_weak(accuracy, self.most) for unit, accuracy in self.accuracy().items()}

    def accuracy(self) -> dict[Unit, list[float]]:
        """Share of right attempts in each part of the first phase in which a level was met."""
        return {
            unit: [float(right / tried) for right, tried in counts if tried]
            for unit, counts in sorted(self.tried.items())
        }

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        if self.progress >= self.first:
            return
        part = min(int(self.progress / self.first * self.parts), self.parts - 1)
        for group in (g for g in groups if g.episodes):
            unit = (group.task.kind, float(group.task.difficulty))
            counts = self.tried.setdefault(unit, np.zeros((self.parts, 2), np.int64))
            counts[part] += sum(e.correct for e in group.episodes), len(group.episodes)

    def report(self) -> dict[str, float]:
        """Levels that were met and that are weak, and each weak kind's part of the budget for them."""
        weak = self.weak()
        ratios = failure_ratios(weak)
        whole = sum(ratios.values())
        found = {"levels": float(len(weak)), "weak": float(sum(weak.values()))}
        return found | {f"weak/{kind}": ratio / whole for kind, ratio in ratios.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"tried": {unit: counts.copy() for unit, counts in self.tried.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tried = {unit: counts.copy() for unit, counts in state["tried"].items()}


WRITER = 1 << 19  # the seat of who writes; those who vote on the answer sit behind


WRITE = "{question}\n\nWrite another problem of this kind. Write nothing else."


class Written:
    """Where the curriculum asks for a weak kind, the task that it drew is an example: `writer` writes another like it,
    whose answer is computed, or, where it cannot be, what `least` of `votes` answers of the writer agree on. Where
    that yields no task, the example itself is played. What is written is paid for and never trained."""

    def __init__(
        self,
        writer: WhoWrites = "policy",
        votes: Annotated[int, Setting("answers that vote; 0: only what can be computed", low=0)] = 8,
        least: Annotated[int, Setting("votes that an answer needs", low=1)] = 4,
        ask: Annotated[str, Setting("how a problem is asked for")] = WRITE,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.writer = Writer(writer, address, longest)
        self.reads = self.writer.reads
        self.votes, self.least, self.ask = votes, least, worded(ask, "question")
        self.seen: dict[str, float] = {}

    async def __call__(self, rollouts: Any) -> list[Episode]:
        if rollouts.request.why == WHY:
            try:
                task = await self._write(rollouts)
            except Failed:
                task = None
            if task is not None and rollouts.admits(task):
                rollouts.task = task
        episodes: list[Episode] = await rollouts.plays(range(rollouts.samples))
        return episodes

    async def _write(self, rollouts: Any) -> Task | None:
        example: Task = rollouts.task
        asked = reworded(example.prompt, self.ask.format(question=example.prompt[-1].content))
        text = await self.writer.draft(rollouts.conversation(WRITER), asked)
        task = worked_out(example, text)
        if task is not None or not self.votes or not hasattr(example.check, "extract"):
            return task
        posed = reworded(example.prompt, text.strip())
        said = await asyncio.gather(
            *(self.writer.draft(rollouts.conversation(WRITER + 1 + i), posed) for i in range(self.votes))
        )
        return by_majority(example, text, [answer_of(example, answer) for answer in said], self.least)

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        """Remembers how much of what was asked for was written."""
        asked = [g for g in groups if g.request.why == WHY]
        self.seen = {"written": float(np.mean(["written" in g.task.meta for g in asked]))} if asked else {}

    def report(self) -> dict[str, float]:
        """Of the last step: the share of tasks for weak kinds that were written, not drawn."""
        return self.seen


PAPER = Paper(
    "SwS: Self-aware Weakness-driven Problem Synthesis in Reinforcement Learning for LLM Reasoning",
    "2506.08989",
    2025,
)

DEPARTURES = (
    "accuracy is logged for a kind and level, and over parts of the first phase, since a generator's problems never repeat",
    "a finite source has no new problems: its weak ones come more often",
    "GUESS: phase 2 is the second half of the budget, half of whose tasks are new; it continues from phase 1's policy",
    "select.begin and curriculum.first name the same moment and are set together",
    "alone it is trained as GRPO; `gspo+sws` and the like take credit and loss from the other, which must leave select alone",
)

STAGES = {"curriculum": stage(Weakness), "filter": stage(within, low=0.125, high=0.875, begin=0.5)}


def _agreed(answers: str) -> bool:
    task = by_majority(Task((Message("user", "3+4"),), Exact("7")), "2+5", answers, 4)
    return task is not None and task.answer == "7"


SWS = Recipe(
    name="sws",
    n=294,
    paper=PAPER,
    idea="What a policy fails at and does not get better at is where it is weak. A first phase of training finds these places. "
    "In a second phase part of the tasks are new problems of just these places, each kind getting as many as its share of "
    "failures, and problems that are too hard or too easy are drawn anew.",
    equation="weak(u) = max_t a_ut <= 1/2 and slope_t a_ut <= 0;  P(kind c) ~ |weak in c| / |c|;  phase 2 keeps 1/8 <= a <= 7/8",
    departures=(
        "problems are written by the task source at the weak kind and level, where the paper has a language model write them from "
        "concepts; their answers are computed, so neither judges nor a majority of a solver's answers are needed",
        *DEPARTURES,
    ),
    stages=STAGES,
    default_base=GRPO,
    claim="A second phase weighted by failure raises the accuracy of weak kinds more than one of the same length that is not.",
    examples=(
        ByHand(
            "slopes of rising, falling and single values",
            lambda: [slope([0.1, 0.2, 0.3]), slope([1, 0]), slope([0.4])],
            [0.1, -1, 0],
        ),
        ByHand(
            "low and falling; low and rising; low but once above a half",
            lambda: [is_weak([0.3, 0.2]), is_weak([0.2, 0.3]), is_weak([0.6, 0.1])],
            [1, 0, 0],
        ),
        ByHand(
            "one of two levels weak, one of one, none",
            lambda: list(
                failure_ratios({("a", 0): True, ("a", 1): False, ("b", 0): True, ("c", 0): False}).values()
            ),
            [0.5, 1],
        ),
        Reduction("before anything is found to be weak: GRPO", "grpo"),
    ),
)

WRITTEN = Recipe(
    name="sws_written",
    n=294,
    paper=PAPER,
    idea="SwS with problems that a model writes: it is shown one of the kind that the policy fails at and writes another. "
    "The answer is computed where the problem can be run, else it is what most of several answers agree on. "
    "What cannot be read as a problem is dropped.",
    equation="x' ~ pi(. | x, 'another of this kind') for weak x;  gold(x') = run(x'), else the mode of 8 answers if it has at least 4",
    departures=(
        "the policy writes and votes by default, --set gather.writer=teacher asks run.teacher; the paper has stronger models for both",
        "one problem of the weak kind is shown, where the paper draws five concepts that occur together; no judge rates what was written",
        "problems of the lab, programs and written arithmetic (with the example's expression replaced) are run; others are voted on where the "
        "checker compares an answer; of the rest, and where nothing usable was written, the source's own problem is taken",
        *DEPARTURES,
    ),
    stages={**STAGES, "group_rollout": stage(Written)},
    default_base=GRPO,
    needs=("text",),
    claim="Problems that are written where the policy is weak raise the accuracy there as problems of the source do.",
    examples=(
        ByHand(
            "4 of 8 votes agree, 3 of 8 do not suffice",
            lambda: [_agreed("77771234"), _agreed("77712345")],
            [1, 0],
        ),
        Reduction("before anything is found to be weak: GRPO", "grpo"),
    ),
)

RECIPES = [SWS, WRITTEN]
