"""SwS: a first phase finds out what the policy does not learn, a second one gets new tasks for it.

A problem is weak where accuracy is low and does not rise; of a source whose problems never repeat, a level of a kind is. In
the second phase part of the tasks are weak problems, new ones of weak levels (`sws`), or written by a model after their
example (`sws_written`), and problems that are too hard or too easy are left out (`curriculum.filter.within`). SwS, arXiv 2506.08989."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.curriculum import written as buffer
from etude.curriculum.filter import within
from etude.fixtures.curricula import ExampleContext, attempts_at, built
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import answer_of, reworded
from etude.rollout.conversation import Failed
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.second import worded
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.tasks.files import Listed
from etude.tasks.posed import by_majority, worked_out
from etude.types import Episode, Group, Request, Signal, Task

WEAK = "weak"  # purpose of a request: a weak problem, or a new one of a weak level
WRITTEN = "written"  # task meta: a problem that a model wrote (`tasks.posed`), and where it came from

Unit = tuple[str, float, str]  # kind, level, key of a task that comes again: u, whose accuracy is logged


# ---- the curriculum ----------------------------------------------------------------------------------------


def slope(a: Sequence[float]) -> float:
    """The least-squares slope of a_t over t = 0, 1, 2, ...; 0 for a single value."""
    t = np.arange(len(a)) - (len(a) - 1) / 2
    return float(t @ np.array(a) / max(t @ t, 1e-12))


def failure_ratios(weak: Mapping[Unit, bool]) -> dict[str, float]:
    """|weak in c| / |c|: the share of each kind's units that are weak; kinds without any are left out."""
    of: dict[str, list[bool]] = {}
    for (kind, _, _), failing in weak.items():
        of.setdefault(kind, []).append(failing)
    return {kind: float(np.mean(found)) for kind, found in sorted(of.items()) if any(found)}


