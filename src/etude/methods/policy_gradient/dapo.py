"""DAPO: GRPO with four changes for long answers."""

from __future__ import annotations

from typing import Annotated

from etude.curriculum.filter import mixed_only
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.types import Episode


def overlong_share(length: int, limit: int, buffer: int) -> float:
    """0 up to limit - buffer, rising linearly to 1 at the limit."""
    return min(1.0, max(0.0, (length - (limit - buffer)) / buffer))


def soft_overlong(
    buffer: Annotated[
        float, Setting("share of the length limit in which the punishment grows", low=0.01, high=1)
    ] = 0.25,
    penalty: Annotated[float, Setting("punishment at the limit", low=0, high=1)] = 1.0,
):
    """The verdict's reward minus penalty x overlong_share of the longest reply (DAPO's soft overlong
    punishment, arXiv 2503.14476, eq. 13)."""

    def reward(episode: Episode) -> dict[str, float]:
        correct, limit = verdict()(episode)["reward"], episode.notes["limit"]
        longest = max((len(s) for s in episode.spans if s.sampled), default=0)
        over = overlong_share(longest, limit, max(1, round(buffer * limit)))
        return {"reward": correct - penalty * over, "verdict": correct, "overlong": -penalty * over}

    return reward


RECIPE = Recipe(
    name="dapo",
    base=GRPO,
    paper=Paper("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "2503.14476", 2025),
    idea="The clip is wider upwards, so that unlikely tokens can grow. Groups without differing outcomes are drawn anew. "
    "Every token counts alike, and answers near the length limit are punished softly.",
    equation="L = - sum_it min(rho A, clip(rho, 1-0.2, 1+0.28) A) / sum_i |y_i|, over groups with 0 < correct < G",
    departures=(
        "the overlong buffer is the last quarter of the length limit, where the paper has the last fifth",
    ),
    stages={
        "objective": stage(clipped, high=0.28, mean="token"),
        "filter": stage(mixed_only),
        "reward": stage(soft_overlong),
    },
    examples=(
        ByHand("halfway into the buffer", lambda: overlong_share(56, 64, 16), 0.5),
        ByHand("below the buffer", lambda: overlong_share(48, 64, 16), 0.0),
        Reduction(
            "symmetric clip and sequence mean give GRPO on mixed groups",
            "grpo",
            {"objective.high": 0.2, "objective.mean": "episode", "reward.penalty": 0.0},
        ),
    ),
)
