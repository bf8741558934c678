"""Guide: hints for the tasks that nobody solved, trained as if they had not been given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, assigned, standardised
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout, GroupRolloutStage
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Message, Signal, Task


def hinted(number: int) -> Callable[[Task, Conversation], Awaitable[Episode]]:
    """One answer to the prompt with hint `number` (from 1, the vaguest) below it; training sees the prompt."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        *before, last = task.prompt
        hint = task.hints[min(number, len(task.hints)) - 1]
        conversation.user(
            (*before, Message(last.role, f"{last.content}\n\nHint: {hint}")), instead=task.prompt
        )
        await conversation.check(await conversation.reply())
        return conversation.done(guided=True)

    return rollout


def after_failure(
    hint: Annotated[int, Setting("which of the task's hints, from 1, the vaguest", low=1)] = 1,
    attempts: Annotated[float, Setting("guided attempts per failed one; 0: never", low=0, high=8)] = 1.0,
) -> GroupRolloutStage:
    """Every player on its own; where all of them are wrong, as many again with a hint
    (Guide, arXiv 2506.13923)."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        first = await rollouts.plays(range(rollouts.samples))
        if any(e.correct for e in first):
            return first
        seats = range(rollouts.samples, rollouts.samples + round(attempts * rollouts.samples))
        return first + await rollouts.plays(seats, hinted(hint))

    return group_rollout


def apart(rewards: Array, guided: Array) -> Array:
    """Standardised among the guided and among the others."""
    advantages = np.zeros(len(rewards))
    for side in (guided, ~guided):
        advantages[side] = standardised(rewards[side])
    return advantages


def two_crowds(
    pooled: Annotated[bool, Setting("standardise guided and unguided attempts together")] = False,
) -> Credit:
    """GRPO's advantage, by default among the guided attempts of a group and among the others apart; of a group
    that was guided all others failed, so they teach nothing then (Guide, arXiv 2506.13923)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        guided = [np.array([e.notes.get("guided", False) for e in g.episodes], bool) for g in groups]
        rewards = [g.rewards for g in groups]
        if pooled:
            return assigned(groups, [standardised(r) for r in rewards])
        return assigned(groups, [apart(r, who) for r, who in zip(rewards, guided, strict=True)])

    return credit


RECIPE = Recipe(
    name="guide",
    base=GRPO,
    n=73,
    paper=Paper(
        "Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models", "2506.13923", 2025
    ),
    idea="A task that no attempt solves gives no signal, so it is tried again with a hint. "
    "The guided answers are trained on the prompt without the hint; the importance ratio has the hint in its denominator only. "
    "What the hint made easy becomes likely without it.",
    equation="rho_t = pi(y_t | x, y_<t) / pi_old(y_t | x, h, y_<t) for guided answers; L = PPO's clip with GRPO's advantage",
    departures=(
        "GUESS: guided attempts are normalised among themselves; --set credit.pooled=true pools them with the failed ones",
        "hints are the task's own, the vaguest by default, where the paper has a stronger model write them",
        "the attempts' own rollout is a single answer: guided attempts do not follow a replaced rollout stage",
    ),
    stages={"group_rollout": stage(after_failure), "credit": stage(two_crowds)},
    needs=("hints",),
    confidence="guess",
    claim="On tasks with pass@k = 0, hints with the corrected ratio raise the un-hinted solve rate faster than GRPO.",
    examples=(
        ByHand(
            "two failed, then one of two solved with a hint",
            lambda: apart(np.array([0.0, 0, 1, 0]), np.array([False, False, True, True])),
            [0, 0, 1 / 1.0002, -1 / 1.0002],
        ),
        Reduction("never guided it is GRPO", "grpo", {"group_rollout.attempts": 0.0}),
    ),
)