class Weakness:
    """Two phases. The first draws the source's own mixture and logs a_ut: of every task of a finite source the accuracy
    whenever it comes, else of every level of every kind the accuracy in each part of the phase. In the second,
    `weak_share` of the tasks are weak ones: kind c with a probability proportional to |weak in c| / |c|, then one of its
    weak units evenly."""

    def __init__(
        self,
        first_phase: Annotated[
            float, Setting("share of the run that the first phase takes", low=0.01, high=1)
        ] = 0.5,
        parts: Annotated[
            int,
            Setting("parts of the first phase in which a level's accuracy is logged", low=1, high=64),
        ] = 4,
        weak_accuracy: Annotated[
            float, Setting("accuracy above which a problem or level is not weak", low=0, high=1)
        ] = 0.5,
        weak_share: Annotated[
            float, Setting("share of the second phase's tasks that are weak ones", low=0, high=1)
        ] = 0.5,
    ) -> None:
        self.first_phase, self.parts = first_phase, parts
        self.weak_accuracy, self.weak_share = weak_accuracy, weak_share
        self.listed: dict[str, Task] = {}  # the training tasks of finite sources, by key
        self.counts: dict[Unit, dict[int, tuple[int, int]]] = {}  # {u: {t: (right attempts, all attempts)}}

    def prepare(self, tasks: TaskSet) -> None:
        finite = (source for source in getattr(tasks, "sources", ()) if isinstance(source, Listed))
        self.listed = {task.key: task for source in finite for task in source.tasks("train")}

    def accuracy(self) -> dict[Unit, list[float]]:
        """a_ut of every unit, for the times t at which it was met."""
        return {
            unit: [right / tried for _, (right, tried) in sorted(met.items())]
            for unit, met in sorted(self.counts.items())
        }

    def weak(self) -> dict[Unit, bool]:
        """max_t a_ut <= 1/2 and slope_t a_ut <= 0, for every unit that was met."""
        return {u: max(a) <= self.weak_accuracy and slope(a) <= 0 for u, a in self.accuracy().items()}

    def next(self, n: int, context: Context) -> list[Request]:
        weak = self.weak() if context.progress >= self.first_phase else {}
        ratios = failure_ratios(weak)
        if not ratios:
            return [Request() for _ in range(n)]
        rngs = [context.rng("weak", context.drawn + i) for i in range(n)]
        return [self._request(rng, weak, ratios, context.tasks) for rng in rngs]

    def _request(
        self, rng: np.random.Generator, weak: Mapping[Unit, bool], ratios: Mapping[str, float], tasks: Any
    ) -> Request:
        if rng.random() >= self.weak_share:
            return Request()
        p = np.array(list(ratios.values()))
        kind = list(ratios)[rng.choice(len(p), p=p / p.sum())]
        units = sorted(unit for unit, failing in weak.items() if unit[0] == kind and failing)
        _, level, key = units[rng.integers(len(units))]
        if key:
            return Request(kind, level, task=self.listed[key], purpose=WEAK, why=WEAK)
        return Request(kind, level if level in tasks.levels(kind) else None, purpose=WEAK, why=WEAK)

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        if context.progress >= self.first_phase:
            return
        part = min(int(context.progress / self.first_phase * self.parts), self.parts - 1)
        for group in (g for g in groups if g.episodes):
            task, right = group.task, sum(e.correct for e in group.episodes)
            comes_again = task.key in self.listed
            met = self.counts.setdefault(
                (task.kind, float(task.difficulty), task.key if comes_again else ""), {}
            )
            t = len(met) if comes_again else part
            before = met.get(t, (0, 0))
            met[t] = before[0] + right, before[1] + len(group.episodes)

    def report(self) -> Mapping[str, float]:
        """How many problems or levels were met and how many are weak, and each weak kind's share of the tasks for
        them."""
        weak = self.weak()
        ratios = failure_ratios(weak)
        whole = sum(ratios.values())
        found = {"met": float(len(weak)), "weak": float(sum(weak.values()))}
        return found | {f"weak/{kind}": ratio / whole for kind, ratio in ratios.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"counts": {unit: dict(met) for unit, met in self.counts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts = {unit: dict(met) for unit, met in state["counts"].items()}


# ---- problems that a model writes --------------------------------------------------------------------------

WRITER = 1 << 19  # index of the conversation in which a problem is written; those of the vote follow
WRITE = "{question}\n\nWrite another problem of this kind. Write nothing else."


class Written:
    """Where a weak problem, or one of a weak level, is asked for, it is an example: `writer` writes another like
    it, whose answer is computed or, where it cannot be, is what at least `min_votes` of `votes` answers of the writer
    agree on. Where that gives no task, the example itself is attempted. What the writer samples is paid for and never
    trained on."""

    def __init__(
        self,
        writer: WhoWrites = "policy",
        votes: Annotated[int, Setting("answers that vote; 0: only what can be computed", low=0)] = 8,
        min_votes: Annotated[int, Setting("votes that an answer needs", low=1)] = 4,
        problem_request: Annotated[str, Setting("how a problem is asked for")] = WRITE,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.writer = Writer(writer, address, longest)
        self.reads = self.writer.reads
        self.votes, self.min_votes = votes, min_votes
        self.problem_request = worded(problem_request, "question")
        self.last: dict[str, float] = {}
        self.told: list[buffer.News] = []

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if rollouts.request.purpose == WEAK:
            try:
                task = await self._write(rollouts)
            except Failed:
                task = None
            if task is not None and rollouts.admits(task):
                origin = buffer.after(rollouts.task, task, self.writer.who)
                rollouts.task = replace(task, meta={**task.meta, WRITTEN: origin})
        return await rollouts.plays(range(rollouts.samples))

    async def _write(self, rollouts: GroupRollout) -> Task | None:
        example = rollouts.task
        asked = self.problem_request.format(question=example.prompt[-1].content)
        text = await self.writer.draft(rollouts.conversation(WRITER), reworded(example.prompt, asked))
        task = worked_out(example, text)
        if task is not None or not self.votes or not hasattr(example.check, "extract"):
            return task
        problem = reworded(example.prompt, text.strip())
        answers = await asyncio.gather(
            *(self.writer.draft(rollouts.conversation(WRITER + 1 + i), problem) for i in range(self.votes))
        )
        return by_majority(example, text, [answer_of(example, a) for a in answers], self.min_votes)

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        asked = [g.task.meta.get(WRITTEN) for g in groups if g.request.purpose == WEAK]
        self.told = buffer.tried_at_once([entry for entry in asked if entry is not None])
        self.last = {"written": float(np.mean([e is not None for e in asked]))} if asked else {}

    def news(self) -> list[buffer.News]:
        return self.told

    def report(self) -> Mapping[str, float]:
        """Of the last step: the share of the weak tasks that were written, not drawn."""
        return self.last


# ---- recipes and their numbers -----------------------------------------------------------------------------

PAPER = Paper(
    "SwS: Self-aware Weakness-driven Problem Synthesis in Reinforcement Learning for LLM Reasoning",
    "2506.08989",
    2025,
)

DEPARTURES = (
    "of a generator, whose problems never repeat, accuracy is logged for a kind and level and over parts of the first phase; a level "
    "that holds problems of both sorts is weak or not as a whole",
    "a finite source has no new problems: its weak ones come more often",
    "as in the release, groups outside the band are drawn anew until the batch is full (up to run.oversample): the second phase pays for "
    "more attempts than it trains on",
    "GUESS: phase 2 is the second half of the budget, half of whose tasks are new; it continues from phase 1's policy",
    "filter.begin_at and curriculum.first_phase name the same moment and are set together",
    "alone it is trained as GRPO; `gspo+sws` and the like take credit and loss from the other, which must leave the filter alone",
)

STAGES = {
    "curriculum": stage(Weakness),
    "filter": stage(within, min_accuracy=0.125, max_accuracy=0.875, begin_at=0.5),
}


def _logged(curves: Mapping[tuple[str, float], Sequence[float]], **settings: Any) -> Weakness:
    """The curriculum after a first phase in which levels had these accuracies of four attempts, part after part; None
    of them where it is nan."""
    weakness: Weakness = built(SWS, "curriculum", settings)
    for t in range(weakness.parts):
        groups = [
            attempts_at(level, [1.0] * round(4 * a[t]) + [0.0] * round(4 - 4 * a[t]))
            for level, a in curves.items()
            if a[t] == a[t]
        ]
        weakness.observe(groups, [], ExampleContext(progress=weakness.first_phase * t / weakness.parts))
    return weakness


def _listed(*accuracies: float) -> Weakness:
    """The curriculum after a first phase in which each of the tasks of a list, of one kind and level, was met twice,
    with this accuracy of four attempts."""
    weakness: Weakness = built(SWS, "curriculum")
    groups = [
        attempts_at(("a", 0.0), [1.0] * round(4 * a) + [0.0] * round(4 - 4 * a), i)
        for i, a in enumerate(accuracies)
    ]
    weakness.prepare(TaskSet.of([g.task for g in groups], held=()))
    for progress in (0.0, 0.01):
        weakness.observe(groups, [], ExampleContext(progress=progress))
    return weakness


NAN = float("nan")
CURVES = {
    ("falling", 0.0): (0.5, 0.25, 0.25, 0.25),
    ("flat", 0.0): (0.25, 0.25, 0.25, 0.25),
    ("rising", 0.0): (0.0, 0.25, 0.0, 0.25),
    ("once above", 0.0): (0.75, 0.0, 0.0, 0.0),
    ("met once", 0.0): (NAN, 0.5, NAN, NAN),
    ("gaps", 0.0): (NAN, 0.5, NAN, 0.25),
}
KINDS = {  # one of two levels of a is weak, the only one of b, none of c
    ("a", 0.0): (0.25,) * 4,
    ("a", 1.0): (1.0,) * 4,
    ("b", 0.0): (0.0,) * 4,
    ("c", 0.0): (1.0,) * 4,
}


def _trained(progress: float) -> list[int]:
    """How many of eight attempts are right in the groups that are trained on, among all from 0 to 8."""
    groups = [attempts_at(("a", 0), [1.0] * k + [0.0] * (8 - k), k) for k in range(9)]
    kept = built(SWS, "filter")(groups, ExampleContext(progress=progress))
    return [sum(e.correct for e in g.episodes) for g in kept]


SWS = Recipe(
    name="sws",
    paper=PAPER,
    published_lr=1e-6,
    idea="What a policy fails at and does not get better at is where it is weak. A first phase of training finds these places. "
    "In a second phase part of the tasks are new problems of just these places, each kind getting as many as its share of "
    "failures, and problems that are too hard or too easy are drawn anew.",
    equation="weak(x) = max_t a_xt <= 1/2 and slope_t a_xt <= 0;  P(kind c) ~ |weak in c| / |c|;  phase 2 keeps 1/8 <= a <= 7/8",
    departures=(
        "problems are written by the task source at the weak kind and level, where the paper has a language model write them from "
        "concepts; their answers are computed, so neither judges nor a majority of a solver's answers are needed",
        *DEPARTURES,
    ),
    stages=STAGES,
    default_base=GRPO,
    claim="A second phase weighted by failure raises the accuracy of weak kinds more than one of the same length that is not.",
    manipulation=(Manipulated("some levels are weak", r"curriculum\.weak", 0.01, read="last"),),
    examples=(
        ByHand("which levels are weak", lambda: list(_logged(CURVES).weak().values()), [1, 1, 1, 1, 0, 0]),
        ByHand(
            "a half of a's levels, all of b's: 1 to 2",
            lambda: list(_logged(KINDS).report().values()),
            [4, 2, 1 / 3, 2 / 3],
        ),
        ByHand(
            "of one level with a problem always solved and one never, the level is weak and so are both; listed, one is",
            lambda: [
                sum(_logged({("a", 0.0): (0.5,) * 4}).weak().values()),
                *sorted(_listed(1.0, 0.0).weak().values()),
            ],
            [1, 0, 1],
        ),
        ByHand(
            "a quarter of a's four problems is weak: 1/4 of the failures, all of its draws",
            lambda: list(_listed(1.0, 0.75, 1.0, 0.5).report().values()),
            [4, 1, 1],
        ),
        ByHand("in the second phase 1/8 to 7/8", lambda: _trained(0.5), [1, 2, 3, 4, 5, 6, 7]),
        ByHand("in the first all", lambda: _trained(0.49), list(range(9))),
        Reduction("before anything is found to be weak: GRPO", "grpo"),
    ),
)

SWS_WRITTEN = Recipe(
    name="sws_written",
    paper=PAPER,
    published_lr=1e-6,
    idea="SwS with problems that a model writes: it is shown one of the kind that the policy fails at and writes another. "
    "The answer is computed where the problem can be run, else it is what most of several answers agree on. "
    "What cannot be read as a problem is dropped.",
    equation="x' ~ pi(. | x, 'another of this kind') for weak x;  gold(x') = run(x'), else the mode of 8 answers if it has at least 4",
    departures=(
        "the policy writes and votes by default, --set group_rollout.writer=teacher asks run.teacher; the paper has stronger models for both",
        "one problem of the weak kind is shown, where the paper draws five concepts that occur together; no judge rates what was written",
        "problems of the lab, programs and written arithmetic (with the example's expression replaced) are run; others are voted on where the "
        "checker compares an answer; of the rest, and where nothing usable was written, the source's own problem is taken",
        *DEPARTURES,
    ),
    stages={**STAGES, "group_rollout": stage(Written)},
    default_base=GRPO,
    needs=("text",),
    claim="Problems that are written where the policy is weak raise the accuracy there as problems of the source do.",
    manipulation=(
        Manipulated("a fifth of the tasks for weak levels are written", r"group_rollout\..*", 0.2),
    ),
    examples=(Reduction("before anything is found to be weak: GRPO", "grpo"),),
)

RECIPES = [SWS, SWS_WRITTEN]
