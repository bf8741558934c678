"""Agent-R: a failed course of actions, cut at its first bad one, taken back in words, and gone on with as a good course went.

A tree of courses is played in each world. Where one ends well and another badly, a trace is made of both: what they share, the
bad one up to the action that the policy itself finds bad, a sentence that takes it back, and the good one from where they
part. Only the sentence and what follows is imitated, beside good courses as they are. Agent-R: Training Language Model Agents
to Reflect via Iterative Self-Training, arXiv 2501.11425; released code: `mcts_collection.py`, `path_collection.py`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.fixtures.given import GivenContext, beyond_prompt, example_answers, given_stage
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout import turns
from etude.rollout.attempts import below, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.full import FULL
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.writers import Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Rollout
from etude.types import Array, Environment, Episode, Group, Message, Signal, Span, Task, Verdict

BAD, REVISION, GOOD = "bad", "revision", "good"
"""Tags of a trace: turns that are only read, the sentence that takes them back, turns of the good course. `GOOD` is also the
note of a course that is imitated as it is."""

REVISIONS = (
    "That was the wrong way to go about it. I will take another.",
    "My last action did not help. I have to correct it.",
    "I made a mistake there. Let me go on from before it.",
)
GO_ON = "ok."
CUTS = ("policy", "start", "teacher", "first", "end")
"""Who says which turn is bad; or the first turn in which the courses differ, or the last."""
JUDGE = (
    "{question}\n\nWhat was done so far:\n{log}\n\nThe next action:\n{action}\n\nWhat came of it:\n{observation}\n\nDid this action "
    "help to reach the goal, or did it harm? Give reasons, then end with 'Judgement: Good', 'Judgement: Bad' or 'Judgement: Uncertain'."
)

# ---- the tree: a node is a turn, the reply and what the world said to it ----------------------------------------------


@dataclass(eq=False)
class Turn:
    parent: Turn | None = None
    text: str = ""
    tokens: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    said: str = ""
    verdict: Verdict | None = None  # where the course ends here
    line: Conversation | None = None  # the conversation that ends with the reply
    visits: int = 0
    total: float = 0.0
    children: dict[str, Turn] = field(default_factory=dict)

    @property
    def path(self) -> list[Turn]:
        """From the first turn to this one."""
        return [*self.parent.path, self] if self.parent else []

    @property
    def ends(self) -> list[Turn]:
        """The ends of the courses that go through here, in the order in which they were first reached."""
        return [self] if self.verdict else [e for child in self.children.values() for e in child.ends]

    def closed(self, width: int) -> bool:
        """Whether nothing new can be tried from here on."""
        full = len(self.children) >= width
        return self.verdict is not None or (full and all(c.closed(width) for c in self.children.values()))

    def back_up(self, reward: float) -> None:
        self.visits, self.total = self.visits + 1, self.total + reward
        if self.parent is not None:
            self.parent.back_up(reward)


def uct(turn: Turn, exploration: float) -> float:
    """Q + c sqrt(log N_parent / N), the mean reward of the courses through a turn and how seldom it was tried."""
    above = turn.parent.visits if turn.parent else turn.visits
    return turn.total / turn.visits + exploration * math.sqrt(math.log(above) / turn.visits)


def chosen(root: Turn, width: int, exploration: float) -> Turn:
    """The turn from which something new is tried: down from the root, wherever `width` replies were tried, to the child of the
    largest UCT that is not closed. The root, once everything was tried."""
    here = root
    while len(here.children) >= width:
        open_ = [c for c in here.children.values() if not c.closed(width)]
        if not open_:
            return root
        here = max(open_, key=lambda c: uct(c, exploration))
    return here


# ---- group rollout ------------------------------------------------------------------------------------------------------


class Reflected:
    """Courses, as many as the group has attempts, each begun where the tree promises most; and traces of pairs whose rewards
    differ by more than `apart`, the better at least alpha, which rises from `good_from` to 1 over the run. Courses of at least
    alpha have the note `GOOD`. All courses of a task meet the same luck. A task without an environment has no turns to take
    back, and makes no traces."""

    def __init__(
        self,
        traces: Annotated[int, Setting("traces per task at most", low=0)] = 2,
        width: Annotated[int, Setting("replies tried at a turn before going deeper", low=1)] = 4,
        exploration: Annotated[float, Setting("c, how much what was tried less counts", low=0)] = 0.25,
        good_from: Annotated[float, Setting("alpha at the beginning", low=0, high=1)] = 0.5,
        apart: Annotated[float, Setting("beta, least difference in reward of a pair", low=0, high=1)] = 0.2,
        cut: Annotated[
            str, Setting("who calls turns bad; or where a bad course is cut", choices=CUTS)
        ] = "policy",
    ) -> None:
        self.traces, self.width, self.exploration = traces, width, exploration
        self.good_from, self.apart, self.cut = good_from, apart, cut
        self.judge = None if cut in ("first", "end") else Writer(cut)
        self.reads = self.judge.reads if self.judge else frozenset()

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        alpha = rising(self.good_from, rollouts.progress)
        root = Turn()
        courses: list[Episode] = []
        for number in range(rollouts.samples):
            courses += await rollouts.play(number, self.course(rollouts, root, number))
        marked = [replace(e, notes={**e.notes, GOOD: not e.failure and e.reward >= alpha}) for e in courses]
        if rollouts.task.environment is None:
            return marked
        pairs = well_apart(root.ends, alpha, self.apart)
        order = seeds.generator(rollouts.key, "pairs").permutation(len(pairs))[: self.traces]
        jobs = [
            rollouts.play(DEMONSTRATION + 1 + k, self.trace(root.said, *pairs[i]))
            for k, i in enumerate(order)
        ]
        return [*marked, *(e for found in await asyncio.gather(*jobs) for e in found)]

    def course(self, rollouts: GroupRollout, root: Turn, number: int) -> Rollout:
        """One course, which becomes part of the tree."""

        async def rollout(task: Task, conversation: Conversation) -> Episode:
            if task.environment is None:
                return await _on(conversation, root, task.prompt, None, number)
            world = conversation.play(task.environment, seeds.key(rollouts.key, "luck"))
            try:
                root.said = await turns.observe(world)
                here = chosen(root, self.width, self.exploration)
                for turn in here.path:
                    if await turns.act(world, turn.text) != (turn.said, None):
                        raise ValueError("the world did not say the same again to the same replies")
                line, said = conversation, below(task.prompt, root.said)
                if here.line is not None:
                    line = replace(here.line.fork(number), index=number)
                    said = (Message("user", here.said),)
                return await _on(line, here, said, world, number)
            finally:
                await turns.close(world)

        return rollout

    def trace(self, opening: str, good: Turn, bad: Turn) -> Rollout:
        """A rollout that lays out one trace."""

        async def rollout(task: Task, conversation: Conversation) -> Episode:
            right, wrong = good.path, bad.path
            shared = sum(a is b for a, b in zip(right, wrong, strict=False))
            last = await self.first_bad(conversation, wrong, shared)
            conversation.user(below(task.prompt, opening))
            for turn in wrong[: last + 1]:
                _repeat(conversation, turn, BAD)
                conversation.user(turn.said or GO_ON)
            draw = seeds.generator(conversation.key, "revision")
            conversation.inject(REVISIONS[int(draw.integers(len(REVISIONS)))], REVISION)
            conversation.user(GO_ON)
            for turn in right[shared:]:
                _repeat(conversation, turn, GOOD)
                if turn is not good:
                    conversation.user(turn.said)
            return replace(conversation.done(), player=DEMONSTRATED)

        return rollout

    async def first_bad(self, conversation: Conversation, wrong: Sequence[Turn], shared: int) -> int:
        """The number of the first turn after the shared ones that is called bad; that of the last where none is."""
        if self.judge is None:
            return shared if self.cut == "first" else len(wrong) - 1
        task = conversation.task
        for i in range(shared, len(wrong) - 1):
            log = "\n".join(f"Action: {t.text}\nObservation: {t.said}" for t in wrong[:i])
            facts = {"question": task.prompt[-1].content, "log": log or "nothing"}
            asked = JUDGE.format(**facts, action=wrong[i].text, observation=wrong[i].said)
            about = replace(conversation, key=seeds.key(conversation.key, "judge", i))
            if called_bad(await self.judge.draft(about, reworded(task.prompt, asked))):
                return i
        return len(wrong) - 1


async def _on(
    line: Conversation, here: Turn, said: Sequence[Message], world: Environment | None, number: int
) -> Episode:
    """From a turn on to the end of the course."""
    while here.verdict is None:
        line.user(said)
        text = await line.reply("move")
        answer, verdict = "", None
        if world is None:
            verdict = await line.check(text)
        elif line.full:
            verdict = line.verdict(Verdict(0.0, False, f"Cut off at {line.notes[FULL]} tokens."))
        else:
            answer, verdict = await turns.act(world, text)
            line.verdicts += [verdict] if verdict else []
        if text not in here.children:
            here.children[text] = Turn(here, text, line.spans[-1].tokens, answer, verdict, line.fork(number))
        here = here.children[text]
        said = (Message("user", answer),)
    here.back_up(here.verdict.reward)
    return line.done()


def rising(good_from: float, progress: float) -> float:
    """alpha, from `good_from` at the beginning of the run to 1 at its end."""
    return good_from + (1 - good_from) * progress


def well_apart(ends: Sequence[Turn], alpha: float, apart: float) -> list[tuple[Turn, Turn]]:
    """All (good, bad): R(good) >= alpha, R(good) - R(bad) > `apart`."""
    worth = {e: e.verdict.reward if e.verdict else 0.0 for e in ends}
    good = [e for e in ends if worth[e] >= alpha]
    return [(g, b) for g in good for b in ends if worth[g] - worth[b] > apart]


def called_bad(text: str) -> bool:
    """Whether what follows the last "Judgement:" says neither good nor uncertain, as in the release."""
    judgement = text.split("Judgement:")[-1].casefold()
    return "good" not in judgement and "uncertain" not in judgement


def _repeat(conversation: Conversation, turn: Turn, tag: str) -> None:
    """Puts a reply of another course where the policy's would stand, token by token."""
    conversation.force_prefix(turn.tokens, tag)
    conversation.messages.append(Message("assistant", turn.text))
    conversation.stop = "end"


