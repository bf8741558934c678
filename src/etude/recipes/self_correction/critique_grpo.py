"""Critique-GRPO: of the answers refined after a critique, one joins the group, under the bare question."""

import torch

from etude.credit.second import mixed_group, with_a_refinement
from etude.objective.attempts import clipless_and_shaped, shaped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.second import Refine
from etude.settings import stage

RECIPE = Recipe(
    name="critique_grpo",
    family="self_correction",
    n=147,
    paper=Paper(
        "Critique-GRPO: Advancing LLM Reasoning with Natural Language and Numerical Feedback",
        "2506.03106",
        2025,
    ),
    idea="Every answer is criticised and refined with the critique in view. "
    "The best refinement takes the place of one answer in the group, as if it had been given to the bare question. "
    "So groups in which every answer failed still have something to learn from, and rare words of the refinement learn fastest.",
    equation="A_i = r_i - mean r over n - 1 answers and one refinement;  L = - 1/(n L) sum A rho, and - A f(pi), f(p) = p / (p + 0.1), "
    "on the refinement",
    departures=(
        "the critique is the task's own feedback by default, which is the paper's simple critique (feedback=unary) or its variant with the "
        "gold answer (feedback=full); --set rollout.critic=teacher or remote has another model write it",
        "GUESS: the refinement takes the place of the last answer of the group",
        "no entropy bonus (0.001 in the paper); the divisor L is 64 tokens by default",
    ),
    stages={
        "rollout": stage(Refine, critic="feedback", always=True),
        "reward": stage(each_attempt),
        "credit": stage(with_a_refinement),
        "objective": stage(clipless_and_shaped),
    },
    claim="Where most groups are all wrong, more groups carry signal and accuracy exceeds Dr. GRPO's; feedback=full is no worse than unary.",
    examples=(
        ByHand(
            "four wrong, the second refinement right",
            lambda: mixed_group([0, 0, 0, 0], [0, 1, 0, 1])[0],
            [-0.25, -0.25, -0.25, 0],
        ),
        ByHand("the refinement itself", lambda: float(mixed_group([0, 0, 0, 0], [0, 1, 0, 1])[1] or 0), 0.75),
        ByHand("f(0.1), f(0.4)", lambda: shaped(torch.tensor([0.1, 0.4]), 0.1), [0.5, 0.8]),
        Reduction("without refinements: Dr. GRPO, on-policy", "dr_grpo", {"rollout.second": 0.0}),
    ),
)
