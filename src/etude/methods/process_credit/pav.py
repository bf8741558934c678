"""PAV (arXiv 2410.08146): a step is rewarded by how much it changes a prover's chance of success. The prover is the best
of K of the policy's own continuations, sampled from the end of each step; its progress is added to the outcome."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, constant
from etude.fixtures.given import GivenContext, beyond_prompt, example_attempts, given_stage
from etude.objective.policy import plain
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.probe import (
    CUTS,
    MaxSteps,
    Probes,
    Separator,
    branches,
    last_turn,
    noting,
    step_cuts,
    step_index,
    tokens_left,
)
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Array, Episode, Group, Signal

Q = "q"  # note: the policy's chance of success after each step but the last


async def prefix_value(rollouts: GroupRollout, episode: Episode, cut: int, number: int) -> float:
    """Q_pi: the mean reward of `number` continuations of the first `cut` tokens, a Monte-Carlo value of that prefix."""
    left = tokens_left(rollouts, episode, cut)
    conversations = await branches(rollouts, episode, cut, number, max_tokens=left)
    verdicts = await asyncio.gather(*(p.check(last_turn(p)) for p in conversations))
    return float(np.mean([v.reward for v in verdicts]))


def valued_steps(
    separator: Separator = "\n",
    max_steps: MaxSteps = 8,
    probes: Probes = 4,
) -> GroupRolloutStage:
    """Attempts, with the policy's chance of success after each step but the last."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        async def look(episode: Episode) -> dict[str, Any]:
            cuts = step_cuts(rollouts.generator.renderer.tokenizer, episode, separator, max_steps)
            q = await asyncio.gather(*(prefix_value(rollouts, episode, cut, probes) for cut in cuts))
            return {CUTS: cuts, Q: list(q)}

        return await noting(rollouts, await rollouts.plays(range(rollouts.samples)), look)

    return group_rollout


def prover_progress(q: Array, best_of: int) -> Array:
    """A_mu(h) = Q_mu(h) - Q_mu(h - 1) from the base policy's values before the first and after each step (f[H + 1]),
    for the prover best-of-K: Q_mu = 1 - (1 - Q_pi)^K."""
    return np.diff(1 - (1 - np.asarray(q, float)) ** best_of)


def with_progress(
    progress_weight: Annotated[float, Setting("alpha: weight of progress beside the outcome", low=0)] = 3.0,
    best_of: Annotated[int, Setting("K, attempts of which the prover keeps the best", low=1)] = 4,
) -> Credit:
    """A_t = r - mean r + alpha A_mu(step of t). The value before the first step is the group's mean reward,
    after the last step the outcome."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            start = float(np.clip(group.rewards.mean(), 0, 1)) if group.episodes else 0.0
            for episode, base in zip(group.episodes, centred(group.rewards), strict=True):
                q = np.array([start, *episode.notes[Q], episode.reward])
                progress = prover_progress(q, best_of)[step_index(episode, episode.notes[CUTS])]
                signal = constant(episode, float(base))
                signal.advantage[episode.sampled] += progress_weight * progress[episode.sampled]
                signals.append(signal)
        return signals

    return credit


def _advantages(**settings: float) -> list[float]:
    """Of a right attempt of two steps, two tokens and one, with Q_pi = 1 after the first; and of a wrong one of one."""
    right, wrong = example_attempts((1.0, (2, 3, 4)), (0.0, (5,))).episodes
    right = replace(right, notes={CUTS: [3], Q: [1.0]})  # tokens counted with the prompt's
    wrong = replace(wrong, notes={CUTS: [], Q: []})
    credit = given_stage(RECIPE, "credit", **settings)
    return beyond_prompt(credit([Group(right.task, (right, wrong))], GivenContext()))


RECIPE = Recipe(
    name="pav",
    paper=Paper(
        "Rewarding Progress: Scaling Automated Process Verifiers for LLM Reasoning", "2410.08146", 2024
    ),
    idea="A good step is one after which success is likelier than before, in the eyes of a prover that is not the policy itself. "
    "The prover here is the best of K of the policy's own continuations, sampled from the end of each step. "
    "Progress under the prover is added to the outcome.",
    equation="A_mu(h) = Q_mu(h) - Q_mu(h-1), Q_mu = 1 - (1 - Q_pi)^K;  grad = sum_h grad log pi(a_h) (r - mean r + alpha A_mu(h))",
    departures=(
        "values are Monte-Carlo estimates of this step's own attempts: no verifier is trained",
        "the prover is best-of-K; its value is computed from the estimate of Q_pi, which is biased for K > 1",
        "guess: alpha (progress_weight) = 3 (the paper's is a few units), steps are lines; search at test time is left out",
    ),
    stages={"group_rollout": stage(valued_steps), "credit": stage(with_progress), "objective": stage(plain)},
    confidence="memory",
    needs=("text",),
    claim="A best-of-K prover accelerates learning; the policy as its own prover (best_of=1) does not.",
    manipulation=(Manipulated("a tenth to nine tenths of the probes end right", "noted/q", 0.1, 0.9),),
    examples=(
        ByHand(
            "values 1/2, 1/2, 1 with K = 2", lambda: prover_progress(np.array([0.5, 0.5, 1]), 2), [0, 0.25]
        ),
        ByHand(
            "K = 1 is the policy's own progress", lambda: prover_progress(np.array([0.5, 0, 1]), 1), [-0.5, 1]
        ),
        # Q_mu = 1 - (1/2)^2 before, 1 after: progress 1/4 in the right one's first step, 0 in its second; -3/4.
        ByHand(
            "K = 2, alpha = 3: +-1/2 and three times the prover's progress",
            lambda: _advantages(best_of=2),
            [0.5 + 3 / 4, 0.5 + 3 / 4, 0.5, -0.5 - 9 / 4],
        ),
        OffPolicy(
            "-A log pi, summed over an episode: log pi = -1 + ln 2, -1 - ln 2",
            ratio=(2.0, 0.5),
            advantage=(1.0, -2.0),
            loss=(1 - math.log(2)) - 2 * (1 + math.log(2)),
            gradient=(-1.0, 2.0),
        ),
        Reduction("alpha 0: the outcome alone", "reinforce", {"credit.progress_weight": 0.0}),
    ),
)
