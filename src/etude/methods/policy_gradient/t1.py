"""T1: many hot samples, an entropy bonus, and an anchor that follows the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch

from etude.credit.group import Credit, leave_one_out, others_mean, whitened
from etude.credit.kl_penalty import drift
from etude.objective.entropy import entropy_bonus
from etude.objective.policy import MeanOver, plain
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal


def repeats(tokens: Array, size: int) -> int:
    """How often the commonest run of `size` tokens occurs."""
    runs = Counter(tuple(tokens[i : i + size].tolist()) for i in range(len(tokens) - size + 1))
    return max(runs.values(), default=0)


def tidy(
    penalty: Annotated[float, Setting("punishment of repetition and of overlong answers", low=0)] = 1.0,
    size: Annotated[int, Setting("length of a run that counts as repeated", "tokens", low=1)] = 8,
    most: Annotated[int, Setting("times that a run may occur", low=1)] = 3,
):
    """The verdict's reward, minus the penalty for an answer that was cut off or repeats itself
    (T1, arXiv 2501.11651)."""

    def reward(episode: Episode) -> dict[str, float]:
        untidy = episode.stop == "length" or repeats(episode.tokens[episode.sampled], size) > most
        right = verdict()(episode)["reward"]
        return {"reward": right - penalty * untidy, "verdict": right, "untidy": float(untidy)}

    return reward


@torch.no_grad()
def follow(anchor: Any, policy: Any, momentum: float) -> None:
    """theta_anchor <- momentum theta_anchor + (1 - momentum) theta."""
    for (_, mine), (_, theirs) in zip(anchor.parameters(), policy.parameters(), strict=True):
        mine.lerp_(theirs, 1 - momentum)
    anchor.publish()


def anchored(
    beta: Annotated[float, Setting("weight of log pi - log anchor in the reward", "nats", low=0)] = 0.01,
    momentum: Annotated[float, Setting("what the anchor keeps of itself per step", low=0, high=1)] = 0.99,
    whiten: Annotated[bool, Setting("whiten the advantages over the batch")] = False,
) -> Credit:
    """A_it = r_i - mean of the others - beta (log pi_old(y_it) - log pi_anchor(y_it)). The anchor moves first, which is
    the update after the step before (T1, arXiv 2501.11651)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        anchor = context.auxiliary["reference"]
        follow(getattr(anchor, "policy", anchor), context.policy, momentum)
        plain = others_mean()(groups, context)
        gaps = drift([s.episode for s in plain], context)
        signals = [
            replace(s, advantage=(s.advantage - beta * gap).astype(np.float32))
            for s, gap in zip(plain, gaps, strict=True)
        ]
        return whitened(signals) if whiten else signals

    return credit


def exploring(
    alpha: Annotated[float, Setting("weight of the entropy bonus", low=0)] = 0.001, mean: MeanOver = "token"
) -> Objective:
    """-A_t log pi_theta(y_t) - alpha H_t."""
    return plain(mean) + entropy_bonus(alpha)


RECIPE = Recipe(
    name="t1",
    n=189,
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
        "GUESS: the KL penalty is the sampled log-ratio, detached, within the advantage; normalising over the batch is "
        "credit.whiten, off",
        "GUESS: alpha = 0.001, beta = 0.01, m = 0.99; token mean; no clipping",
        "attempts per task are the run's own (the paper goes up to 64); its SFT stage is a run of sft before",
    ),
    stages={"reward": stage(tidy), "credit": stage(anchored), "objective": stage(exploring)},
    auxiliary={"reference": AuxiliaryModel("copy")},
    defaults={"temperature": 1.2},
    confidence="guess",
    claim="More attempts per task at an equal number of updates raise accuracy, and keep the KL lower at equal reward.",
    examples=(
        ByHand("two attempts: r_1 - r_2", lambda: leave_one_out(np.array([1.0, -1.0])), [2.0, -2.0]),
        ByHand("1 2 1 2 1: the run 1 2 occurs twice", lambda: repeats(np.array([1, 2, 1, 2, 1]), 2), 2),
        Reduction(
            "without bonus, penalty and anchor it is RLOO",
            "rloo",
            {"objective.alpha": 0.0, "objective.mean": "sum", "credit.beta": 0.0, "reward.penalty": 0.0},
        ),
    ),
)
