"""TTRL, test-time reinforcement learning (Zuo et al., arXiv 2504.16084): the majority's answer is taken for the label.

Several answers to one question are drawn; what most of them say is the label, and an answer that says the same is rewarded. No
gold answer and no checker is there in training. It learns to do at once what a vote does with many samples, and it can
collapse: agreement is rewarded whether it is right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from etude.assembly import build
from etude.fixtures.unjudged import answers_given
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.group_rollout import optional_verdict
from etude.rollout.unjudged import unjudged, voted
from etude.settings import stage


def _rewards(*answers: str) -> Sequence[float]:
    """What the recipe gives to answers of one group."""
    return answers_given(build(RECIPE)[1], answers)


RECIPE: Recipe = Recipe(
    name="ttrl",
    base=GRPO,
    paper=Paper("TTRL: Test-Time Reinforcement Learning", "2504.16084", 2025),
    idea="Takes the answer that most samples give for the right one, and rewards those that give it. Nobody has to know the answer, "
    "so it can train on the very questions that it is asked. Where the majority is wrong, it learns the error.",
    equation="r_i = 1[a_i = mode(a_1..a_G)];  otherwise as GRPO",
    stages={
        "rollout": stage(unjudged),
        "group_rollout": stage(voted),
        "reward": stage(optional_verdict),
    },
    needs=("text",),
    defaults={"unlabelled": True},
    departures=(
        "votes and learns from the same samples; the release votes among 64 and trains on 32 of them",
        "the share that is right in a step's metrics is the share that agrees with the vote",
    ),
    claim="Without labels it reaches the accuracy of the vote with single answers; where votes are mostly wrong it falls.",
    examples=(
        ByHand("7, 5, 7: the sevens", lambda: _rewards("7", "5", "7"), [1, 0, 1]),
        ByHand(
            "one each: the first; nothing said: nobody",
            lambda: [*_rewards("5", "7"), *_rewards("", "")],
            [1, 0, 0, 0],
        ),
    ),
)
