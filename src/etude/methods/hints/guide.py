"""Guide: hints for the tasks that no attempt solved, trained as if they had not been given.

A task that no attempt solves gives no signal, so it is attempted again with a hint h in the prompt. Those attempts are
trained behind the bare prompt, with the probability under the hint in the ratio's denominator: what the hint made easy
becomes likely without it. Their ratio is not clipped but bent, so that tokens which are unlikely without the hint keep a
gradient. Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models, arXiv 2506.13923."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.group import assigned, standardised
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.models.outputs import Outputs
from etude.objective.policy import High, KLWeight, Low, MeanOver, clipped
from etude.objective.terms import Objective, TokenLoss, log_ratio
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import attempt_tag, hinted
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage, Rollout
from etude.types import Array, Episode, Group, Signal, Task

GUIDED = "guided"
"""Note: whether the attempt had a hint. Extra: 1 on what was sampled under one."""


def with_hint(level: int) -> Rollout:
    """One answer to the prompt with hint `level` below it; training sees the bare prompt."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.user(hinted(task, level), instead=task.prompt)
        await conversation.check(await conversation.reply())
        return conversation.done(**{GUIDED: True})

    return rollout


def after_failure(
    hint: Annotated[int, Setting("which of the task's hints is shown, from 1, the vaguest", low=1)] = 1,
    guided_per_failed: Annotated[
        float, Setting("guided attempts per failed one; 0: never", low=0, high=8)
    ] = 1.0,
) -> GroupRolloutStage:
    """A group of attempts; where all of them are wrong, `guided_per_failed` times as many with a hint."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        first = await rollouts.plays(range(rollouts.samples))
        if any(e.correct for e in first):
            return first
        more = round(guided_per_failed * rollouts.samples)
        numbers = range(rollouts.samples, rollouts.samples + more)
        return first + await rollouts.plays(numbers, with_hint(hint))

    return group_rollout


@writes("policy", extras=(GUIDED,))
def apart(
    pooled: Annotated[bool, Setting("standardise guided and unguided attempts together")] = False,
) -> Credit:
    """A_i = (r_i - mean) / (std + 1e-4), by default over the guided attempts of a group and over the others apart. The
    others of a group that was guided all failed, so they teach nothing then."""

    def advantages(group: Group) -> Array:
        rewards = group.rewards
        if pooled:
            return standardised(rewards)
        guided = np.array([e.notes.get(GUIDED, False) for e in group.episodes], bool)
        found = np.zeros(len(rewards))
        for part in (guided, ~guided):
            found[part] = standardised(rewards[part])
        return found

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = assigned(groups, [advantages(g) for g in groups])
        return [
            replace(s, extras={GUIDED: np.float32(s.episode.notes.get(GUIDED, False)) * s.episode.sampled})
            for s in signals
        ]

    return credit


def bent(ratio: Tensor, episode: Tensor, on: Tensor, quantile: float) -> Tensor:
    """f[N]: rho / (rho + g) on the tokens `on` (bool[N]), g the quantile of these ratios in each episode, held fixed; 0
    elsewhere."""
    found = torch.zeros_like(ratio)
    for number in torch.unique(episode[on]):
        mine = on & (episode == number)
        level = torch.quantile(ratio.detach()[mine], quantile).clamp(min=1e-4)
        found = torch.where(mine, ratio / (ratio + level), found)
    return found


def clipped_or_bent(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    mean: MeanOver = "episode",
    kl_weight: KLWeight = 0.0,
    bend_at: Annotated[
        float | None,
        Setting(
            "quantile g of a guided attempt's ratios, which count as rho / (rho + g); none: clipped",
            low=0,
            high=1,
        ),
    ] = 0.9,
) -> Objective:
    """GRPO's loss; of guided attempts -rho / (rho + g) A, without a clip."""
    base = clipped(clip_low, clip_high, mean, None, kl_weight)
    if bend_at is None:
        return replace(base, silent=base.silent | {GUIDED})
    policy, *others = base.terms

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        plain = policy.loss(out, batch)
        assert isinstance(plain, tuple)
        guided = (batch.extras[GUIDED] != 0) & batch.needed
        ratio = bent(log_ratio(out, batch).exp(), batch.episode, guided, bend_at)
        return torch.where(guided, -ratio * batch.advantage, plain[0]), plain[1]

    return replace(base, terms=(replace(policy, loss=loss), *others), extras=base.extras | {GUIDED})


