"""PAV (arXiv 2410.08146): a step is rewarded by how much it changes a prover's chance of success. The prover is the best
of K of the policy's own continuations, sampled from the end of each step; its progress is added to the outcome."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from math import comb
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, constant
from etude.fixtures.given import GivenContext, beyond_prompt, example_answers, given_stage
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
from etude.types import Episode, Group, Signal

CONTINUED = "continued"  # note: the rewards of the continuations sampled after each step but the last


async def continuations(rollouts: GroupRollout, episode: Episode, cut: int, number: int) -> list[float]:
    """The rewards of `number` continuations of the first `cut` tokens; their mean is Q_pi of that prefix."""
    left = tokens_left(rollouts, episode, cut)
    conversations = await branches(rollouts, episode, cut, number, max_tokens=left)
    verdicts = await asyncio.gather(*(p.check(last_turn(p)) for p in conversations))
    return [v.reward for v in verdicts]


def valued_steps(
    separator: Separator = "\n",
    max_steps: MaxSteps = 8,
    probes: Probes = 4,
) -> GroupRolloutStage:
    """Attempts, with the rewards of continuations sampled after each step but the last."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        async def look(episode: Episode) -> dict[str, Any]:
            cuts = step_cuts(rollouts.generator.renderer.tokenizer, episode, separator, max_steps)
            found = await asyncio.gather(*(continuations(rollouts, episode, cut, probes) for cut in cuts))
            return {CUTS: cuts, CONTINUED: list(found)}

        return await noting(rollouts, await rollouts.plays(range(rollouts.samples)), look)

    return group_rollout


def prover_value(rewards: Sequence[float], best_of: int) -> float:
    """Q_mu, the expected reward of the best of K attempts, from n of them: the mean over all choices of K without
    replacement, which is unbiased, and 1 - C(n - c, K) / C(n, K) for c right ones. Of n < K attempts: 1 - (1 - mean)^K."""
    n, ranked = len(rewards), sorted(rewards)
    if n < best_of:
        return float(1 - (1 - np.mean(ranked)) ** best_of)
    # the i-th lowest is the best of K that hold it and K - 1 of the i lower ones
    return sum(comb(i, best_of - 1) * r for i, r in enumerate(ranked)) / comb(n, best_of)


def with_progress(
    progress_weight: Annotated[float, Setting("alpha: weight of progress", low=0)] = 3.0,
    best_of: Annotated[int, Setting("K, attempts of which the prover keeps the best", low=1)] = 4,
) -> Credit:
    """A_t = r - mean r + alpha A_mu(step of t), A_mu(h) = Q_mu(h) - Q_mu(h - 1). The value before the first step is that
    of the group's attempts, after the last step the outcome."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            start = prover_value(group.rewards.tolist(), best_of) if group.episodes else 0.0
            for episode, base in zip(group.episodes, centred(group.rewards), strict=True):
                found = [prover_value(rewards, best_of) for rewards in episode.notes[CONTINUED]]
                progress = np.diff([start, *found, episode.reward])[step_index(episode, episode.notes[CUTS])]
                signal = constant(episode, float(base))
                signal.advantage[episode.sampled] += progress_weight * progress[episode.sampled]
                signals.append(signal)
        return signals

    return credit


def _advantages(**settings: float) -> list[float]:
    """Of a right attempt of two steps, two tokens and one, all right after the first; and of a wrong one of one."""
    right, wrong = example_answers((1.0, (2, 3, 4)), (0.0, (5,))).episodes
    right = replace(right, notes={CUTS: [3], CONTINUED: [[1.0, 1.0]]})  # tokens counted with the prompt's
    wrong = replace(wrong, notes={CUTS: [], CONTINUED: []})
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
    equation="A_mu(h) = Q_mu(h) - Q_mu(h-1), Q_mu = 1 - (1 - Q_pi)^K, estimated by 1 - C(n-c, K) / C(n, K) from c of n right;  grad = sum_h grad log pi(a_h) (r - mean r + alpha A_mu(h))",
    departures=(
        "values are Monte-Carlo estimates of this step's own attempts: no verifier is trained",
        "the prover is best-of-K; where fewer than K continuations were sampled, its value is 1 - (1 - q)^K of their mean q, which is biased",
        "alpha (progress_weight) is 3, the paper's for 9B weights; it has 5 for 2B",
        "steps are lines; search at test time is left out",
    ),
    stages={"group_rollout": stage(valued_steps), "credit": stage(with_progress), "objective": stage(plain)},
    confidence="memory",
    needs=("text",),
    claim="A best-of-K prover accelerates learning; the policy as its own prover (best_of=1) does not.",
    manipulation=(
        Manipulated("a tenth to nine tenths of the probes end right", "noted/continued", 0.1, 0.9),
    ),
    examples=(
        ByHand(
            "one right of four: the best of 1, 2, 3, 4; two of four: 1 - C(2, 2) / C(4, 2)",
            lambda: [prover_value([0, 1, 0, 0], k) for k in (1, 2, 3, 4)] + [prover_value([1, 0, 0, 1], 2)],
            [1 / 4, 1 / 2, 3 / 4, 1, 5 / 6],
        ),
        ByHand(
            "of rewards 0, 1/2, 1 the best of two: 1/2 or 1 twice; of two attempts the best of four: 1 - 1/2^4",
            lambda: [prover_value([0.5, 0, 1], 2), prover_value([0, 1], 4)],
            [2.5 / 3, 15 / 16],
        ),
        ByHand(
            "four continuations at q = 1/4, K = 4: the estimate is 1 - (3/4)^4 on average",
            lambda: sum(
                comb(4, c) * 0.25**c * 0.75 ** (4 - c) * prover_value([1] * c + [0] * (4 - c), 4)
                for c in range(5)
            ),
            1 - 0.75**4,
        ),
        # K = 1: Q_mu = 1/2 before, 1 after the first step. K = 2: the best of the two attempts is right, so 1 before.
        ByHand(
            "alpha = 3: +-1/2 and three times the prover's progress",
            lambda: [_advantages(best_of=1), _advantages(best_of=2)],
            [[0.5 + 3 / 2, 0.5 + 3 / 2, 0.5, -0.5 - 3 / 2], [0.5, 0.5, 0.5, -0.5 - 3]],
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
