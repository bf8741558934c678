"""Collects the episodes of one task. The one boundary behind which user code runs.

Whatever a checker, an environment, a rollout or a reward raises becomes a `Failure` on its episode: reported, counted,
kept out of credit; never a crash and never a reward of 0.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from etude import seeds
from etude.rollout.conversation import CheckRunner, Conversation, Failed, Generator
from etude.rollout.demonstrate import demonstrate
from etude.sampling.protocol import Sampler
from etude.stages import GroupRolloutStage, Reward, Rollout
from etude.tasks.check import CheckError, TooLate, judged
from etude.tasks.isolate import Pool
from etude.types import Check, Episode, Failure, Group, Request, Span, Task, Verdict

DEMONSTRATION = 1 << 20  # the index of the demonstration: beyond every sample's


@dataclass
class GroupRollout:
    """One task with everything that its episodes need. A group-rollout stage receives this and returns the episodes; it
    may replace `task` before anything is sampled, where `admits` says that the new one may be trained on."""

    task: Task
    request: Request
    samples: int  # episodes wanted
    generator: Generator  # the policy
    check_runner: CheckRunner
    rollout: Rollout
    reward: Reward
    key: int  # names the random streams of this group
    progress: float = 0.0  # share of the run's budget spent, in [0, 1]
    generators: dict[str, Generator] = field(default_factory=dict)  # auxiliary models that can be sampled
    admits: Callable[[Task], bool] = lambda task: True  # whether a task is not held out for evaluation

    def conversation(
        self, index: int, task: Task | None = None, generator: Generator | None = None
    ) -> Conversation:
        """A new conversation for episode number `index`; `task` and `generator` default to the group's own."""
        key = seeds.key(self.key, index)
        return Conversation(
            task or self.task,
            generator or self.generator,
            self.check_runner,
            key,
            index,
            generators=self.generators,
        )

    async def play(
        self, index: int, rollout: Rollout | None = None, task: Task | None = None
    ) -> list[Episode]:
        """Rolls out episode number `index` and scores it; all of them where the rollout returns several. A failed one is
        returned with its `failure`."""
        conversation = self.conversation(index, task)
        try:
            result = await (rollout or self.rollout)(conversation.task, conversation)
        except Failed as failed:
            return [replace(conversation.done(), failure=failed.failure, stop="error")]
        except (Exception, SystemExit) as error:
            return [replace(conversation.done(), failure=_failure("rollout", error), stop="error")]
        episodes = [result] if isinstance(result, Episode) else list(result)
        return [await self.score(e) for e in episodes]

    async def plays(self, indices: Sequence[int], rollout: Rollout | None = None) -> list[Episode]:
        """Several episodes at once, in the order of `indices`."""
        found = await asyncio.gather(*(self.play(i, rollout) for i in indices))
        return [e for episodes in found for e in episodes]

    async def score(self, episode: Episode) -> Episode:
        """The episode with the scores of the reward stage, or with its failure."""
        try:
            scores: Any = self.reward(episode)
            if isinstance(scores, Awaitable):
                scores = await scores
            scored = episode.with_scores({k: _number(k, v) for k, v in scores.items()})
            said = getattr(scores, "notes", None)  # what a judge said is kept with the episode
            return replace(scored, notes={**scored.notes, **said}) if said else scored
        except (Exception, SystemExit) as error:
            return replace(episode, failure=_failure("reward", error), stop="error")

    async def against_each_other(
        self, episodes: tuple[Episode, ...]
    ) -> tuple[tuple[Episode, ...], tuple[Episode, ...]]:
        """Scored and failed episodes, after a reward that compares the answers of a group has seen them."""
        try:
            added = await self.reward.score_group(episodes)  # type: ignore[attr-defined]
        except (Exception, SystemExit) as error:
            failure = _failure("reward", error)
            return (), tuple(replace(e, failure=failure, stop="error") for e in episodes)
        return tuple(
            replace(e, notes={**e.notes, **s.notes}).with_scores({k: _number(k, v) for k, v in s.items()})
            for e, s in zip(episodes, added, strict=True)
        ), ()

    def demonstrate(self) -> Episode:
        """The task's own solution as an episode (Group.demonstrations), with reward 1."""
        return demonstrate(self.task, self.conversation(DEMONSTRATION)).with_scores({"reward": 1.0})

    def resume_from(self, episode: Episode, cut: int, index: int) -> Conversation:
        """A conversation that goes on after the first `cut` tokens of an episode. What comes before is kept as it was; a
        span that the cut goes through becomes a forced prefix, no longer sampled."""
        conversation = self.conversation(index)
        kept: list[Span] = []
        left = cut
        for span in episode.spans:
            if left <= 0:
                break
            keep = min(left, len(span))
            whole = keep == len(span)
            part = replace(
                span,
                tokens=span.tokens[:keep],
                sampled=span.sampled and whole,
                logp=span.logp[:keep] if whole and span.logp is not None else None,
                tag=span.tag if whole else "prefix",
            )
            kept.append(part)
            left -= keep
        conversation.adopt(kept)
        return conversation

    async def group(self, group_rollout: GroupRolloutStage) -> Group:
        """The group that a stage makes of this: demonstrations and failed episodes are kept apart."""
        episodes = await group_rollout(self)
        shown = tuple(e for e in episodes if e.demonstration)
        good = tuple(e for e in episodes if e.failure is None and not e.demonstration)
        bad = tuple(e for e in episodes if e.failure is not None)
        if good and hasattr(self.reward, "score_group"):
            good, lost = await self.against_each_other(good)
            bad += lost
        return Group(self.task, good, self.request, bad, shown)


