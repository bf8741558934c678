"""PPO: a value head on the policy's trunk, generalised advantage estimation, the clipped surrogate.

Schulman et al. (arXiv 1707.06347; GAE: 1506.02438). Credit, `value_baseline` (`etude.credit.baseline`): GAE
over the tokens of an answer, whose reward comes with the last one, whitened over the batch; the returns A_t +
V_t and the values travel along as extras. Objective, `clipped_with_value` (`etude.objective.policy`): the
clipped surrogate plus c times half the clipped squared error of the value. Update: two passes over each
batch.
"""

from types import SimpleNamespace

import numpy as np

from etude.credit.baseline import value_baseline
from etude.fixtures.examples import example_group
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.settings import stage
from etude.types import Array
from etude.update import Update


def credited(**settings: object) -> list[Array]:
    """Advantages and returns that the recipe's credit gives to a right answer of three tokens, V = 0.2, 0.4, 0.9."""
    predicted = SimpleNamespace(rows=lambda signals, read: [np.array([0.2, 0.4, 0.9])])
    credit = RECIPE.stages["credit"].but(**settings).build("credit")
    (signal,) = credit([example_group([1.0], [3])], predicted)
    return [signal.advantage, signal.extras["returns"]]


RECIPE = Recipe(
    name="ppo",
    paper=Paper("Proximal Policy Optimization Algorithms", "1707.06347", 2017),
    idea="A value head predicts the reward from every token on. "
    "A token's advantage is how much better things went than predicted, smoothed by lambda. "
    "Each batch is used twice; the clip keeps the policy near the one that sampled it.",
    equation="delta_t = r_t + gamma V_{t+1} - V_t;  A_t = sum_k (gamma lambda)^k delta_{t+k};  L = clip(A) + c (V - R)^2 / 2",
    departures=("the value head is linear on the policy's last hidden state and starts at 0",),
    stages={
        "credit": stage(value_baseline),
        "objective": stage(clipped_with_value),
        "update": stage(Update, passes=2),
    },
    manipulation=(Manipulated("the learned value moves by 0.05", "value", 0.05, read="range"),),
    examples=(
        ByHand(
            "delta = 0.2, 0.5, 0.1; lambda = 0.95: A_2 = 0.5 + 0.95 x 0.1, A_1 = 0.2 + 0.95 A_2; R = A + V",
            lambda: credited(whiten=False),
            [[0.2 + 0.95 * 0.595, 0.595, 0.1], [0.4 + 0.95 * 0.595, 0.995, 1.0]],
        ),
        ByHand(
            "gamma = lambda = 1: reward minus value, and the reward as return",
            lambda: credited(lam=1.0, whiten=False),
            [[0.8, 0.6, 0.1], [1, 1, 1]],
        ),
        ByHand(
            "gamma = 1/2, lambda = 0: delta_t alone",
            lambda: credited(gamma=0.5, lam=0.0, whiten=False),
            [[0.5 * 0.4 - 0.2, 0.5 * 0.9 - 0.4, 1 - 0.9], [0.2, 0.45, 1]],
        ),
        ByHand(
            "whitened: 0.8, 0.6, 0.1 have mean 0.5 and variance 0.26/3; the returns are left as they are",
            lambda: credited(lam=1.0),
            [[0.3 / (0.26 / 3) ** 0.5, 0.1 / (0.26 / 3) ** 0.5, -0.4 / (0.26 / 3) ** 0.5], [1, 1, 1]],
        ),
        OffPolicy(
            "praise above the clip, within it, below it; blame above, within, below; V = R costs nothing",
            ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            lengths=(1, 5),
            heads={"value": (1.0,) * 6},
            extras={"returns": (1.0,) * 6, "values": (1.0,) * 6},
            loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 6,
            gradient=(0, -1.1 / 6, -0.5 / 6, 1.5 / 6, 0.9 / 6, 0),
        ),
        OffPolicy(
            "the worse of V and V within 0.2 of the old V, at R = 1: 0.9 from 0.5 counts as 0.7; 0.6 as itself; "
            "0.3 from 0.8 as itself, not as 0.6",
            ratio=(1.0, 1.0, 1.0),
            advantage=(0.0, 0.0, 0.0),
            heads={"value": (0.9, 0.6, 0.3)},
            extras={"returns": (1.0, 1.0, 1.0), "values": (0.5, 0.5, 0.8)},
            loss=0.1 * (0.5 * 0.3**2 + 0.5 * 0.4**2 + 0.5 * 0.7**2) / 3,
            gradient=(0, 0, 0),
        ),
        OffPolicy(
            "value_weight 1, unclipped: half the squared error",
            ratio=(1.0,),
            advantage=(1.0,),
            heads={"value": (0.9,)},
            extras={"returns": (1.0,), "values": (0.5,)},
            loss=-1 + 0.5 * 0.1**2,
            gradient=(-1,),
            settings={"objective.value_clip": None, "objective.value_weight": 1.0},
        ),
    ),
)
