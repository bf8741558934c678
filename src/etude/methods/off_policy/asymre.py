"""AsymRE: a baseline a little below the mean."""

from etude.credit.normalise import balanced_mean
from etude.methods.off_policy.rec import REC
from etude.objective.masked_ratio import relative
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage
from etude.testing.examples import example_advantages

RECIPE = Recipe(
    name="asymre",
    base=REC,
    n=112,
    paper=Paper(
        "Asymmetric REINFORCE for off-Policy Reinforcement Learning: Balancing positive and negative rewards",
        "2506.20520",
        2025,
    ),
    idea="A baseline a little below the group's mean praises every answer a little more. "
    "Off-policy that favours what is good over what is bad, as imitation of all samples would. No ratio is needed.",
    equation="A_i = r_i - (mean r + dV), dV = -0.1;  L = - token mean of A_i log pi(y_t)",
    stages={"credit": stage(balanced_mean, shift=-0.1), "objective": stage(relative, mask="off")},
    claim="On stale data a baseline below the mean is stable where one at or above the mean collapses.",
    examples=(
        ByHand("right, wrong", lambda: example_advantages(balanced_mean(-0.1), [1, 0]), [0.6, -0.4]),
        Reduction(
            "dV = 0, summed and on-policy: REINFORCE",
            "reinforce",
            {"credit.shift": 0.0, "objective.mean": "sum"},
        ),
    ),
)
