"""Hypervolume-guided rewards: a step counts more when it reaches what no step reached before."""

from etude.credit.aspects import Front, hypervolume
from etude.objective.policy import clipped
from etude.recipe import ByHand, Recipe, Reduction
from etude.recipes.objective.dynamic_rewards import MEASURED
from etude.recipes.objective.dynamic_rewards import RECIPE as DYNAMIC
from etude.reward.aspects import aspects
from etude.settings import stage

RECIPE = Recipe(
    name="hypervolume_rewards",
    family="objective",
    n=96,
    paper=DYNAMIC.paper,
    idea="A step counts more when the policy has just reached a combination of rewards that no earlier policy had. "
    "What it adds to the volume under the front of all combinations so far sets a factor on the reward. The weights themselves stay.",
    equation="A_i = (0.5 + 1.5 tanh h)(r_i - mean r), h = HV(front + point) - HV(front)",
    departures=(
        MEASURED,
        "the point is the mean over the step's own attempts, which the policy before the update wrote, instead of a validation set",
        "no division by a standard deviation, in which the factor would cancel",
    ),
    stages={"reward": stage(aspects), "credit": stage(Front), "objective": stage(clipped, mean="token")},
    claim="On the front of accuracy against length it dominates a constant factor.",
    examples=(
        ByHand("two boxes that overlap: 2x1 + 1x3 - 1x1", lambda: hypervolume([[2, 1], [1, 3]], [0, 0]), 4.0),
        ByHand("in three dimensions", lambda: hypervolume([[1, 1, 2], [2, 2, 1]], [0, 0, 0]), 5.0),
        Reduction(
            "a constant factor and a single reward, summed: REINFORCE",
            "reinforce",
            {"credit.names": "accuracy", "credit.base": 1.0, "credit.gain": 0.0, "objective.mean": "sum"},
        ),
    ),
)
