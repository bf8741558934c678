"""UR2: only where the untrained model fails may something be looked up; first calling is learnt, then answering.

Li et al. (arXiv 2508.06165); rewards after the released code (Tsinghua-dhy/UR2, train/reward_server_*_stage1.py and _stage2.py).

- A task is hard where less than a given share of the start's own answers is right, without tools. Only hard tasks are offered the run's tools.
- Faults of an attempt: no answer, a call that cannot be read or more than four of them, a query of more than twenty words, a long answer.
- The first steps: R = c - 1/2 refused + (1 without faults, else minus their number), c = 3 for one call and 4 for several; none is a fault.
  Without tools: 1 without faults, else 0.
- After that: R = 2 worth + 1 [no faults] - 1/2 refused.
- REINFORCE++ with the group's mean as baseline. Results of calls are not trained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import advantage
from etude.fixtures.called import example_calls
from etude.fixtures.curricula import ExampleContext, built
from etude.fixtures.inference import collected
from etude.methods.policy_gradient.reinforce_pp import RECIPE as REINFORCE_PP
from etude.recipe import ByHand, Credited, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import answer_of
from etude.rollout.conversation import Conversation, Failed
from etude.rollout.group_rollout import GroupRollout, verdict
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tools.kit import CALLS, Kit
from etude.types import Episode, Group, Signal, Task

START = "reference"
"""The auxiliary model whose answers say how hard a task is."""

RATE = "start_rate"
"""Note: the share of the start's answers that were right; only where it was asked."""

HARD = "hard"
"""Note: whether the task may be answered with tools."""

PROBED = 1 << 16  # the numbers of the start's answers begin here
MOST_CALLS, MOST_WORDS, LONG_ANSWER = 4, 20, 10


# ---- group rollout ---------------------------------------------------------------------------------------------------


