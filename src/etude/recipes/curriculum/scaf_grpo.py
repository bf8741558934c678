"""Scaf-GRPO: where all attempts fail, the least hint that helps."""

import numpy as np

from etude.credit.group import standardised
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.rollout.scaffold import Scaffold
from etude.settings import stage

RECIPE = Recipe(
    name="scaf_grpo",
    family="curriculum",
    n=181,
    paper=Paper(
        "Scaf-GRPO: Scaffolded Group Relative Policy Optimization for Enhancing LLM Reasoning",
        "2510.19807",
        2025,
    ),
    idea="A task that no attempt solves gives no signal. Once the policy had time to learn by itself, such a task is tried with "
    "hints, from vague to telling. The first hinted attempt that is right takes the place of a failed one in its group.",
    equation="if r_1 = ... = r_G = 0:  y_G <- y ~ pi(. | x, h_l) with the least l that solves x;  then GRPO, with h_l in view for y_G",
    departures=(
        "levels are the task's own hints, where the paper has three tiers of four parts, written by a stronger model",
        "levels are tried one after another and the first that solves is kept: the paper's outcome for fewer tokens",
        "the first W steps are a share of the budget: gather.begin (guess: 0.1; 1 never helps)",
        "the run's reward counts attempts with hints; gather/unhinted is the pass rate without",
        "with gather.prompt=plain a rollout that states the question more than once is trained without the hint only in the first",
        "alone it is trained as GRPO; `topr+scaf_grpo` and the like take credit and loss from the other",
    ),
    stages={"gather": stage(Scaffold)},
    alone=GRPO,
    needs=("hints", "text"),
    claim="On tasks that eight attempts do not solve, hints lift the accuracy without hints where GRPO stays flat.",
    examples=(
        ByHand(
            "a group of 8 of which a hint rescued one",
            lambda: standardised(np.eye(8)[7], 0.0),
            [*[-(7**-0.5)] * 7, 7**0.5],
        ),
        Reduction("nobody is helped: GRPO", "grpo", {"gather.begin": 1.0}),
    ),
)
