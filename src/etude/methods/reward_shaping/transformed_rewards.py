"""Transformed rewards: what already beats the starting model's better answers earns little more, and all of several rewards must be good.

Each reward is centred on what the starting model reaches on the same prompt, and its log sigmoid is taken: the log-probability that
the answer is better than that. The sum over several rewards is then the log-probability that it is better in all of them.
Transforming and Combining Rewards for Aligning Large Language Models, arXiv 2402.00742."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.credit.group import assigned, standardised
from etude.fixtures.examples import example_episode, example_group
from etude.fixtures.given import given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage
from etude.types import Episode, Group, Signal

START = "start"  # the player of the starting model's answers


def with_the_start(
    start_samples: Annotated[int, Setting("answers of the starting model to each task", low=2, high=256)] = 4,
) -> GroupRolloutStage:
    """Attempts, and answers of the starting model that are scored alike."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        other = replace(rollouts, generator=rollouts.generators["reference"])
        numbers = range(rollouts.samples, rollouts.samples + start_samples)
        start = [replace(e, player=START) for e in await other.plays(numbers)]
        return [*await rollouts.plays(range(rollouts.samples)), *start]

    return group_rollout


def rewards_in(scores: Mapping[str, float]) -> list[str]:
    """The names of the parts of a reward; of one that has none, "reward". Second opinions are none."""
    parts = [name for name in scores if name != "reward" and "/" not in name]
    return parts or ["reward"]


def log_better(value: float, reference: float) -> float:
    """log sigmoid(r - r_ref), the log-probability under Bradley-Terry that the answer beats the reference."""
    return -float(np.logaddexp(0.0, reference - value))


class Transformed:
    """u_i = sum_k log sigmoid(r_ik - q_k), q_k the `quantile` of reward k over the starting model's answers to the task; the
    advantage is u standardised over the group's attempts. The starting model's answers teach nothing."""

    reads = frozenset({"reference"})

    def __init__(
        self,
        quantile: Annotated[
            float, Setting("quantile of the starting model's rewards that is the reference", low=0, high=1)
        ] = 0.85,
    ) -> None:
        self.quantile = quantile

    def __call__(self, groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        tried = [tuple(e for e in g.episodes if e.player != START) for g in groups]
        utilities = [self.utilities(g) for g in groups]
        own = [replace(g, episodes=episodes) for g, episodes in zip(groups, tried, strict=True)]
        return assigned(own, [standardised(u) for u in utilities])

    def utilities(self, group: Group) -> np.ndarray:
        """f64[G] of the attempts; their rewards as they are where no answer of the starting model is left."""
        start = [e for e in group.episodes if e.player == START]
        tried = [e for e in group.episodes if e.player != START]
        if not start:
            return np.array([e.reward for e in tried])
        names = rewards_in(tried[0].scores) if tried else []
        level = {
            n: float(np.quantile([e.scores.get(n, e.reward) for e in start], self.quantile)) for n in names
        }
        return np.array(
            [sum(log_better(e.scores.get(n, e.reward), q) for n, q in level.items()) for e in tried]
        )


def utilities(number: int = 2) -> list[float]:
    """Of the first `number` of two attempts with the parts (2, 0) and (1, 1), where the starting model's answers have 0 and 1 of either."""
    made = [({"a": 2.0, "b": 0.0}, "policy"), ({"a": 1.0, "b": 1.0}, "policy")][:number]
    made += [({"a": v, "b": v}, START) for v in (0.0, 1.0)]
    episodes = tuple(
        replace(example_episode(1.0), player=player).with_scores({**parts, "reward": sum(parts.values())})
        for parts, player in made
    )
    credit = given_stage(RECIPE, "credit", quantile=0.5)
    return [float(u) for u in credit.utilities(replace(example_group([1.0]), episodes=episodes))]


def credited() -> list[float]:
    """Advantages of attempts with the rewards 1 and 0; two answers of the starting model get none."""
    group = example_group([1.0, 0.0, 1.0, 0.0])
    players = ("policy", "policy", START, START)
    episodes = tuple(replace(e, player=p) for e, p in zip(group.episodes, players, strict=True))
    signals = given_stage(RECIPE, "credit")([replace(group, episodes=episodes)])
    return [float(np.sign(s.advantage[0])) for s in signals]


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


RECIPE: Recipe = Recipe(
    name="transformed_rewards",
    base=GRPO,
    paper=Paper("Transforming and Combining Rewards for Aligning Large Language Models", "2402.00742", 2024),
    idea="A reward is measured against what the starting model reaches on the same prompt. "
    "Beyond that it earns less and less, and below it every bit counts. "
    "With several rewards an answer must be good in all of them: one bad part cannot be bought off by another.",
    equation="u_i = sum_k log sigmoid(r_ik - q_k), q_k the 85th percentile of r_k over y ~ pi_0(.|x);  A_i = u_i standardised over the group",
    departures=(
        "the empirical quantile of a few answers of the starting model, sampled with each group; the paper has 64, and a Gaussian's quantile",
        "the policy gradient is GRPO's; the paper's KL term is objective.kl_weight",
        "the parts of the reward enter as their sources gave them, without weights",
    ),
    confidence="memory",
    stages={"group_rollout": stage(with_the_start), "credit": stage(Transformed)},
    claim="With two rewards fewer answers fail one of them than under their plain sum, at equal KL.",
    unchecked="every reward is transformed, whatever the policy does",
    examples=(
        ByHand(
            "the reference is 0.5 in either part",
            utilities,
            [_log_sigmoid(1.5) + _log_sigmoid(-0.5), 2 * _log_sigmoid(0.5)],
        ),
        ByHand(
            "an attempt that is alone",
            lambda: utilities(1),
            [_log_sigmoid(1.5) + _log_sigmoid(-0.5)],
        ),
        ByHand("attempts alone are credited", credited, [1, -1]),
    ),
)
