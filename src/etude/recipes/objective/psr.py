"""PSR: positive reinforcement alone."""

from dataclasses import replace

from etude.credit.example import credited
from etude.credit.outcome import signed
from etude.objective.policy import clipped
from etude.recipe import ByHand, Reduction
from etude.recipes.objective.w_reinforce import RECIPE as W_REINFORCE
from etude.settings import stage

RECIPE = replace(
    W_REINFORCE,
    name="psr",
    idea="Trains on right answers only, and makes them likelier. That sharpens the distribution around what already worked. "
    "It is the other half of REINFORCE.",
    equation="L = - token mean over right answers of min(rho, 1+e)",
    stages={"credit": stage(signed, wrong=0.0), "objective": stage(clipped, mean="token")},
    claim="Pass@1 rises and pass@k at large k falls.",
    examples=(
        ByHand("of right, wrong, right", lambda: credited(signed(wrong=0.0), [1, 0, 1]), [1.0, 1.0]),
        Reduction(
            "on-policy it is rejection-sampling fine-tuning", "rft", to_settings={"credit.distinct": False}
        ),
    ),
)
