"""HPT (arXiv 2509.04419): imitation and reinforcement are one gradient estimator with different masks and reference
probabilities, so each task chooses: practise what some attempt solves, imitate what none does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.group import centred, each
from etude.credit.imitate import IMITATION, shown
from etude.fixtures.examples import EXAMPLE_TASK
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    beyond_prompt,
    example_answers,
    example_demonstration,
    example_loss,
    given_stage,
)
from etude.objective.hybrid import practise_and_imitate
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.demonstrations import demonstration_and_attempts
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Message, Signal


@writes("policy", IMITATION)
def gated(
    gate: Annotated[
        float, Setting("share of right attempts up to which a task is imitated", low=-1, high=1)
    ] = 0.0,
) -> Credit:
    """(a, b) = (1, 0), that is A_i = r_i - mean r, for tasks whose share of right attempts lies above the gate;
    (0, 1), the demonstration and no attempt, for the others and for those without attempts."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        practised, imitated = [], []
        for group in groups:
            right = [e.correct for e in group.episodes]
            if right and np.mean(right) > gate:
                practised.append(group)
            elif right or not group.failed:  # where every attempt broke, nothing is known of the task
                imitated.append(group)
        return each(centred)(practised, context) + shown(imitated)

    return credit


def _rows(*rewards: float, gate: float = 0.0) -> list[list[float]]:
    """Advantages and imitation weights where attempts with these rewards stand beside a demonstration of 2 tokens."""
    group = example_answers(*((r, (2,)) for r in rewards), demonstrations=[example_demonstration((3, 4))])
    signals = given_stage(RECIPE, "credit", gate=gate)([group], GivenContext())
    return [beyond_prompt(signals, name) for name in ("advantage", IMITATION)]


def _loss() -> float:
    """Of four attempts at one task, the first right and three times as likely by now, and of the demonstration of a task
    that no attempt solved, of log-probability -2; all of one token, L = 1."""
    solved = example_answers((1.0, (2,)), *[(0.0, (3,))] * 3)
    hopeless = replace(EXAMPLE_TASK, prompt=(Message("user", "another"),))
    worked = replace(example_demonstration((4,)), task=hopeless)
    failed = replace(example_answers((0.0, (5,)), demonstrations=[worked]), task=hopeless)
    signals = given_stage(RECIPE, "credit")([solved, failed], GivenContext())
    model = GivenModel(logp=[-1 + math.log(3), -1.0, -1.0, -1.0, -2.0])
    return example_loss(
        given_stage(RECIPE, "objective", length_divisor=1.0, entropy_weight=0.0), signals, model
    )


RECIPE = Recipe(
    name="hpt",
    paper=Paper("Towards a Unified View of Large Language Model Post-Training", "2509.04419", 2025),
    published_lr=5e-6,
    idea="Imitation and reinforcement are one gradient estimator with different masks and reference probabilities. "
    "So each task may choose: tasks that some attempt solves are practised, the others are imitated. "
    "As the model gets better, imitation fades by itself.",
    equation="L = mean over tasks of a L_RL + b c L_SFT, (a, b) = (1, 0) if the share of right attempts > gate, else (0, 1);  "
    "L_RL = - sum_i sum_t rho (r_i - mean r) / L,  L_SFT = - mean_t log pi(y*_t)",
    departures=(
        "the divisor L of the RL loss is 64 tokens by default, where the paper has 8192",
        "imitation weighs as much as the share of tasks that are imitated; the released code adds the attempts of a "
        "micro-batch up in the same way, but takes one mean over its demonstrations: the same where it holds one, less than "
        "here where it holds several",
    ),
    stages={
        "group_rollout": stage(demonstration_and_attempts),
        "credit": stage(gated),
        "objective": stage(practise_and_imitate),
    },
    needs=("answer",),
    claim="From a weak base HPT solves more tasks than SFT followed by RL at equal steps, and its share of imitation falls by itself.",
    manipulation=(
        Manipulated("a tenth of the tasks are imitated", "unsolved", 0.1),
        Manipulated("a tenth of the tasks are practised", "unsolved", at_most=0.9),
    ),
    examples=(
        ByHand("1 of 2 right: practised", lambda: _rows(1.0, 0.0), [[0.5, -0.5], [0, 0]]),
        ByHand("none of 2 right: imitated", lambda: _rows(0.0, 0.0), [[0, 0], [1, 1]]),
        ByHand(
            "1 of 2 right at a gate of 1/2: imitated", lambda: _rows(1.0, 0.0, gate=0.5), [[0, 0], [1, 1]]
        ),
        Credited("without a demonstration nothing is left to imitate", [[1, 0], [0, 0]], [[0.5, -0.5], []]),
        # Two tasks. Practice: -(3 - 1/2) / 2. Imitation: 1/2 x (1 - ln 2 + 1) / 2. Entropy: -(0.2 + 0.4 + 1 + 3) / 4 / 10.
        OffPolicy(
            "ratios of 3 and 1/2 unclipped, half an imitation, a tenth of the entropy",
            ratio=(3.0, 0.5, 2.0, 1.0),
            advantage=(1.0, -1.0, 0.0, 0.0),
            lengths=(2, 2),
            weights={"policy": (1, 1, 0, 0), IMITATION: (0, 0, 1, 1)},
            entropy=(0.2, 0.4, 1.0, 3.0),
            loss=-(3 - 0.5) / 2 / 2 + 0.5 * (2 - math.log(2)) / 2 / 2 - 0.1 * 4.6 / 4,
            gradient=(-3 / 2 / 2, 0.5 / 2 / 2, -0.25 / 2, -0.25 / 2),
            settings={
                "objective.length_divisor": 2.0,
                "objective.imitation_weight": 0.5,
                "objective.entropy_weight": 0.1,
            },
        ),
        OffPolicy(
            "of four tasks one is imitated: a quarter of the loss, whatever the length of what it is shown",
            ratio=(1.0, 1.0, 1.0, 1.0, 1.0),
            advantage=(0.5, -0.5, 0.5, 0.0, 0.0),
            lengths=(1, 1, 1, 2),
            weights={"policy": (1, 1, 1, 0, 0), IMITATION: (0, 0, 0, 1, 1)},
            entropy=(0.0, 0.0, 0.0, 0.0, 0.0),
            loss=-0.5 / 8 / 4 + 1 / 4,
            gradient=(-0.5 / 8 / 4, 0.5 / 8 / 4, -0.5 / 8 / 4, -1 / 2 / 4, -1 / 2 / 4),
            settings={"objective.length_divisor": 8.0},
        ),
        ByHand(
            "two tasks: the attempts at one are summed, -(3 x 3/4 - 3 x 1/4), the other's demonstration costs 2",
            _loss,
            (-1.5 + 2) / 2,
        ),
        Reduction(
            "gate below 0: Dr. GRPO, on-policy, summed over the attempts at a task (4) where that takes their mean",
            "dr_grpo",
            {"credit.gate": -1.0, "objective.entropy_weight": 0.0},
            scale=4.0,
        ),
        Reduction("gate 1: SFT", "sft", {"credit.gate": 1.0, "objective.entropy_weight": 0.0}),
    ),
)
