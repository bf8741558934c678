"""ReFT (arXiv 2401.08967): a warm-up imitates the demonstrations; then PPO practises the same tasks, rewarded by the
result, by a little for a wrong result that was reached, and with a price on leaving the warmed-up policy."""

from __future__ import annotations

import math
from typing import Annotated

from etude.credit.imitate import IMITATION
from etude.credit.kl_penalty import ActorCriticFromWarmup
from etude.fixtures.examples import example_episode
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    beyond_prompt,
    example_answers,
    example_demonstration,
    given_stage,
)
from etude.objective.hybrid import actor_critic_and_imitation
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.demonstrations import WarmupShare
from etude.rollout.group_rollout import GroupRollout, verdict
from etude.settings import Setting, stage
from etude.stages import GroupRolloutStage, Reward
from etude.types import Episode
from etude.update import Update

VERDICT = "verdict"  # score: the verdict's reward, without the partial one


def demonstration_then_attempts(warmup_share: WarmupShare = 0.2) -> GroupRolloutStage:
    """The demonstration alone during the warm-up, attempts alone from then on."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        if rollouts.progress < warmup_share:
            return [rollouts.demonstrate()]
        return await rollouts.plays(range(rollouts.samples))

    return group_rollout


def partial_verdict(
    partial: Annotated[float, Setting("reward of a wrong answer that came to its end", low=0, high=1)] = 0.1,
) -> Reward:
    """R: the verdict's reward, at least `partial` where the answer was not cut off by the length limit."""
    plain = verdict()

    def reward(episode: Episode) -> dict[str, float]:
        right = plain(episode)["reward"]
        return {"reward": max(right, partial if episode.stop == "end" else 0.0), VERDICT: right}

    return reward


def _rows() -> list[list[float]]:
    """Of a right attempt of two tokens and a demonstration that stands alone: advantages, returns, imitation weights."""
    model = GivenModel(logp=-1.0, value=[0.1, 0.2])
    context = GivenContext(model, {"reference": GivenModel(logp=[-2.0, -1.5])})
    credit = given_stage(RECIPE, "credit", kl_weight=0.5, lam=1.0, whiten=False)
    groups = [example_answers((1.0, (2, 3))), example_answers(demonstrations=[example_demonstration((4,))])]
    signals = credit(groups, context)
    return [beyond_prompt(signals, name) for name in ("advantage", "returns", IMITATION)]


RECIPE: Recipe = Recipe(
    name="reft",
    paper=Paper("ReFT: Reasoning with Reinforced Fine-Tuning", "2401.08967", 2024),
    published_lr=3e-7,
    idea="A short warm-up imitates the demonstrations. "
    "Then the model writes its own solutions of the same tasks, and PPO rewards right results. "
    "So it learns from many reasoning paths where fine-tuning shows it one.",
    equation="r_t = [t = T] R - beta (log pi_old - log pi_ref), R in {1, 0.1, 0};  "
    "L = max(-A rho, -A clip(rho, 0.8, 1.2)) + c max of clipped and plain (V - returns)^2 / 2",
    departures=(
        "the reward of 0.1 goes to wrong answers that ended by themselves: verdicts do not say whether an answer could be extracted",
        "warm-up and practice are one run with one optimiser: the first fifth of the budget imitates",
        "as many attempts per task as the run makes (run.group_size), where the paper samples one",
    ),
    stages={
        "group_rollout": stage(demonstration_then_attempts),
        "reward": stage(partial_verdict),
        "credit": stage(ActorCriticFromWarmup),
        "objective": stage(actor_critic_and_imitation, mean="episode", value_weight=5.0),
        "update": stage(Update, passes=2),
    },
    needs=("answer",),
    auxiliary={"reference": AuxiliaryModel("start")},
    claim="After the same warm-up, ReFT ends above continued SFT on the same tasks.",
    manipulation=(Manipulated("imitation and practice both take place", "demonstrated", 0.9, read="range"),),
    examples=(
        ByHand(
            "right; wrong to the end; wrong and cut off",
            lambda: [
                given_stage(RECIPE, "reward")(example_episode(r, stop=stop))["reward"]
                for r, stop in ((1, "end"), (0, "end"), (0, "length"))
            ],
            [1.0, 0.1, 0.0],
        ),
        # log pi_old - log pi_ref = 1, 1/2: r = -1/2, 1 - 1/4; returns 1/4, 3/4; less V = 0.1, 0.2.
        ByHand(
            "rewards less half a nat's price, and a demonstration alone",
            _rows,
            [[0.15, 0.55, 0], [0.25, 0.75, 0], [0, 0, 1]],
        ),
        # Surrogate: episode 1 (-1.3 - 0.9 + 2 x 0.8) / 3, episode 2 1.1. Halved squared errors of V, the larger of plain
        # and clipped: 0.3^2 (0 plain), 0.5^2, 0.3^2; 1. Imitation: 1 - ln 2.
        OffPolicy(
            "praise beyond the clip and within it, blame beyond it and within it; a demonstration",
            ratio=(1.5, 0.9, 0.5, 1.1, 2.0),
            advantage=(1.0, 1.0, -2.0, -1.0, 0.0),
            lengths=(3, 1, 1),
            weights={"policy": (1, 1, 1, 1, 0), IMITATION: (0, 0, 0, 0, 1)},
            extras={"returns": (1.0, 1.0, 0.0, 1.0, 0.0), "values": (0.5, 0.5, 0.2, 0.1, 0.0)},
            heads={"value": (1.0, 0.5, 0.3, 0.0, 9.0)},
            loss=(-0.6 / 3 + 1.1) / 2
            + 5 * ((0.3**2 + 0.5**2 + 0.3**2) / 2 / 3 + 1 / 2) / 2
            + 1
            - math.log(2),
            gradient=(0, -0.9 / 3 / 2, 0, 1.1 / 2, -1),
            settings={"objective.clip_high": 0.3},
        ),
        Reduction(
            "without warm-up, KL and partial rewards: PPO",
            "ppo",
            {
                "group_rollout.warmup_share": 0.0,
                "reward.partial": 0.0,
                "credit.kl_weight": 0.0,
                "objective.mean": "token",
                "objective.value_weight": 0.1,
            },
        ),
    ),
)