def independent() -> GroupRolloutStage:
    """`samples` episodes, independent of each other."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        return await rollouts.plays(range(rollouts.samples))

    return group_rollout


def verdict() -> Callable[[Episode], dict[str, float]]:
    """The reward of the last verdict. Raises ValueError where there is none."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None and not judged(episode.task):
            raise ValueError(
                "the task has no answer to check; give a reward (--reward), or pairs to a method that takes them"
            )
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        return {"reward": episode.verdict.reward}

    return reward


def optional_verdict() -> Callable[[Episode], dict[str, float]]:
    """The last verdict's reward, for reporting; 0 where nothing was checked."""
    return lambda episode: {"reward": episode.verdict.reward if episode.verdict else 0.0}


def checks_in(pool: Pool, sampler: Sampler, times: dict[str, float]) -> CheckRunner:
    """Runs checks and environments in `pool`. A check that fails is tried once more; a second failure fails the episode.
    The sampler waits meanwhile, so that timing cannot change what is sampled. `times["check"]` grows by the seconds in
    which any check was under way."""
    return _Checks(pool, sampler, times)


class _Checks:
    def __init__(self, pool: Pool, sampler: Sampler, times: dict[str, float]) -> None:
        self.environment = pool.environment
        self._pool, self._sampler, self._times = pool, sampler, times
        self._running, self._begin = 0, 0.0

    async def __call__(self, task: Task, answer: str) -> Verdict:
        self._begin = time.perf_counter() if not self._running else self._begin
        self._running += 1
        try:
            async with self._sampler.hold():
                return await checked(self._pool, task.check, answer)
        except Exception as error:
            failure = _failure("check", error)
            raise Failed("check", failure.error, failure.traceback or traceback.format_exc()) from error
        finally:
            self._running -= 1
            if not self._running:
                self._times["check"] = self._times.get("check", 0.0) + time.perf_counter() - self._begin


async def checked(pool: Pool, check: Check, answer: str) -> Verdict:
    """The verdict of a check that is given a second chance, except where it ran out of time. Raises CheckError."""
    try:
        return await pool.check(check, answer)
    except TooLate:
        raise
    except CheckError:
        return await pool.check(check, answer)


def _failure(where: str, error: BaseException) -> Failure:
    if isinstance(error, CheckError):
        return Failure(error.where, str(error), error.traceback)
    return Failure(where, repr(error), traceback.format_exc())


def _number(name: str, value: Any) -> float:
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"reward '{name}' is {number}; it must be finite")
    return number
