"""ERL: attempt, reflect, try again, and keep in the weights what worked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.batch import Batch
from etude.credit.attempts import compared, distilled, on_parts, scores_of
from etude.models.outputs import Outputs
from etude.objective.policy import High, KLWeight, Low, MeanOver, clipped
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective, sharing_denominator
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import nth
from etude.rollout.second import REFLECTION, Reflect
from etude.settings import Setting, stage
from etude.types import Group, Signal


def kept(rewards: Sequence[float | None]) -> list[float]:
    """max(r_2, 0): how strongly each second attempt is learnt without its reflection; 0 where there was none."""
    return [max(r or 0.0, 0.0) for r in rewards]


def experience(
    std: Annotated[bool, Setting("divide by the standard deviation of the part within the group")] = True,
    reflections: Annotated[bool, Setting("train the reflections")] = True,
    seconds: Annotated[bool, Setting("train second attempts with their reflection in view")] = True,
):
    """GRPO's advantage for first attempts among first attempts, for second among second, for reflections by the
    reward of the attempt that they led to; and second attempts that succeeded, behind the bare question, with
    advantage max(r_2, 0): row "distilled" (ERL, arXiv 2602.13949)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            outcome = scores_of(group, "second")
            first, second = compared(scores_of(group, "first"), std), compared(outcome, std)
            praise = kept(outcome)
            for i, episode in enumerate(group.episodes):
                parts = {nth(1): first[i]}
                parts |= {REFLECTION: second[i]} if reflections else {}
                parts |= {nth(2): second[i]} if seconds else {}
                signals.append(on_parts(episode, parts))
                if praise[i]:
                    signals += distilled(episode, nth(2), "distilled", praise[i])
        return signals

    return credit


Distil = Annotated[float, Setting("weight of the second attempt learnt without its help", low=0)]


def praised(coefficient: float, mean: MeanOver = "sum", row: str = "distilled") -> Objective:
    """coefficient x -A_t log pi_theta on the weight row `row`: imitation weighted by a reward, divided as the policy's
    term is."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.advantage * out.logp

    if not coefficient:
        return objective()
    return objective(Term(row, loss, sharing_denominator(MEANS[mean]), row, coefficient, proportional=True))


def reinforce_and_keep(
    low: Low = 0.2, high: High = 0.28, mean: MeanOver = "sum", distil: Distil = 1.0, beta: KLWeight = 0.0
) -> Objective:
    """PPO's clip on what was said, and -max(r_2, 0) log pi(y_2 | x) on what worked (ERL, arXiv 2602.13949)."""
    return clipped(low, high, mean, kl_weight=beta) + praised(distil, mean)


RECIPE = Recipe(
    name="erl",
    paper=Paper("Experiential Reinforcement Learning", "2602.13949", 2026),
    idea="After a failed attempt the model reflects on what the environment said, and tries again with its own advice in view. "
    "Attempts and reflections are reinforced, the reflection by the success of the attempt that it led to; advice that worked is "
    "remembered for later tasks. What succeeded is also learnt as an answer to the bare question, so that it needs no reflection.",
    equation="L = PPO's clip on y_1, the reflection and y_2, A by GRPO among parts of a kind;  - max(r_2, 0) sum_t log pi(y_2t | x)",
    departures=(
        "the KL of the released settings (0.001) is off, so that no reference model is kept (--set objective.beta=0.001)",
        "the memory changes between steps, not within one",
        "the reflection stands above the question in the user's message, since many templates have no system role",
        "all terms are divided by the number of episodes, whose parts are summed, where the paper counts each part as a sequence: "
        "a factor only",
        "one second attempt per reflection",
    ),
    stages={
        "rollout": stage(Reflect),
        "reward": stage(each_attempt),
        "credit": stage(experience),
        "objective": stage(reinforce_and_keep),
    },
    claim="On sparse-reward grid tasks first attempts succeed more often than under GRPO at equal compute; trying again without a "
    "reflection gains less.",
    examples=(
        ByHand(
            "second attempts: none, failed, right, half right",
            lambda: kept([None, 0.0, 1.0, 0.5]),
            [0, 0, 1, 0.5],
        ),
        ByHand(
            "reflections of two in four episodes, one of which led to success",
            lambda: compared([None, 1.0, 0.0, None], std=True),
            [0, 1 / 1.0002, -1 / 1.0002, 0],
        ),
        Reduction(
            "nobody tries again: GRPO",
            "grpo",
            {"rollout.second": 0.0, "objective.high": 0.2},
            {"objective.mean": "sum"},
        ),
    ),
)