# ---- credit --------------------------------------------------------------------------------------------------------------


@writes(IMITATION)
def good_turns_after_bad() -> Credit:
    """Of different good courses all that was sampled; of traces the revision and the good turns."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            good = [e for e in group.episodes if e.notes.get(GOOD)]
            different = {e.tokens[e.sampled].tobytes(): e for e in reversed(good)}
            signals += [imitate(e, e.sampled) for e in reversed(different.values())]
            where = [(e, tagged(e, REVISION) | tagged(e, GOOD)) for e in group.demonstrations]
            signals += [imitate(trace, on) for trace, on in where if on.any()]
        return signals

    return credit


# ---- the recipe ----------------------------------------------------------------------------------------------------------


def _tree(*courses: tuple[str, str, float]) -> Turn:
    """Courses of two replies each, and their rewards."""
    root = Turn()
    for first, second, reward in courses:
        turn = root.children.setdefault(first, Turn(root, first))
        turn.children[second] = Turn(turn, first + second, verdict=Verdict(reward, reward == 1))
        turn.children[second].back_up(reward)
    return root


A, B = [("a", "0", 1.0), ("a", "1", 0.0)], [("b", "0", 0.0), ("b", "1", 0.25)]
CHOICES = (([A[0], B[0]], 2, "a"), ([*A, B[0]], 2, "b"), ([*A, *B], 2, ""), ([*A, *B], 3, ""))


def _weights() -> list[float]:
    """The row `IMITATION` of a good course (2 tokens), the same once more, a bad course, and a trace of a bad turn (1), the
    revision (2), "ok." (1) and a good turn (1)."""
    made = example_answers((1.0, (5, 6)), (1.0, (5, 6)), (0.0, (7,)))
    courses = [replace(e, notes={GOOD: e.correct}) for e in made.episodes]
    parts = ((BAD, 1), (REVISION, 2), ("", 1), (GOOD, 1))
    spans = [Span("assistant", np.ones(n, np.int32), tag=tag) for tag, n in parts]
    trace = replace(courses[0], spans=(courses[0].spans[0], *spans), player=DEMONSTRATED)
    group = Group(made.task, tuple(courses), demonstrations=(trace,))
    return beyond_prompt(given_stage(RECIPE, "credit")([group], GivenContext()), IMITATION)


RECIPE: Recipe = Recipe(
    name="agent_r",
    base=RFT,
    paper=Paper(
        "Agent-R: Training Language Model Agents to Reflect via Iterative Self-Training", "2501.11425", 2025
    ),
    idea="In one world many courses of action are played as a tree, good and bad ones. A bad one is shown up to its first bad action; "
    "there the agent says that it went wrong and goes on as a good course did. "
    "It learns to notice and to turn, not the bad actions.",
    equation="L = - mean_t log pi over (x, b_<=k, revision, g_>s) on revision and g, and over good courses;  R(g) >= alpha, R(g) - R(b) > beta",
    departures=(
        "a course is played to its end at once and stays in the tree, where the release tries four replies at every turn on the way down",
        "all of a task's pairs are equally likely, as in the release; the turns that both courses share are not judged",
        "the good course must reach alpha, not exceed it, and alpha rises evenly from 0.5 to 1, where the paper has three rounds",
        "three sentences take a course back, without an action called wait; the release draws from ten",
        "no general conversations are mixed in; turns that call tools are not laid out in traces",
    ),
    stages={
        "group_rollout": stage(Reflected),
        "reward": stage(verdict_if_any),
        "credit": stage(good_turns_after_bad),
    },
    claim="Traces cut at the first bad action recover more often from forced mistakes than traces cut at the end, and both more often than "
    "good courses alone.",
    manipulation=(Manipulated("traces are made in one task of twenty", "demonstrated", 0.05),),
    examples=(
        ByHand(
            "UCT, c = 1: a has 1/2 of two courses of four, b 1/8",
            lambda: [uct(turn, 1.0) for turn in _tree(*A, *B).children.values()],
            [0.5 + math.sqrt(math.log(4) / 2), 0.125 + math.sqrt(math.log(4) / 2)],
        ),
        ByHand(
            "with two replies at a turn: after a, which did better; after b, as a is closed; all closed: from the start; of three: there",
            lambda: [chosen(_tree(*c), w, 0.25).text == at for c, w, at in CHOICES],
            [1, 1, 1, 1],
        ),
        ByHand("alpha half way from 0.6 to 1", lambda: rising(0.6, 0.5), 0.8),
        ByHand(
            "pairs: 1 with 0, 0 and 1/4; of more than 3/4 apart: 1 with 0 and 0; from alpha = 1/4 on, that with 0 and 0 too",
            lambda: [
                len(well_apart(_tree(*A, *B).ends, *at)) for at in ((0.5, 0.2), (0.5, 0.75), (0.25, 0.2))
            ],
            [3, 2, 5],
        ),
        ByHand(
            "what a judgement says: bad, nothing, good, uncertain",
            lambda: [
                called_bad(f"Judgement: Good? Judgement: {word}") for word in ("Bad", "", "Good", "Uncertain")
            ],
            [1, 1, 0, 0],
        ),
        ByHand("a good course once; of the trace revision and good turn", _weights, [1, 1, 0, 1, 1, 0, 1]),
        Reduction("no traces: rejection-sampling fine-tuning", "rft", {"group_rollout.traces": 0}),
    ),
)
