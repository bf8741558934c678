"""DAPO: GRPO with four changes for long answers.

Yu et al. (arXiv 2503.14476). Reward: a soft punishment near the length limit. Filter: groups whose answers
are all right or all wrong are drawn anew (dynamic sampling), whatever their lengths. Credit: GRPO's.
Objective: the clipped surrogate with more room upwards ("clip-higher"), as a mean over all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from etude.curriculum.filter import VERDICT, mixed_verdicts
from etude.fixtures.examples import EXAMPLE_TASK, example_episode
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.types import Episode, Group


def soft_overlong(
    buffer: Annotated[
        float, Setting("share of the length limit in which the punishment grows", low=0.01, high=1)
    ] = 0.2,
    overlong_penalty: Annotated[float, Setting("punishment at the limit", low=0, high=1)] = 0.5,
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
            VERDICT: correct,
            "overlong": -overlong_penalty * over,
        }

    return reward


def scored(reward: float, length: int) -> Episode:
    """An answer of `length` tokens at a limit of 10, of which the last 2 are the buffer, with the recipe's reward."""
    episode = replace(example_episode(reward, range(length)), notes={"limit": 10})
    return episode.with_scores(RECIPE.stages["reward"].build("reward")(episode))


def kept(*groups: Sequence[tuple[float, int]]) -> list[bool]:
    """Whether the recipe's filter keeps groups of answers (right or wrong, length)."""
    made = [Group(EXAMPLE_TASK, tuple(scored(*answer) for answer in group)) for group in groups]
    found = RECIPE.stages["filter"].build("filter")(made, None)
    return [any(group is other for other in found) for group in made]


RECIPE = Recipe(
    name="dapo",
    base=GRPO,
    paper=Paper("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "2503.14476", 2025),
    published_lr=1e-6,
    idea="The clip is wider upwards, so that unlikely tokens can grow. Groups without differing outcomes are drawn anew. "
    "Every token counts alike, and answers near the length limit are punished softly.",
    equation="L = - sum_it min(rho A, clip(rho, 1-0.2, 1+0.28) A) / sum_i |y_i|, over groups with 0 < correct < G",
    departures=(
        "answers earn 1 or 0, where the paper has 1 or -1, so the punishment at the limit is 0.5 for its 1",
        "over-sampling ends at run.oversample times the batch, and a short batch is trained as it is",
    ),
    stages={
        "objective": stage(clipped, clip_high=0.28, mean="token"),
        "filter": stage(mixed_verdicts),
        "reward": stage(soft_overlong),
    },
    manipulation=(
        Manipulated(
            "groups without differing outcomes are drawn anew, one in twenty", "signal", at_most=0.95
        ),
    ),
    examples=(
        ByHand(
            "of 8, 9 and 10 tokens at a limit of 10: nothing, half and all of the punishment; right, then wrong",
            lambda: [[scored(r, n).reward for n in (8, 9, 10)] for r in (1.0, 0.0)],
            [[1, 0.75, 0.5], [0, -0.25, -0.5]],
        ),
        ByHand(
            "wrong or right alike, of lengths 3, 9, 10, 2, are drawn anew; one of two right is kept",
            lambda: kept(
                [(0, 3), (0, 9), (0, 10), (0, 2)],
                [(1, 3), (1, 9), (1, 10), (1, 2)],
                [(1, 10), (0, 3)],
            ),
            [False, False, True],
        ),
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
