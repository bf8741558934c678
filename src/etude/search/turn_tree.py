"""A tree over the turns of a world: at a state several replies are sampled at once, and courses go down it to where it promises most.

A world is played from its beginning for every course, with the same luck, and must say the same again to the same replies. A task without an
environment is a world of one turn.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from etude import seeds
from etude.rollout import turns
from etude.rollout.conversation import Conversation
from etude.rollout.expert import MOVE, carried_out, cut_off, opening
from etude.rollout.group_rollout import GroupRollout
from etude.types import Environment, Episode, Task, Verdict

PLAYED = 1 << 16  # branches of a state that are played on, beside those that are its replies


@dataclass(eq=False)
class Act:
    """One of the replies at a state. `line` ends with it; `spans`: its first one and the one behind its last; `after`: the state to which it
    leads, once it was taken; `critic`: what a critic gives it."""

    line: Conversation
    text: str
    spans: tuple[int, int]
    critic: float | None = None
    visits: int = 0
    total: float = 0.0
    said: str = ""
    verdict: Verdict | None = None
    after: State | None = None

    def value(self, alpha: float) -> float:
        """Q = alpha x the mean reward of the courses through it + (1 - alpha) x the critic's word; the mean alone without one."""
        mean = self.total / self.visits if self.visits else 0.0
        return mean if self.critic is None else alpha * mean + (1 - alpha) * self.critic

    @property
    def closed(self) -> bool:
        """Whether taking it again brings nothing new."""
        return bool(self.verdict) or (self.after is not None and self.after.closed)


@dataclass(eq=False)
class State:
    """The conversation before a turn."""

    number: int
    line: Conversation
    acts: list[Act] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        return bool(self.acts) and all(a.closed for a in self.acts)

    def chosen(self, alpha: float, exploration: float) -> Act:
        """argmax Q + c sqrt(log N(h) / (1 + N(h, a))) over the replies that may bring something new."""
        above = math.log(max(1, sum(a.visits for a in self.acts)))
        return max(
            (a for a in self.acts if not a.closed),
            key=lambda a: a.value(alpha) + exploration * math.sqrt(above / (1 + a.visits)),
        )


Path = list[tuple[State, Act]]
"""The replies that a course chose from several, from its beginning on."""

Rank = Callable[[State, Sequence[Act]], Awaitable[None]]
"""Gives the replies at a state their `critic`."""


@dataclass
class TurnTree:
    """The tree of one group. `proposals`: replies sampled at a state, when a course comes to it for the second time."""

    rollouts: GroupRollout
    proposals: int
    exploration: float
    alpha: float
    rank: Rank
    states: list[State] = field(default_factory=list)

    async def courses(self, number: int) -> list[tuple[Episode, Path]]:
        """At most so many courses, one after another; fewer where everything was tried. A course that fails has a `failure`."""
        found: list[tuple[Episode, Path]] = []
        for i in range(number):
            if self.states and self.states[0].closed:
                break
            path: Path = []
            found += [(e, path) for e in await self.rollouts.play(i, self._rollout(path, i))]
        return found

    def _rollout(
        self, path: Path, number: int
    ) -> Callable[[Task, Conversation], Awaitable[Episode | Sequence[Episode]]]:
        async def rollout(task: Task, conversation: Conversation) -> Episode:
            luck = seeds.key(self.rollouts.key, "luck")
            world = conversation.play(task.environment, luck) if task.environment else None
            try:
                begin = await opening(task, world)
                if not self.states:
                    conversation.user(begin)
                    self.states.append(State(0, conversation.fork(0)))
                line = await self._down(path, world, number)
            finally:
                if world is not None:
                    await turns.close(world)
            for _, act in path:
                act.visits, act.total = act.visits + 1, act.total + line.verdicts[-1].reward
            return replace(line, index=number).done()

        return rollout

    async def _down(self, path: Path, world: Environment | None, number: int) -> Conversation:
        """The conversation of a course, played to its end."""
        here = self.states[0]
        while True:
            if not here.acts and (not path or path[-1][1].visits):
                here.acts = await self._proposed(here)
            if not here.acts:
                return await played(here.line.fork(PLAYED + number), world)
            act = here.chosen(self.alpha, self.exploration)
            path.append((here, act))
            await self._take(act, world)
            if act.verdict is not None:
                line = act.line.fork(number)
                line.verdict(act.verdict)
                return line
            assert act.after is not None
            here = act.after

    async def _proposed(self, state: State) -> list[Act]:
        """Different replies at a state, ranked."""
        lines = [state.line.fork(k) for k in range(self.proposals)]
        before = len(lines[0].spans)
        texts = await asyncio.gather(*(line.reply(MOVE) for line in lines))
        first = {text: line for text, line in zip(texts[::-1], lines[::-1], strict=True)}  # noqa: C416
        acts = [Act(first[text], text, (before, len(first[text].spans))) for text in dict.fromkeys(texts)]
        await self.rank(state, acts)
        return acts

    async def _take(self, act: Act, world: Environment | None) -> None:
        """Carries a reply out, in the world as it stands. Raises ValueError where it says something else than the last time."""
        line = act.line.fork(0)
        said = None if cut_off(line) else await carried_out(line, world, act.text)
        if act.after is not None and said != act.said:
            raise ValueError("the world did not say the same again to the same replies")
        if said is None:
            act.verdict = line.verdicts[-1]
        elif act.after is None:
            line.user(said)
            act.said, act.after = said, State(len(self.states), line.fork(0))
            self.states.append(act.after)


async def played(line: Conversation, world: Environment | None) -> Conversation:
    """From here on to the end of the course, by the policy alone."""
    while True:
        text = await line.reply(MOVE)
        said = None if cut_off(line) else await carried_out(line, world, text)
        if said is None:
            return line
        line.user(said)
