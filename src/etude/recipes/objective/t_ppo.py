"""T-PPO: do not wait for long answers; learn from the part that is there."""

import numpy as np

from etude.credit.baseline import egae, extended
from etude.objective.policy import windowed_with_value
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.ppo import RECIPE as PPO
from etude.rollout.table import optional_verdict
from etude.rollout.window import Unfinished, windowed
from etude.settings import stage

SEEN, NONE, LAST = np.array([0.2, 0.4]), np.zeros(2), np.array([0.0, 1])  # values and rewards of two tokens
RECIPE = Recipe(
    name="t_ppo",
    base=PPO,
    family="objective",
    n=255,
    paper=Paper("Truncated Proximal Policy Optimization", "2506.15050", 2025),
    idea="Each step writes only a window of every answer; what is not finished goes on at the next step, under the newer policy. "
    "The tokens of the window are trained at once, with an advantage that takes the value to stay as it was last seen. "
    "The value itself learns only from answers that have ended.",
    equation="delta_t = r_t + gamma V_{t+1} - V_t, V_n := V_{n-1} if open, 0 if closed;  A_t = sum_k (gamma lambda)^k delta_{t+k}",
    departures=(
        "GUESS: a window of half the longest answer, clip 0.2 / 0.28",
        "open answers are reported with reward 0",
        "a task's attempts go on together: their number falls until all of them are closed, then a new task takes the place",
    ),
    stages={
        "curriculum": stage(Unfinished),
        "gather": stage(windowed),
        "reward": stage(optional_verdict),
        "credit": stage(extended),
        "objective": stage(windowed_with_value),
    },
    needs=("text",),
    confidence="memory",
    claim="Fewer generated-token steps to a target reward than PPO at equal final accuracy.",
    examples=(
        ByHand("open: the last delta is 0", lambda: egae(NONE, SEEN, 1.0, 1.0, False), [0.2, 0]),
        ByHand("closed with reward 1", lambda: egae(LAST, SEEN, 1.0, 1.0, True), [0.8, 0.6]),
        ByHand("lambda = 0: delta_t only", lambda: egae(NONE, SEEN, 0.5, 0.0, False), [0, -0.2]),
        Reduction(
            "a window as long as the answer is PPO",
            "ppo",
            {"gather.window": 1.0, "credit.lam": 1.0, "objective.high": 0.2},
            {"credit.lam": 1.0},
        ),
    ),
)
