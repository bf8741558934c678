"""GDPO: every part of a reward has an advantage of its own, and these are added, not the rewards.

Where a reward is a sum of parts, different combinations of parts may have the same sum, and a part with a small spread is drowned by
one with a large one. Each part is standardised over the group by itself; the sum of these advantages is then normalised over the
batch. GDPO: Group reward-Decoupled Normalization Policy Optimization, arXiv 2601.05242."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.credit.group import assigned, centred, standardised, whitened
from etude.fixtures.examples import example_episode, example_group
from etude.fixtures.given import given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.methods.reward_shaping.transformed_rewards import rewards_in
from etude.recipe import ByHand, Credited, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Group, Signal


def each_part(
    part_weights: Annotated[
        str, Setting("weights of parts, as in check=1;brevity=0.2; those that are not named have 1")
    ] = "",
    batch_norm: Annotated[bool, Setting("normalise the sum over the tokens of the batch")] = True,
) -> Credit:
    """A_i = sum_k w_k (r_ik - mean r_k) / (std r_k + 1e-4), mean and std over the group; then over the batch."""
    weights = {
        name.strip(): float(value)
        for name, _, value in (p.partition("=") for p in part_weights.split(";"))
        if name
    }

    def advantages(group: Group) -> Array:
        names = rewards_in(group.episodes[0].scores) if group.episodes else []
        total = np.zeros(len(group.episodes))
        for name in names:
            values = np.array([e.scores.get(name, 0.0) for e in group.episodes])
            total += weights.get(name, 1.0) * (
                standardised(values) if np.ptp(values) > 1e-6 else 0 * centred(values)
            )
        return total

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        signals = assigned(groups, [advantages(g) for g in groups])
        return whitened(signals) if batch_norm else signals

    return credit


def credited(**settings: object) -> list[float]:
    """Advantages of four attempts whose parts are (1, 0), (0, 10), (1, 10), (0, 0)."""
    parts = [{"a": a, "b": b} for a, b in ((1.0, 0.0), (0.0, 10.0), (1.0, 10.0), (0.0, 0.0))]
    episodes = tuple(example_episode(1.0).with_scores({**p, "reward": p["a"] + p["b"]}) for p in parts)
    group = example_group([1.0])
    signals = given_stage(RECIPE, "credit", **settings)([type(group)(group.task, episodes)])
    return [float(s.advantage[0]) for s in signals]


U = 1 / (1 + 2e-4)  # (1 - 1/2) / (1/2 + 1e-4); the same of (10 - 5) / (5 + 1e-4), nearly
V = 5 / (5 + 1e-4)

RECIPE: Recipe = Recipe(
    name="gdpo",
    base=GRPO,
    paper=Paper("GDPO: Group reward-Decoupled Normalization Policy Optimization", "2601.05242", 2026),
    idea="A reward of several parts is not added up first: each part is compared within the group by itself. "
    "So a part with large numbers does not drown the others, and different mixtures of parts stay different. "
    "The sum of these advantages is what is trained.",
    equation="A_i = sum_k w_k (r_ik - mean r_k) / (std r_k + 1e-4), then minus mean and over std of the batch",
    departures=("parts are the scores that the reward records by name; a reward without parts is one",),
    confidence="memory",
    stages={"credit": stage(each_part)},
    claim="With a hard and an easy reward, the hard one is learned that under GRPO's sum is not.",
    unchecked="each part of the reward is standardised in every group in which it differs",
    examples=(
        ByHand(
            "either part counts as much",
            lambda: credited(batch_norm=False),
            [U - V, V - U, U + V, -U - V],
        ),
        ByHand(
            "the second weighs a tenth",
            lambda: credited(batch_norm=False, part_weights="b=0.1"),
            [U - 0.1 * V, 0.1 * V - U, U + 0.1 * V, -U - 0.1 * V],
        ),
        Credited(
            "a reward without parts: GRPO's advantage, whitened",
            [[1.0, 0.0]],
            [[1, -1]],
        ),
        Reduction("one part and no batch norm: GRPO", "grpo", {"credit.batch_norm": False}),
    ),
)
