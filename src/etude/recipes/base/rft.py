"""Rejection-sampling fine-tuning, also known as expert iteration: imitate your own right answers."""

import numpy as np

from etude.credit.imitate import right_answers
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import stage
from etude.types import Episode, Group, Span, Task, Verdict


def _kept(distinct: bool = True) -> list[bool]:
    """Which of three answers (right, wrong, the first again) are trained on."""
    task = Task((), lambda text: Verdict(0, False))
    answers = [([1, 2], True), ([3], False), ([1, 2], True)]
    episodes = [
        Episode(
            task,
            (Span("assistant", np.array(tokens), True, np.zeros(len(tokens))),),
            index=i,
            verdicts=(Verdict(float(right), right),),
        )
        for i, (tokens, right) in enumerate(answers)
    ]
    signals = right_answers(distinct)([Group(task, tuple(episodes))])
    return [any(s.episode is e for s in signals) for e in episodes]


RECIPE = Recipe(
    name="rft",
    paper=Paper(
        "Scaling Relationship on Learning Mathematical Reasoning with Large Language Models",
        "2308.01825",
        2023,
    ),
    idea="Samples several answers, keeps the right ones, and trains on them as if they were demonstrations. "
    "The sampler is the current policy, so each step is one round of expert iteration. Wrong answers teach nothing.",
    equation="L = - mean_t log pi(y_t), over tokens of distinct correct answers",
    departures=(
        "one round per step, from the current weights, where the paper starts each round from the base model",
    ),
    stages={"credit": stage(right_answers), "objective": stage(cross_entropy)},
    examples=(
        ByHand("right, wrong, the same right again", _kept, [True, False, False]),
        ByHand("repeats kept", lambda: _kept(distinct=False), [True, False, True]),
    ),
)
