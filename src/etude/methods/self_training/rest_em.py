"""ReST-EM (Singh et al., arXiv 2312.06585): sample, keep what is right, train the first weights on it; again with the model that
came of it.

The E-step draws answers from the last round's policy and keeps the right ones, at most ten a problem. The M-step trains the
weights that the run began with, not the last ones, so that rounds do not drift. A step of the run is a round:
`update.passes` and `update.minibatches` say how long its M-step is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.channels import writes
from etude.credit.imitate import IMITATION
from etude.credit.rounds import BEGINNING, START, Anew, begin_round
from etude.fixtures.given import GivenContext, SetBack, example_answers, given_stage
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.imitation.rft import right_answers
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal
from etude.update import Update


@writes(IMITATION)
def rounds_of_right_answers(
    max_answers: Annotated[int, Setting("most answers per task", "answers", low=1)] = 10, anew: Anew = True
) -> Credit:
    """Imitation of distinct right answers, from the first weights in every round."""
    keep = right_answers(True, max_answers)

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        begin_round(context, anew)
        return keep(groups, context)

    return credit


def _rounds(anew: bool) -> list[int]:
    """Of rounds 0, 1 and 2 with three right answers, two of which are alike: signals, and how often weights were put back."""
    learner, found = SetBack(), []
    credit = given_stage(RECIPE, "credit", anew=anew)
    for step in range(3):
        context: Any = GivenContext(step=step, auxiliary={START: None})
        context.learner = learner
        group = example_answers((1.0, (2,)), (1.0, (2,)), (1.0, (3,)), (0.0, (4,)))
        found.append(len(credit([group], context)))
    return [*found, learner.back]


RECIPE: Recipe = Recipe(
    name="rest_em",
    base=RFT,
    paper=Paper(
        "Beyond Human Data: Scaling Self-Training for Problem-Solving with Language Models",
        "2312.06585",
        2023,
    ),
    idea="Draws answers, keeps the right ones and trains on them, round after round. Every round trains the model that it all began "
    "with, on what the newest model could answer. So it gains problems without drifting far.",
    equation="E: D = {(x, y) : y ~ pi_{k-1}, right};  M: theta_k = argmin from theta_0 of - sum_D log pi(y | x)",
    stages={"credit": stage(rounds_of_right_answers), "update": stage(Update, passes=2, minibatches=4)},
    auxiliary=BEGINNING,
    departures=(
        "a round is a step of the run: run.tasks_per_step tasks, and update.passes x update.minibatches updates of the M-step",
        "two passes of four updates by default; the paper trains until validation loss rises",
    ),
    claim="More rounds help at first; from the first weights it overfits later than from the last ones.",
    unchecked="every round imitates the right answers of the one before",
    examples=(
        ByHand(
            "two distinct right answers; put back before rounds 1 and 2", lambda: _rounds(True), [2, 2, 2, 2]
        ),
        ByHand("from the last weights: never put back", lambda: _rounds(False), [2, 2, 2, 0]),
        Reduction(
            "one pass, all answers, from the last weights: rft",
            "rft",
            {"credit.max_answers": 64, "credit.anew": False},
        ),
    ),
)
