"""RAFT (Dong et al., arXiv 2304.06767): of several answers to each question the one with the highest reward is imitated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate
from etude.fixtures.given import GivenContext, example_answers, given_stage
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import stage
from etude.stages import Context, Credit
from etude.types import Group, Signal


@writes(IMITATION)
def highest() -> Credit:
    """Imitation of argmax_i r_i of every group; of equals the first."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        best = [g.episodes[int(np.argmax(g.rewards))] for g in groups if g.episodes]
        return [imitate(episode, episode.sampled) for episode in best]

    return credit


def _chosen(*rewards: float) -> list[int]:
    group = example_answers(*((r, (2,)) for r in rewards))
    return [s.episode.index for s in given_stage(RECIPE, "credit")([group], GivenContext())]


RECIPE: Recipe = Recipe(
    name="raft",
    base=RFT,
    paper=Paper(
        "RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment", "2304.06767", 2023
    ),
    idea="Draws several answers to each question, ranks them by reward, and imitates the best one. It needs no baseline and no ratio. "
    "Where none is good, the least bad one is imitated all the same.",
    equation="L = - mean_t log pi(y*_t), y* = argmax_{y_1..y_K} r(x, y)",
    stages={"credit": stage(highest)},
    departures=(
        "a round is a step, from the last weights, and all questions keep their best answer, whatever its reward",
    ),
    claim="With graded rewards it beats imitation of right answers; with rewards of 0 and 1 it imitates errors where all are wrong.",
    examples=(
        ByHand(
            "the highest, the first of two, the first of none",
            lambda: [_chosen(0.2, 0.9, 0.5), _chosen(0, 1, 1), _chosen(0, 0)],
            [[1], [1], [0]],
        ),
    ),
)
