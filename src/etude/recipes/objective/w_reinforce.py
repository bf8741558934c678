"""W-REINFORCE: right answers count a tenth of wrong ones."""

from etude.credit.example import credited
from etude.credit.outcome import signed
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="w_reinforce",
    family="objective",
    n=134,
    paper=Paper(
        "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning", "2506.01347", 2025
    ),
    idea="A right answer pushes its own tokens up and everything else down; a wrong one pushes its tokens down and hands the mass to what the model believed in already. "
    "The two are told apart, and right answers are given a tenth of the weight. No baseline, no normalisation.",
    equation="A_i = lambda for right, -1 for wrong;  L = token mean of PPO's clip",
    departures=("no entropy bonus (0.001 is the default of the paper's framework)",),
    stages={"credit": stage(signed, right=0.1), "objective": stage(clipped, mean="token")},
    claim="Pass@1 rises as with REINFORCE while pass@k at large k does not fall.",
    examples=(
        ByHand("right, wrong", lambda: credited(signed(0.1), [1, 0]), [0.1, -1.0]),
        Reduction(
            "lambda = 1, summed and on-policy: TOPR, that is REINFORCE with rewards +1 and -1",
            "topr",
            {"credit.right": 1.0, "objective.mean": "sum"},
        ),
    ),
)
