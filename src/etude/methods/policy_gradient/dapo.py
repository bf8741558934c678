"""DAPO: GRPO with four changes for long answers.

Yu et al. (arXiv 2503.14476). Reward: a soft punishment near the length limit. Filter: groups whose rewards
are all equal are drawn anew (dynamic sampling, `mixed_only`). Credit: GRPO's. Objective: the clipped
surrogate with more room upwards ("clip-higher"), as a mean over all tokens.
"""

from __future__ import annotations

from typing import Annotated

from etude.curriculum.filter import mixed_only
from etude.fixtures.examples import example_episode, example_group
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.types import Array, Episode


def soft_overlong(
    buffer: Annotated[
        float, Setting("share of the length limit in which the punishment grows", low=0.01, high=1)
    ] = 0.25,
    overlong_penalty: Annotated[float, Setting("punishment at the limit", low=0, high=1)] = 1.0,
) -> Reward:
    """R = r - penalty x min(1, max(0, (|y| - (L - B)) / B)): L the length limit, B the last `buffer` of it, |y| the
    longest reply in tokens (eq. 13)."""

    def reward(episode: Episode) -> dict[str, float]:
        correct, limit = verdict()(episode)["reward"], episode.notes["limit"]
        longest = max((len(s) for s in episode.spans if s.sampled), default=0)
        last = max(1, round(buffer * limit))  # B in tokens
        over = min(1.0, max(0.0, (longest - (limit - last)) / last))
        return {
            "reward": correct - overlong_penalty * over,
            "verdict": correct,
            "overlong": -overlong_penalty * over,
        }

    return reward


def rewarded(reward: float, length: int) -> float:
    """The recipe's reward of an answer of `length` tokens at a limit of 6, of which the last 2 are the buffer."""
    scored: dict[str, float] = RECIPE.stages["reward"].build("reward")(example_episode(reward, range(length)))
    return scored["reward"]


def kept() -> list[Array]:
    """Rewards of the groups that the recipe's filter keeps of 1,0 / 1,1 / 0,0."""
    groups = [example_group(rewards) for rewards in ([1, 0], [1, 1], [0, 0])]
    return [group.rewards for group in RECIPE.stages["filter"].build("filter")(groups, None)]


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
        "objective": stage(clipped, clip_high=0.28, mean="token"),
        "filter": stage(mixed_only),
        "reward": stage(soft_overlong),
    },
    examples=(
        ByHand(
            "right, of 4, 5 and 6 tokens at a limit of 6: nothing, half and all of the penalty",
            lambda: [rewarded(1.0, n) for n in (4, 5, 6)],
            [1 - 0, 1 - 0.5, 1 - 1],
        ),
        ByHand("wrong and as long as the limit", lambda: rewarded(0.0, 6), -1.0),
        ByHand("of groups 1,0 / 1,1 / 0,0 the first is kept", kept, [[1, 0]]),
        OffPolicy(
            "praise above 1.28, within it, below 0.8; blame above, within, below; every token counts alike",
            ratio=(1.3, 1.25, 0.5, 1.5, 0.85, 0.75),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            lengths=(1, 5),
            loss=(-1.28 - 1.25 - 0.5 + 1.5 + 0.85 + 0.8) / 6,
            gradient=(0, -1.25 / 6, -0.5 / 6, 1.5 / 6, 0.85 / 6, 0),
        ),
        Reduction(
            "symmetric clip and episode mean give GRPO on mixed groups",
            "grpo",
            {"objective.clip_high": 0.2, "objective.mean": "episode", "reward.overlong_penalty": 0.0},
        ),
    ),
)
