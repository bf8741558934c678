"""DLER and DA-DLER: the bluntest length penalty, with the optimisation mended around it.

Liu et al. (arXiv 2510.15110). Reward: nothing for an answer that is longer than allowed. Filter: groups of
mixed reward; DA-DLER first holds easy tasks to a shorter limit. Credit: the group's mean as baseline, then
whitened over the tokens of the batch. Objective: PPO's clipped surrogate with more room upwards and dual
clip, a mean over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.credit.group import advantage
from etude.curriculum.filter import mixed_only
from etude.fixtures.examples import example_episode, example_group
from etude.objective.policy import clipped
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.stages import Context, Filter, Reward
from etude.types import Array, Episode, Group

LIMIT = "limit"  # score: the longest answer that is paid


def paid_within(
    paid_length: Annotated[
        int, Setting("longest answer that is paid; 0: all that ended", "tokens", low=0)
    ] = 0,
) -> Reward:
    """R' = R for an answer of at most `paid_length` sampled tokens, else 0."""

    def reward(episode: Episode) -> dict[str, float]:
        long = episode.sampled.sum() > paid_length if paid_length else episode.stop == "length"
        right, limit = verdict()(episode)["reward"], float(paid_length or episode.notes["limit"])
        return {"reward": 0.0 if long else right, "verdict": right, "too_long": float(long), LIMIT: limit}

    return reward


def shortened(one: Group, length: float) -> Group:
    """The group with reward 0 for answers of more than `length` sampled tokens."""
    cut = (e.with_scores({"reward": 0.0}) if e.sampled.sum() > length else e for e in one.episodes)
    return replace(one, episodes=tuple(cut))


def by_difficulty(
    easy_above: Annotated[float, Setting("mean reward above which a task is easy", low=0, high=1)] = 0.5,
    easy_limit: Annotated[
        float,
        Setting("longest answer that is paid for an easy task, of what others are paid for", low=0, high=1),
    ] = 0.5,
) -> Filter:
    """Easy tasks are held to a shorter limit, `easy_limit` of the reward's own; then only groups of mixed reward are
    kept (DA-DLER)."""

    def held(one: Group) -> Group:
        first = one.episodes[0]
        limit = first.scores.get(LIMIT, first.notes["limit"])  # a user's own reward names none
        return shortened(one, easy_limit * limit) if one.rewards.mean() > easy_above else one

    def filter(groups: Sequence[Group], context: Context) -> list[Group]:
        return mixed_only()([held(g) for g in groups], context)

    return filter


def rewarded(reward: float, length: int, stop: str = "end", **settings: object) -> list[float]:
    """Reward and verdict that the recipe gives to an answer of `length` tokens."""
    scored = (
        DLER.stages["reward"]
        .but(**settings)
        .build("reward")(example_episode(reward, range(length), stop=stop))
    )
    return [scored["reward"], scored["verdict"]]


SPREAD = ((2 * 0.5**2 + 0.75**2 + 3 * 0.25**2) / 6) ** 0.5  # std of 0.5, -0.5, 0.75, -0.25, -0.25, -0.25


def kept() -> list[Array]:
    """Rewards of the groups that the recipe's filter keeps of 1,0 / 1,1 / 0,0."""
    groups = [example_group(rewards) for rewards in ([1, 0], [1, 1], [0, 0])]
    return [group.rewards for group in DLER.stages["filter"].build("filter")(groups, None)]


