"""Sharpening (Huang et al., arXiv 2412.01951): a model learns to give its own likeliest answers.

The reward of an answer is the log-probability of all of it under the weights that the run began with: r(y | x) = log pi_0(y | x).
Of N answers the one of the highest reward is imitated (best of N, made cheap). Nobody says what is right: it helps exactly
where what is likely is right more often than what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etude.channels import writes
from etude.credit.group import constant
from etude.credit.imitate import IMITATION, imitate
from etude.fixtures.given import GivenContext, GivenModel, example_answers, given_stage
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe
from etude.rollout.group_rollout import optional_verdict
from etude.rollout.unjudged import unjudged
from etude.settings import stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

FIRST = "reference"


@writes(IMITATION)
def likeliest() -> Credit:
    """Imitation of argmax_i log pi_0(y_i | x) of every group."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        asked = [constant(e, 0.0) for g in groups for e in g.episodes]
        rewards = iter(
            [float(s.extras[FIRST][s.episode.sampled].sum()) for s in context.with_logp(asked, FIRST)]
        )
        best = []
        for group in (g for g in groups if g.episodes):
            mine = [next(rewards) for _ in group.episodes]
            best.append(group.episodes[int(np.argmax(mine))])
        return [imitate(episode, episode.sampled) for episode in best]

    return credit


def _chosen() -> list[int]:
    """Answers of one token at -2, of two at -1/2 each and of three at -1 each: the sums are -2, -1 and -3."""
    group = example_answers((0.0, (2,)), (0.0, (3, 4)), (0.0, (5, 6, 7)))
    model = GivenModel(logp=(-2.0, -0.5, -0.5, -1.0, -1.0, -1.0))
    signals = given_stage(RECIPE, "credit")([group], GivenContext(auxiliary={FIRST: model}))
    return [s.episode.index for s in signals]


RECIPE: Recipe = Recipe(
    name="sharpening",
    base=RFT,
    paper=Paper("Self-Improvement in Language Models: The Sharpening Mechanism", "2412.01951", 2024),
    idea="Draws several answers, asks the model that it began as which is likeliest, and imitates that one. So what takes many samples "
    "and a choice is learnt into one. Without labels it can only bring out what the model believes already.",
    equation="r(y | x) = log pi_0(y | x);  L = - mean_t log pi(y*_t), y* = argmax_{y_1..y_N} r",
    stages={"rollout": stage(unjudged), "reward": stage(optional_verdict), "credit": stage(likeliest)},
    auxiliary={FIRST: AuxiliaryModel("start")},
    needs=("text",),
    defaults={"unlabelled": True},
    departures=(
        "answers are drawn from the policy as it is now; the paper draws all of them from the first weights",
        "the paper's second form, by reinforcement with a KL to the first weights, is not built here",
    ),
    claim="Accuracy rises where right answers are likelier than wrong ones, and only there.",
    examples=(ByHand("the likeliest as a whole", _chosen, [1]),),
)
