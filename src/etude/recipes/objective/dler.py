"""DLER: the bluntest length penalty, with the optimisation mended around it."""

from etude.credit.example import attempt, group
from etude.credit.normalise import normalised
from etude.curriculum.gate import mixed_only, shortened
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.shaping import paid_within
from etude.settings import stage

RECIPE = Recipe(
    name="dler",
    family="objective",
    n=45,
    paper=Paper(
        "DLER: Doing Length pEnalty Right - Incentivizing More Intelligence per Token via RL",
        "2510.15110",
        2025,
    ),
    idea="An answer that runs into the length limit earns nothing, whatever it says. "
    "That makes rewards noisy, so advantages are normalised over the batch instead of the group. "
    "Groups that are all cut off or all paid are drawn anew.",
    equation="R'_i = R_i [|y_i| <= L];  A_i = R'_i - mean_group R', whitened over the tokens of the batch;  L = token mean of PPO's clip",
    departures=(
        "the KL to the starting policy (0.0005 in the paper) is off: --set objective.beta=0.0005",
        "the merging of a part of the weight change into the start is left out",
    ),
    stages={
        "reward": stage(paid_within),
        "select": stage(mixed_only),
        "credit": stage(normalised),
        "objective": stage(clipped, high=0.28, mean="token", dual=10.0),
    },
    claim="With the same hard limit, batch normalisation keeps a higher accuracy than group normalisation.",
    examples=(
        ByHand("4 of 6 tokens allowed", lambda: shortened(group([1, 1], lengths=[4, 5]), 4).rewards, [1, 0]),
        ByHand("the verdict stays", lambda: paid_within(4)(attempt(1.0, range(5)))["verdict"], 1),
        Reduction(
            "no limit, the group's own std and on-policy: GRPO with a token mean",
            "grpo",
            {"reward.length": 1 << 20, "credit.over": "group"},
            {"objective.mean": "token"},
        ),
    ),
)
