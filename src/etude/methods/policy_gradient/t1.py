"""T1: many hot samples, an entropy bonus, and an anchor that follows the policy.

Hou et al. (arXiv 2501.11651). Reward: answers that repeat themselves or do not end are punished. Credit:
RLOO's advantage minus the log-ratio to an anchor, a moving average of the policy. Objective: REINFORCE as a
token mean, minus entropy_weight times the exact entropy. Sampling at temperature 1.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import log
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch

from etude.credit.group import Credit, advantage, whitened
from etude.credit.kl_penalty import drift
from etude.fixtures.examples import example_episode, example_group
from etude.models.policy import Policy
from etude.objective.entropy import entropy_bonus
from etude.objective.policy import MeanOver, plain
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.stages import Context, Reward
from etude.types import Array, Episode, Group, Signal


def repeats(tokens: Array, size: int) -> int:
    """How often the commonest run of `size` tokens occurs."""
    runs = Counter(tuple(tokens[i : i + size].tolist()) for i in range(len(tokens) - size + 1))
    return max(runs.values(), default=0)


def tidy(
    untidy_penalty: Annotated[
        float, Setting("punishment of repetition and of overlong answers", low=0)
    ] = 1.0,
    run_length: Annotated[int, Setting("length of a run that counts as repeated", "tokens", low=1)] = 8,
    max_repeats: Annotated[int, Setting("times that a run may occur", low=1)] = 3,
) -> Reward:
    """The verdict's reward, minus the penalty for an answer that was cut off or repeats itself."""

    def reward(episode: Episode) -> dict[str, float]:
        untidy = (
            episode.stop == "length" or repeats(episode.tokens[episode.sampled], run_length) > max_repeats
        )
        right = verdict()(episode)["reward"]
        return {"reward": right - untidy_penalty * untidy, "verdict": right, "untidy": float(untidy)}

    return reward


def anchored(
    anchor_weight: Annotated[
        float, Setting("weight of log pi - log anchor in the reward", "nats", low=0)
    ] = 0.01,
    momentum: Annotated[float, Setting("what the anchor keeps of itself per step", low=0, high=1)] = 0.99,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = False,
) -> Credit:
    """A_it = r_i - mean of the others - anchor_weight (log pi_old(y_it) - log pi_anchor(y_it)). The anchor moves first,
    which is the update after the step before."""
    compared = advantage("leave one out")

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        anchor = context.auxiliary["reference"]
        getattr(anchor, "policy", anchor).follow(context.policy, momentum)
        signals = compared(groups, context)
        gaps = drift([s.episode for s in signals], context)
        signals = [
            replace(s, advantage=(s.advantage - anchor_weight * gap).astype(np.float32))
            for s, gap in zip(signals, gaps, strict=True)
        ]
        return whitened(signals) if whiten else signals

    return credit


def exploring(
    entropy_weight: Annotated[float, Setting("weight of the entropy bonus", "per nat", low=0)] = 0.001,
    mean: MeanOver = "token",
) -> Objective:
    """-A_t log pi_theta(y_t) - entropy_weight H_t."""
    return plain(mean) + entropy_bonus(entropy_weight)


def rewarded(tokens: Sequence[int], stop: str = "end") -> float:
    """The recipe's reward of a right answer, where a run of two tokens may occur twice."""
    reward = RECIPE.stages["reward"].but(run_length=2, max_repeats=2).build("reward")
    scored: dict[str, float] = reward(example_episode(1.0, tokens, stop=stop))
    return scored["reward"]


def credited() -> list[float]:
    """Advantages of a right and a wrong answer of one token, log pi_old = -1, from an anchor whose log-probability is its
    only weight, -1, and which follows a policy at -5 by a quarter."""
    anchor, policy = (
        SimpleNamespace(parameters=lambda weight=weight: [("weight", weight)], publish=lambda: None)
        for weight in (torch.tensor(-1.0), torch.tensor(-5.0))
    )
    anchor.follow = partial(Policy.follow, anchor)  # type: ignore[arg-type]

    def with_logp(signals: Sequence[Signal], name: str) -> list[Signal]:
        return [
            replace(s, extras={name: np.full_like(s.advantage, float(anchor.parameters()[0][1]))})
            for s in signals
        ]

    context = SimpleNamespace(auxiliary={"reference": anchor}, policy=policy, with_logp=with_logp)
    credit = RECIPE.stages["credit"].but(anchor_weight=0.5, momentum=0.75).build("credit")
    return [float(s.advantage[0]) for s in credit([example_group([1.0, 0.0])], context)]


RECIPE = Recipe(
    name="t1",
    paper=Paper(
        "Advancing Language Model Reasoning through Reinforcement Learning and Inference Scaling",
        "2501.11651",
        2025,
    ),
    idea="Exploration is bought in three ways: many attempts per task at a temperature above 1, a bonus on entropy, "
    "and an anchor for the KL penalty that trails the policy as a moving average instead of holding it at the start. "
    "Answers that repeat themselves or do not end are punished.",
    equation="A_it = r_i - mean_{j != i} r_j - beta log pi(y_it)/pi_ref(y_it);  L = - mean A log pi - alpha mean H;  theta_ref <- m theta_ref + (1-m) theta",
    departures=(
        "could not be verified: the repository of the paper holds no code, so the form of the penalty and every number is a guess",
        "GUESS: the KL penalty is the sampled log-ratio, detached, within the advantage; normalising over the batch is "
        "credit.whiten, off",
        "GUESS: alpha (entropy_weight) = 0.001, beta (anchor_weight) = 0.01, m = 0.99; token mean; no clipping",
        "attempts per task are the run's own (the paper goes up to 64); its SFT stage is a run of sft before",
    ),
    stages={"reward": stage(tidy), "credit": stage(anchored), "objective": stage(exploring)},
    auxiliary={"reference": AuxiliaryModel("copy")},
    defaults={"temperature": 1.2},
    confidence="guess",
    claim="More attempts per task at an equal number of updates raise accuracy, and keep the KL lower at equal reward.",
    unchecked="the number of attempts at a task is a setting of the run",
    examples=(
        ByHand(
            "1 2 1 2 1 is fine, 1 2 1 2 1 2 repeats itself, 1 2 3 was cut off",
            lambda: [rewarded([1, 2, 1, 2, 1]), rewarded([1, 2, 1, 2, 1, 2]), rewarded([1, 2, 3], "length")],
            [1 - 0, 1 - 1, 1 - 1],
        ),
        ByHand(
            "the anchor moves to 0.75 x -1 + 0.25 x -5 = -2, so log pi - log anchor = 1, at weight 1/2",
            credited,
            [1 - 0.5 * 1, -1 - 0.5 * 1],
        ),
        OffPolicy(
            "no ratio, no clip; less 0.001 x the mean entropy; every token counts alike",
            ratio=(3.0, 1.0, 0.2),
            advantage=(1.0, 1.0, -0.5),
            lengths=(1, 2),
            entropy=(1.0, 2.0, 600.0),
            loss=(-(-1 + log(3)) - -1 + 0.5 * (-1 + log(0.2))) / 3 - 0.001 * 603 / 3,
            gradient=(-1 / 3, -1 / 3, 0.5 / 3),
        ),
        Reduction(
            "without bonus, penalty and anchor it is RLOO",
            "rloo",
            {
                "objective.entropy_weight": 0.0,
                "objective.mean": "sum",
                "credit.anchor_weight": 0.0,
                "reward.untidy_penalty": 0.0,
            },
        ),
    ),
)
