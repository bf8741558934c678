"""ReFT: imitate for a while, then practise the same tasks with PPO."""

from __future__ import annotations

from typing import Annotated

from etude.credit.kl_penalty import Regularised
from etude.objective.hybrid import actor_critic_and_imitation
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.rollout.demonstrations import warmed_up
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.testing.examples import example_episode
from etude.train.step import Update
from etude.types import Episode


def partial_verdict(
    partial: Annotated[float, Setting("reward of a wrong answer that came to its end", low=0, high=1)] = 0.1,
):
    """The verdict's reward, at least `partial` where the answer was not cut off by the length limit
    (ReFT, arXiv 2401.08967)."""

    def reward(episode: Episode) -> dict[str, float]:
        right = verdict()(episode)["reward"]
        return {"reward": max(right, partial if episode.stop == "end" else 0.0), "verdict": right}

    return reward


RECIPE = Recipe(
    name="reft",
    n=124,
    paper=Paper("ReFT: Reasoning with Reinforced Fine-Tuning", "2401.08967", 2024),
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
        "group_rollout": stage(warmed_up),
        "reward": stage(partial_verdict),
        "credit": stage(Regularised),
        "objective": stage(actor_critic_and_imitation, mean="episode", value_weight=5.0),
        "update": stage(Update, passes=2),
    },
    needs=("answer",),
    auxiliary={"reference": AuxiliaryModel("start")},
    claim="After the same warm-up, ReFT ends above continued SFT on the same tasks.",
    examples=(
        ByHand(
            "right; wrong to the end; wrong and cut off",
            lambda: [
                partial_verdict()(example_episode(r, stop=stop))["reward"]
                for r, stop in ((1, "end"), (0, "end"), (0, "length"))
            ],
            [1.0, 0.1, 0.0],
        ),
        Reduction(
            "without warm-up, KL and partial rewards: PPO",
            "ppo",
            {
                "group_rollout.warmup": 0.0,
                "reward.partial": 0.0,
                "credit.beta": 0.0,
                "objective.mean": "token",
                "objective.value_weight": 0.1,
            },
        ),
    ),
)
