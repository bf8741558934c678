"""SPAE: the potential of a step, from how sure and how right an answer forced after it would be."""

import numpy as np

from etude.credit.steps import damping, potential, step_potentials
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.dapo import RECIPE as DAPO
from etude.rollout.early import answered_early
from etude.rollout.table import verdict
from etude.settings import stage

RECIPE = Recipe(
    name="spae",
    family="credit",
    n=23,
    base=DAPO,
    paper=Paper(
        "Step Potential Advantage Estimation: Harnessing Intermediate Confidence and Correctness for Efficient Mathematical Reasoning",
        "2601.03823",
        2026,
    ),
    idea="After each step of its reasoning the model is made to answer at once: how sure it is, and how likely the gold answer, give the step a potential. "
    "Steps that raise the potential are praised. "
    "Steps after it is full, mere checking, count for less.",
    equation="Phi = 1.5 Acc Conf + 0.5 Acc - Conf;  A_t = (r - mean r) f_k + xi g_k, f_k = 1 - alpha (1 - exp(-C_k)), "
    "g_k = exp(dPhi~_k) - mean;  whitened;  DAPO's loss",
    departures=(
        "steps are lines, where the paper ends them at a blank line after a full stop",
        "confidence is read from the drawn tokens' own log-probabilities, which estimate the entropies without bias",
        "guess: gains are scaled and centred over the batch's steps; words after the last probe have g = 0",
        "groups whose outcomes agree are not probed: dynamic sampling drops them",
    ),
    stages={
        "gather": stage(answered_early),
        "reward": stage(verdict),
        "credit": stage(step_potentials),
        "objective": stage(clipped, high=0.28, mean="token"),
    },
    needs=("answer", "text"),
    claim="With alpha above 0 the checking after a found solution gets shorter at equal accuracy.",
    examples=(
        ByHand(
            "sure and right, sure and wrong, unsure and wrong",
            lambda: potential(np.array([1.0, 0, 0]), np.array([1.0, 1, 0])),
            [1, -1, 0],
        ),
        ByHand(
            "solved in the first of three steps",
            lambda: damping(np.array([1.0, 1.0, 0.0]), 0.5, 0.9),
            [1, 1 - 0.5 * (1 - np.exp(-1)), 1 - 0.5 * (1 - np.exp(-2))],
        ),
        Reduction(
            "xi = alpha = 0: DAPO without its std and length penalty",
            "dapo",
            {"credit.xi": 0.0, "credit.alpha": 0.0, "credit.whiten": False},
            {"credit.std": False, "reward.penalty": 0.0},
        ),
    ),
)