def _rescued(pooled: bool) -> list[float]:
    """Advantages of two failed attempts, then of a right and a wrong one with a hint; and, in a group that needed none,
    of a right and a wrong one."""
    tries = [example_attempts(r) for r in (0.0, 0.0, 1.0, 0.0)]
    episodes = [replace(e, notes={**e.notes, GUIDED: i > 1}) for i, e in enumerate(tries)]
    solved = [example_attempts(1.0), example_attempts(0.0)]
    signals = credited_signals(RECIPE, episodes, solved, settings={"credit.pooled": pooled})
    return advantages_of(signals, attempt_tag(1))


RECIPE = Recipe(
    name="guide",
    base=GRPO,
    paper=Paper(
        "Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models", "2506.13923", 2025
    ),
    published_lr=1e-6,
    idea="A task that no attempt solves gives no signal, so it is tried again with a hint. "
    "The guided answers are trained on the prompt without the hint; the importance ratio has the hint in its denominator only. "
    "What the hint made easy becomes likely without it.",
    equation="rho_t = pi(y_t | x, y_<t) / pi_old(y_t | x, h, y_<t) for guided answers, L = - mean rho / (rho + g) A;  "
    "PPO's clip for the others; GRPO's advantages, of guided answers among themselves",
    departures=(
        "groups without differing outcomes are not drawn anew, as they are in the released runs: train guide+dynamic_sampling",
        "hints are the task's own, the vaguest by default, where the paper has a stronger model write them",
        "the attempts' own rollout is a single answer: guided attempts do not follow a replaced rollout stage",
    ),
    stages={
        "group_rollout": stage(after_failure),
        "credit": stage(apart),
        "objective": stage(clipped_or_bent),
    },
    needs=("hints",),
    claim="On tasks with pass@k = 0, hints with the corrected ratio raise the un-hinted solve rate faster than GRPO.",
    manipulation=(Manipulated("a tenth of the guided attempts are right", "noted/guided/correct", 0.1),),
    examples=(
        ByHand(
            "two failed: 0; one of two right, with a hint or without: +/- 0.5 over 0.5 + 1e-4",
            lambda: _rescued(False),
            [0, 0, 0.5 / 0.5001, -0.5 / 0.5001, 0.5 / 0.5001, -0.5 / 0.5001],
        ),
        ByHand(
            "pooled, one right of four: mean 1/4, std 3^0.5 / 4",
            lambda: _rescued(True)[:4],
            [x / (3**0.5 / 4 + 1e-4) for x in (-0.25, -0.25, 0.75, -0.25)],
        ),
        # The 0.9-quantile of the guided ratios 1, 3, 2 is 2 + 0.8 (3 - 2): 2.8.
        OffPolicy(
            "guided ratios of 1, 3, 2 are bent, unclipped: d rho/(rho + 2.8) = 2.8 rho / (rho + 2.8)^2; others are clipped",
            ratio=(1.0, 3.0, 2.0, 1.5, 0.5),
            advantage=(1.0, 1.0, -1.0, 1.0, -2.0),
            lengths=(3, 2),
            extras={GUIDED: (1, 1, 1, 0, 0)},
            loss=((-1 / 3.8 - 3 / 5.8 + 2 / 4.8) / 3 + (-1.2 + 2 * 0.8) / 2) / 2,
            gradient=(
                *(-2.8 / 3.8**2 / 6, -2.8 * 3 / 5.8**2 / 6, 2.8 * 2 / 4.8**2 / 6),
                *(0, 0),
            ),
        ),
        OffPolicy(
            "clipped as all others where nothing is bent",
            ratio=(1.0, 3.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            extras={GUIDED: (1, 1, 1)},
            loss=(-1 - 1.2 + 0.8) / 3,
            gradient=(-1 / 3, 0, 0),
            settings={"objective.bend_at": None},
        ),
        Reduction("never guided it is GRPO", "grpo", {"group_rollout.guided_per_failed": 0.0}),
    ),
)
