"""PAV: a step is rewarded by how much it changes a prover's chance of success."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, constant
from etude.objective.policy import plain
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.probe import Most, Separator, branches, noting, room, said, step_cuts, step_index
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal


async def value(rollouts: Any, episode: Episode, cut: int, number: int) -> float:
    """The mean reward of `number` continuations after the first `cut` tokens: a Monte-Carlo value of that prefix."""
    conversations = await branches(rollouts, episode, cut, number, max_tokens=room(rollouts, episode, cut))
    verdicts = await asyncio.gather(*(p.check(said(p)) for p in conversations))
    return float(np.mean([v.reward for v in verdicts]))


def valued_steps(
    separator: Separator = "\n",
    most: Most = 8,
    probes: Annotated[int, Setting("continuations sampled after each step", low=1)] = 4,
):
    """Attempts, with the policy's chance of success after each step but the last (notes `cuts`, `q`)
    (PAV, arXiv 2410.08146)."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        async def look(episode: Episode) -> dict[str, Any]:
            cuts = step_cuts(rollouts.generator.renderer.tokenizer, episode, separator, most)
            q = await asyncio.gather(*(value(rollouts, episode, cut, probes) for cut in cuts))
            return {"cuts": cuts, "q": list(q)}

        return await noting(rollouts, await rollouts.plays(range(rollouts.samples)), look)

    return group_rollout


def prover_progress(q: Array, best_of: int) -> Array:
    """A_mu(h) = Q_mu(h) - Q_mu(h - 1) from the base policy's values before the first and after each step (f[H + 1]),
    for the prover best-of-K: Q_mu = 1 - (1 - Q_pi)^K."""
    return np.diff(1 - (1 - np.asarray(q, float)) ** best_of)


def with_progress(
    alpha: Annotated[float, Setting("weight of progress beside the outcome", low=0)] = 3.0,
    best_of: Annotated[int, Setting("attempts of which the prover keeps the best", low=1)] = 4,
):
    """A_t = r - mean r + alpha A_mu(step of t). The value before the first step is the group's mean reward,
    after the last step the outcome (PAV, arXiv 2410.08146)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            start = float(np.clip(group.rewards.mean(), 0, 1)) if group.episodes else 0.0
            for episode, base in zip(group.episodes, centred(group.rewards), strict=True):
                q = np.array([start, *episode.notes["q"], episode.reward])
                progress = prover_progress(q, best_of)[step_index(episode, episode.notes["cuts"])]
                signal = constant(episode, float(base))
                signal.advantage[episode.sampled] += alpha * progress[episode.sampled]
                signals.append(signal)
        return signals

    return credit


RECIPE = Recipe(
    name="pav",
    n=307,
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
        "guess: alpha = 3 (the paper's is a few units), steps are lines; search at test time is left out",
    ),
    stages={"group_rollout": stage(valued_steps), "credit": stage(with_progress), "objective": stage(plain)},
    confidence="memory",
    needs=("text",),
    claim="A best-of-K prover accelerates learning; the policy as its own prover (best_of=1) does not.",
    examples=(
        ByHand(
            "values 1/2, 1/2, 1 with K = 2", lambda: prover_progress(np.array([0.5, 0.5, 1]), 2), [0, 0.25]
        ),
        ByHand(
            "K = 1 is the policy's own progress", lambda: prover_progress(np.array([0.5, 0, 1]), 1), [-0.5, 1]
        ),
        Reduction("alpha 0: the outcome alone", "reinforce", {"credit.alpha": 0.0}),
    ),
)
