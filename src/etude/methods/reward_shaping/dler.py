"""DLER: the bluntest length penalty, with the optimisation mended around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from etude.credit.group import Credit, centred, each, group_mean, whitened
from etude.curriculum.filter import Filter, mixed_only
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.testing.examples import example_episode, example_group
from etude.types import Episode, Group, Signal


def paid_within(
    length: Annotated[int, Setting("longest answer that is paid; 0: all that ended", "tokens", low=0)] = 0,
):
    """R' = R for an answer of at most `length` sampled tokens, else 0 (DLER, arXiv 2510.15110)."""

    def reward(episode: Episode) -> dict[str, float]:
        long = episode.sampled.sum() > length if length else episode.stop == "length"
        right = verdict()(episode)["reward"]
        return {"reward": 0.0 if long else right, "verdict": right, "too_long": float(long)}

    return reward


def shortened(one: Group, length: float) -> Group:
    """The group with reward 0 for answers of more than `length` sampled tokens."""
    cut = (e.with_scores({"reward": 0.0}) if e.sampled.sum() > length else e for e in one.episodes)
    return replace(one, episodes=tuple(cut))


def by_difficulty(
    threshold: Annotated[float, Setting("mean reward above which a task is easy", low=0, high=1)] = 0.5,
    short: Annotated[float, Setting("limit of easy tasks, in run.max_tokens", low=0, high=1)] = 0.5,
) -> Filter:
    """Easy tasks are held to a shorter limit; then only groups of mixed reward are kept
    (DA-DLER, arXiv 2510.15110)."""

    def fair(one: Group) -> Group:
        easy = one.rewards.mean() > threshold
        return shortened(one, short * one.episodes[0].notes["limit"]) if easy else one

    def filter(groups: Sequence[Group], context: Any = None) -> list[Group]:
        return mixed_only()([fair(g) for g in groups], context)

    return filter


def batch_whitened() -> Credit:
    """r - mean of the group, then whitened over all tokens of the batch."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return whitened(each(centred)(groups, context))

    return credit


def normalised(
    over: Annotated[str, Setting("whose spread divides the advantage", choices=("batch", "group"))] = "batch",
) -> Credit:
    """r - mean of the group, then whitened over all tokens of the batch, or divided by the group's own std
    (DLER, arXiv 2510.15110)."""
    return batch_whitened() if over == "batch" else group_mean(std=True)


DLER = Recipe(
    name="dler",
    n=45,
    paper=Paper(
        "DLER: Doing Length pEnalty Right - Incentivizing More Intelligence per Token via RL",
        "2510.15110",
        2025,
    ),
    idea="An answer that runs into the length limit earns nothing, whatever it says. "
    "That makes rewards noisy, so advantages are normalised over the batch instead of the group. "
    "Groups that are all cut off or all paid are drawn anew.",
    equation="R'_i = R_i [|y_i| <= L];  A_i = R'_i - mean_group R', whitened over the tokens of the batch;  L = token mean of PPO's clip",
    departures=(
        "the KL to the starting policy (0.0005 in the paper) is off: --set objective.beta=0.0005",
        "the merging of a part of the weight change into the start is left out",
    ),
    stages={
        "reward": stage(paid_within),
        "filter": stage(mixed_only),
        "credit": stage(normalised),
        "objective": stage(clipped, high=0.28, mean="token", dual=10.0),
    },
    claim="With the same hard limit, batch normalisation keeps a higher accuracy than group normalisation.",
    examples=(
        ByHand(
            "4 of 6 tokens allowed",
            lambda: shortened(example_group([1, 1], lengths=[4, 5]), 4).rewards,
            [1, 0],
        ),
        ByHand("the verdict stays", lambda: paid_within(4)(example_episode(1.0, range(5)))["verdict"], 1),
        Reduction(
            "no limit, the group's own std and on-policy: GRPO with a token mean",
            "grpo",
            {"reward.length": 1 << 20, "credit.over": "group"},
            {"objective.mean": "token"},
        ),
    ),
)


DA_DLER = Recipe(
    name="da_dler",
    base=DLER,
    n=45,
    paper=DLER.paper,
    idea="DLER with a limit that depends on the task. Tasks that are mostly solved must be solved in half the length. "
    "The others keep the whole length.",
    equation="L(q) = L_short where mean_group R' > 0.5, else L_long",
    stages={"filter": stage(by_difficulty)},
    claim="Answers get shorter than with DLER at the same accuracy.",
    examples=(
        ByHand(
            "an easy group is held to 3 of 6 tokens",
            lambda: by_difficulty()([example_group([1, 1, 0], [3, 4, 2])], None)[0].rewards,
            [1, 0, 0],
        ),
        Reduction("one limit for all tasks is DLER", "dler", {"filter.short": 1.0}),
    ),
)

RECIPES = (DLER, DA_DLER)
