"""NSR: negative reinforcement alone."""

from dataclasses import replace

from etude.credit.example import credited
from etude.credit.outcome import signed
from etude.objective.policy import clipped
from etude.recipe import ByHand, Reduction
from etude.recipes.objective.w_reinforce import RECIPE as W_REINFORCE
from etude.settings import stage

RECIPE = replace(
    W_REINFORCE,
    name="nsr",
    idea="Trains on wrong answers only, and makes them less likely. The mass that they lose goes to the other tokens in proportion to their probability. "
    "So the model's own beliefs are refined, not replaced.",
    equation="L = token mean over wrong answers of max(rho, 1-e), whose gradient on-policy is grad log pi(y)",
    stages={"credit": stage(signed, right=0.0), "objective": stage(clipped, mean="token")},
    claim="Pass@k at large k stays as high as at the start, because entropy does.",
    examples=(
        ByHand("of right, wrong, right", lambda: credited(signed(0.0), [1, 0, 1]), [-1.0]),
        Reduction("W-REINFORCE with lambda = 0", "w_reinforce", to_settings={"credit.right": 0.0}),
    ),
)