DLER = Recipe(
    name="dler",
    paper=Paper(
        "DLER: Doing Length pEnalty Right - Incentivizing More Intelligence per Token via RL",
        "2510.15110",
        2025,
    ),
    published_lr=1e-6,
    idea="An answer that runs into the length limit earns nothing, whatever it says. "
    "That makes rewards noisy, so advantages are normalised over the batch instead of the group. "
    "Groups that are all cut off or all paid are drawn anew.",
    equation="R'_i = R_i [|y_i| <= L];  A_i = R'_i - mean_group R', whitened over the tokens of the batch;  L = token mean of PPO's clip",
    departures=(
        "the KL to the starting policy (0.0005 in the paper) is off: --set objective.kl_weight=0.0005",
        "the merging of a part of the weight change into the start is left out",
    ),
    stages={
        "reward": stage(paid_within),
        "filter": stage(mixed_only),
        "credit": stage(advantage, scale="whitened"),
        "objective": stage(clipped, clip_high=0.28, mean="token", dual_clip=10.0),
    },
    claim="With the same hard limit, batch normalisation keeps a higher accuracy than group normalisation.",
    manipulation=(Manipulated("an answer in fifty is too long", "score/too_long", 0.02),),
    examples=(
        ByHand(
            "at most 4 tokens are paid; the verdict stays",
            lambda: [rewarded(1.0, n, paid_length=4) for n in (4, 5)],
            [[1, 1], [0, 1]],
        ),
        ByHand(
            "by default, whatever ended by itself is paid",
            lambda: [rewarded(1.0, 5), rewarded(1.0, 5, "length"), rewarded(0.0, 5)],
            [[1, 1], [0, 1], [0, 0]],
        ),
        ByHand("of groups 1,0 / 1,1 / 0,0 the first is kept", kept, [[1, 0]]),
        Credited(
            "1 of 2 and 1 of 4 right: less the group's mean, over the batch's spread",
            [[1.0, 0], [1.0, 0, 0, 0]],
            [[0.5 / SPREAD, -0.5 / SPREAD], [0.75 / SPREAD, *[-0.25 / SPREAD] * 3]],
        ),
        OffPolicy(
            "praise above 1.28, within, below; blame above, within, below, and above the dual clip of 10",
            ratio=(1.3, 1.25, 0.5, 5.0, 0.85, 0.75, 12.0),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0),
            lengths=(1, 6),
            loss=(-1.28 - 1.25 - 0.5 + 5 + 0.85 + 0.8 + 10) / 7,
            gradient=(0, -1.25 / 7, -0.5 / 7, 5 / 7, 0.85 / 7, 0, 0),
        ),
        Reduction(
            "no limit, the group's own std and on-policy: GRPO with a token mean",
            "grpo",
            {"reward.paid_length": 1 << 20, "credit.scale": "group std"},
            {"objective.mean": "token"},
        ),
    ),
)


def fair(rewards: Sequence[float], lengths: Sequence[int], **settings: object) -> list[Array]:
    """Rewards of the group after DA-DLER's reward, with these settings, and filter; nothing where it is drawn anew."""
    made = example_group(rewards, lengths)
    reward = DLER.stages["reward"].but(**settings).build("reward")
    scored = replace(made, episodes=tuple(e.with_scores(reward(e)) for e in made.episodes))
    return [group.rewards for group in DA_DLER.stages["filter"].build("filter")([scored], None)]


DA_DLER = Recipe(
    name="da_dler",
    base=DLER,
    paper=DLER.paper,
    published_lr=1e-6,
    idea="DLER with a limit that depends on the task. Tasks that are mostly solved must be solved in half the length. "
    "The others keep the whole length.",
    equation="L(q) = L_short where mean_group R' > 0.5, else L_long",
    departures=("could not be verified: the released code holds DLER alone",),
    stages={"filter": stage(by_difficulty)},
    claim="Answers get shorter than with DLER at the same accuracy.",
    manipulation=(
        Manipulated("a tenth of the tasks are mostly solved, a tenth are not", "correct", 0.1, 0.9),
    ),
    examples=(
        ByHand(
            "2 of 3 right is easy: held to 3 of 6 tokens; 1 of 2 is not",
            lambda: np.concatenate(fair([1, 1, 0], [3, 4, 2]) + fair([1, 0], [6, 6])),
            [1, 0, 0, 1, 0],
        ),
        ByHand(
            "where 4 of 6 tokens are paid, easy is 2 tokens: half of what is paid, not of what may be written",
            lambda: fair([1, 1, 0], [2, 3, 1], paid_length=4)[0],
            [1, 0, 0],
        ),
        ByHand(
            "an easy group whose right answers are all too long is drawn anew",
            lambda: len(fair([1, 1], [4, 5])),
            0,
        ),
        Reduction("one limit for all tasks is DLER", "dler", {"filter.easy_limit": 1.0}),
    ),
)

RECIPES = (DLER, DA_DLER)
