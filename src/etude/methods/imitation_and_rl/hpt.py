"""HPT: per task, practise what sometimes succeeds and imitate what never does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.credit.group import centred, each
from etude.credit.hybrid import practised
from etude.credit.imitate import shown
from etude.objective.hybrid import practise_and_imitate
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.demonstrations import beside
from etude.settings import Setting, stage
from etude.types import Group, Signal


def gated(
    gate: Annotated[
        float, Setting("share of right attempts up to which a task is imitated", low=-1, high=1)
    ] = 0.0,
):
    """A_i = r_i - mean r for tasks above the gate; the demonstration, and no attempt, for the others and for those
    that nobody attempted (HPT, arXiv 2509.04419)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        sides: dict[bool, list[Group]] = {True: [], False: []}
        for group in groups:
            right = [e.correct for e in group.episodes]
            if right or not group.failed:  # where every attempt broke, nothing is known of the task
                sides[bool(right) and practised(right, gate)].append(group)
        return each(centred)(sides[True], context) + shown(sides[False])

    return credit


RECIPE = Recipe(
    name="hpt",
    n=185,
    paper=Paper("Towards a Unified View of Large Language Model Post-Training", "2509.04419", 2025),
    idea="Imitation and reinforcement are one gradient estimator with different masks and reference probabilities. "
    "So each task may choose: tasks that some attempt solves are practised, the others are imitated. "
    "As the model gets better, imitation fades by itself.",
    equation="L = a L_RL + b c L_SFT, (a, b) = (1, 0) if the share of right attempts > gate, else (0, 1);  "
    "L_RL = - sum rho (r - mean r) / (G L)",
    departures=("the divisor L of the RL loss is 64 tokens by default, where the paper has 8192",),
    stages={"group_rollout": stage(beside), "credit": stage(gated), "objective": stage(practise_and_imitate)},
    needs=("answer",),
    claim="From a weak base HPT solves more tasks than SFT followed by RL at equal steps, and its share of imitation falls by itself.",
    examples=(
        ByHand(
            "0 of 8, 1 of 8 and 2 of 8 right, at gates 0 and 1/4",
            lambda: [practised([i < k for i in range(8)], gate) for gate in (0.0, 0.25) for k in (0, 1, 2)],
            [False, True, True, False, False, False],
        ),
        Reduction(
            "gate below 0: Dr. GRPO, on-policy", "dr_grpo", {"credit.gate": -1.0, "objective.entropy": 0.0}
        ),
        Reduction("gate 1: SFT", "sft", {"credit.gate": 1.0, "objective.entropy": 0.0}),
    ),
)