class ToolsWhereHard:
    """Attempts, with the run's tools only where the start's own pass rate, known from when the task was first met, is below `hard_below`.
    Notes `HARD` and `RATE`. Without probes every task is hard."""

    def __init__(
        self,
        start_answers: Annotated[
            int, Setting("answers of the start by which a task's difficulty is told; 0: all are hard", low=0)
        ] = 4,
        hard_below: Annotated[
            float, Setting("pass rate of the start below which a task is hard", low=0, high=1.01)
        ] = 0.5,
    ) -> None:
        self.start_answers, self.hard_below = start_answers, hard_below
        self.reads = frozenset({START} if start_answers else ())
        self.rates: dict[str, float] = {}  # by the task's key
        self.found: dict[str, float] = {}

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        noted: dict[str, Any] = {HARD: True}
        if self.start_answers:
            rate = self.rates.get(rollouts.task.key)
            rate = await self.rate(rollouts) if rate is None else rate
            noted = {HARD: rate < self.hard_below, RATE: rate}
        if not noted[HARD]:
            rollouts = replace(rollouts, generator=replace(rollouts.generator, kit=Kit()))

        async def rollout(task: Task, conversation: Conversation) -> Any:
            conversation.notes |= noted
            return await rollouts.rollout(task, conversation)

        return await rollouts.plays(range(rollouts.samples), rollout)

    async def rate(self, rollouts: GroupRollout) -> float:
        """The share of the start's answers, without tools, that are right; those that fail for other reasons do not count."""
        start = replace(rollouts.generators[START], kit=Kit())

        async def right(number: int) -> float:
            line = rollouts.conversation(PROBED + number, generator=start)
            try:
                played = await rollouts.rollout(rollouts.task, line)
            except Failed:
                return np.nan
            return float((played if isinstance(played, Episode) else played[-1]).correct)

        found = np.array(await asyncio.gather(*map(right, range(self.start_answers))))
        known = found[~np.isnan(found)]
        return float(known.mean()) if len(known) else 0.0

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        """Remembers how hard the step's tasks are."""
        noted = [
            (g.task.key, e.notes) for g in groups for e in (*g.episodes, *g.failed)[:1] if HARD in e.notes
        ]
        for key, notes in noted:
            if RATE in notes:
                self.rates.setdefault(key, notes[RATE])
        self.found = {"hard": float(np.mean([notes[HARD] for _, notes in noted]))} if noted else {}

    def report(self) -> Mapping[str, float]:
        """The share of the last step's tasks that were hard."""
        return self.found

    def state_dict(self) -> dict[str, Any]:
        return {"rates": dict(self.rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rates = dict(state["rates"])


# ---- reward ----------------------------------------------------------------------------------------------------------


def faults_of(episode: Episode) -> int:
    """How much is wrong with how an attempt was written, the answer's worth aside."""
    record = episode.notes.get(CALLS, ())
    answer = answer_of(episode.task, episode.text)
    queries = [" ".join(map(str, call["arguments"].values())) for call in record]
    words, gold = len((answer or "").split()), len((episode.task.answer or "").split())
    return (
        (answer is None or episode.stop != "end")
        + (len(record) > MOST_CALLS or not all(call["read"] for call in record))
        + sum(len(query.split()) > MOST_WORDS for query in queries)
        + (words > LONG_ANSWER and words > gold)
    )


class CallsThenAnswers:
    """In the first `call_steps` steps a reward for calling, then for answering. clean: 1 without faults. called: calls that could be read."""

    def __init__(
        self,
        call_steps: Annotated[
            int, Setting("steps in which calling is paid, not answering", "steps", low=0)
        ] = 15,
        one_call: Annotated[float, Setting("reward of one call, in these steps", low=0)] = 3.0,
        more_calls: Annotated[float, Setting("reward of several", low=0)] = 4.0,
        worth_weight: Annotated[float, Setting("weight of the verdict, after them", low=0)] = 2.0,
        clean_weight: Annotated[float, Setting("reward of an attempt without faults", low=0)] = 1.0,
        refused_cost: Annotated[float, Setting("taken off for a call that the tool refused", low=0)] = 0.5,
    ) -> None:
        self.call_steps, self.one_call, self.more_calls = call_steps, one_call, more_calls
        self.worth_weight, self.clean_weight, self.refused_cost = worth_weight, clean_weight, refused_cost
        self.step = 0

    def __call__(self, episode: Episode) -> dict[str, float]:
        worth, faults = verdict()(episode)["reward"], faults_of(episode)
        record = [call for call in episode.notes.get(CALLS, ()) if call["read"]]
        cost = self.refused_cost * sum(call["failed"] for call in record)
        hard = bool(episode.notes.get(HARD, True))
        early = self.step < self.call_steps
        faults += early and hard and not record
        clean = self.clean_weight * (not faults)
        if not early:
            total = self.worth_weight * worth + clean - cost
        elif hard:
            bonus = (0.0, self.one_call, self.more_calls)[min(2, len(record))]
            total = bonus - cost + (clean if not faults else -faults)
        else:
            total = clean
        return {"reward": total, "clean": float(not faults), "called": float(len(record))}

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        self.step = context.step + 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


# ---- the recipe ------------------------------------------------------------------------------------------------------


def _rewarded(
    step: int, *queries: str, reward: float = 1.0, hard: bool = True, text: str = "7", **how: Any
) -> float:
    """The reward at a step of an attempt that asked for these."""
    scored = built(RECIPE, "reward")
    if step:
        scored.observe([], [], ExampleContext(step=step - 1))
    made = example_calls(reward, *(("search", {"query": q}) for q in queries), text=text, **how)
    found: float = scored(replace(made, notes={**made.notes, HARD: hard}))["reward"]
    return found


def _refused(step: int) -> float:
    made = example_calls(1.0, ("search", {"query": "a"}), ("search", {"query": "b"}), text="7")
    made.notes[CALLS][0]["failed"] = True
    scored = built(RECIPE, "reward")
    scored.observe([], [], ExampleContext(step=step))
    found: float = scored(made)["reward"]
    return found


def _hard(*answers: str, **settings: Any) -> list[float]:
    """Whether the question is hard whose answer is 7 and which the start answers like this, and the start's rate."""
    (played,) = collected(
        RECIPE,
        ["7"],
        {START: answers},
        {f"group_rollout.{k}": v for k, v in {"start_answers": len(answers), **settings}.items()},
    )
    return [played.notes[HARD], played.notes.get(RATE, -1.0)]


LONG = " ".join(["w"] * 21)

RECIPE: Recipe = Recipe(
    name="ur2",
    base=REINFORCE_PP,
    paper=Paper("UR2: Unify RAG and Reasoning through Reinforcement Learning", "2508.06165", 2025),
    published_lr=2e-6,
    idea="A model that always looks things up forgets how to think, and one that never does makes things up. "
    "So tasks that the untrained model mostly solves by itself are offered no tools, and only the hard ones are. "
    "In the first steps calls that can be read are paid, whatever comes of them; then the answer is.",
    equation="first: R = c - refused / 2 + (1 | -faults), c = 3, 4 for one, several calls;  then R = 2 worth + [no faults] - refused / 2;  "
    "A = R - mean R, whitened over the batch",
    departures=(
        "GUESS: a task is hard where fewer than half of four answers of the start are right; the paper sorts into easy, medium and hard "
        "by rollouts and does not say how these are mixed",
        "tools are the run's (--tools search:FOLDER) in the model's own syntax; the release has tags for queries and documents",
        "what the release lets a language model do, condensing passages and refusing queries that ask for more than a search, a tool of "
        "yours may do: a call that it answers with an error costs what a refusal does",
        "faults are counted that can be told of any task: of the release's, words of another script, names of roles in the text, tags "
        "within the answer and calls where none were offered (they are text here) are not",
        "the release pays 5 and 7 for calls to its smallest model, 3 and 4 to others (reward.one_call, reward.more_calls)",
        "both stages are one run, in which calling is paid for 15 steps, as in the release; there the second stage is a run of its own",
    ),
    stages={
        "group_rollout": stage(ToolsWhereHard),
        "reward": stage(CallsThenAnswers),
        "credit": stage(advantage, baseline="group mean", scale="whitened"),
    },
    claim="Fewer calls at the same accuracy than where every task is offered tools.",
    manipulation=(
        Manipulated("some tasks are hard", r"group_rollout\.hard", 0.05),
        Manipulated("and some are not", r"group_rollout\.hard", at_most=0.95),
    ),
    examples=(
        ByHand("one of four right: hard", lambda: _hard("7", "8", "9", "1"), [1.0, 0.25]),
        ByHand("two of four: not", lambda: _hard("7", "8", "7", "1"), [0.0, 0.5]),
        ByHand("nobody asked: hard", lambda: _hard(), [1.0, -1.0]),
        ByHand(
            "first: one call 3 + 1, two 4 + 1, five 4 - 1 fault, none -1 fault",
            lambda: [_rewarded(0, *q) for q in (("a",), ("a", "b"), ("a",) * 5, ())],
            [4.0, 5.0, 3.0, -1.0],
        ),
        ByHand("first: 21 words asked, and cut off: 3 - 2", lambda: _rewarded(14, LONG, stop="length"), 1.0),
        ByHand(
            "first, not hard: 1, or 0 where cut off",
            lambda: [_rewarded(0, hard=False), _rewarded(0, hard=False, stop="length")],
            [1.0, 0.0],
        ),
        ByHand(
            "then: right 2 + 1; wrong 1; right, one call that cannot be read 2; right, a long answer 2",
            lambda: [
                _rewarded(15, "a"),
                _rewarded(15, "a", reward=0.0),
                _rewarded(15, unreadable=1),
                _rewarded(15, text=" ".join("abcdefghijk")),
            ],
            [3.0, 1.0, 2.0, 2.0],
        ),
        ByHand(
            "one of two calls refused: 4 + 1 - 1/2, then 2 + 1 - 1/2",
            lambda: [_refused(0), _refused(14)],
            [4.5, 2.5],
        ),
        Credited(
            "less the group's mean, over the std of the batch, 1/8^0.5",
            [[1.0, 0.0], [1.0, 1.0]],
            [[2**0.5, -(2**0.5)], [0, 0]],
        ),
        Reduction(
            "all are hard, and only the answer is paid: REINFORCE++ with this baseline",
            "reinforce_pp",
            {
                "group_rollout.start_answers": 0,
                "reward.call_steps": 0,
                "reward.worth_weight": 1.0,
                "reward.clean_weight": 0.0,
                "reward.refused_cost": 0.0,
            },
            {"credit.baseline": "group mean"},
        ),
    ),
)
