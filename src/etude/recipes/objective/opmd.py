"""OPMD: REC with a quadratic pull in place of the mask."""

from etude.objective.masked_ratio import relative
from etude.recipe import Recipe, Reduction
from etude.recipes.objective.rec import RECIPE as REC
from etude.settings import stage

RECIPE = Recipe(
    name="opmd",
    base=REC,
    family="objective",
    n=112,
    paper=REC.paper,
    idea="Instead of a clip, a quadratic pull on the log-ratio keeps the policy near the one that wrote the data. "
    "Its strength is the temperature of the KL-regularised problem that the loss solves.",
    equation="L = - token mean of [A_i log pi(y_t) - tau (log pi(y_t) - log pi_old(y_t))^2]",
    departures=("GUESS: tau = 0.1; at 1 the pull holds a small model where it was",),
    stages={"objective": stage(relative, mask="off", tau=0.1)},
    claim="On stale data the pull prevents the collapse of unclipped REINFORCE.",
    examples=(
        Reduction(
            "tau = 0, summed and on-policy: REINFORCE",
            "reinforce",
            {"objective.tau": 0.0, "objective.mean": "sum"},
        ),
    ),
)
