"""Rejection-sampling fine-tuning, also known as expert iteration (arXiv 2308.01825): sample, keep the right answers,
imitate them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate
from etude.fixtures.given import GivenContext, beyond_prompt, example_answers, given_stage
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal


@writes(IMITATION)
def right_answers(
    distinct: Annotated[bool, Setting("train on each different answer to a task once")] = True,
    max_answers: Annotated[int, Setting("most answers per task", "answers", low=1)] = 64,
) -> Credit:
    """Imitation of the sampled tokens of correct episodes, the first `max_answers` of each task."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            kept: list[bytes] = []
            for episode in group.episodes:
                words = episode.tokens[episode.sampled].tobytes()
                if episode.correct and len(kept) < max_answers and not (distinct and words in kept):
                    kept.append(words)
                    signals.append(imitate(episode, episode.sampled))
        return signals

    return credit


def _kept(**settings: object) -> list[int]:
    """Of answers a (right), b (wrong), a (right) and c (right): the numbers of those that are imitated."""
    group = example_answers((1.0, (2,)), (0.0, (3,)), (1.0, (2,)), (1.0, (4,)))
    signals = given_stage(RECIPE, "credit", **settings)([group], GivenContext())
    assert beyond_prompt(signals, IMITATION) == [1.0] * len(signals)
    return [s.episode.index for s in signals]


RECIPE = Recipe(
    name="rft",
    paper=Paper(
        "Scaling Relationship on Learning Mathematical Reasoning with Large Language Models",
        "2308.01825",
        2023,
    ),
    published_lr=2e-5,
    idea="Samples several answers, keeps the right ones, and trains on them as if they were demonstrations. "
    "The sampler is the current policy, so each step is one round of expert iteration. Wrong answers teach nothing.",
    equation="L = - mean_t log pi(y_t), over tokens of distinct correct answers",
    departures=(
        "one round per step, from the current weights, where the paper starts each round from the base model",
    ),
    stages={"credit": stage(right_answers), "objective": stage(cross_entropy)},
    manipulation=(Manipulated("a tenth of the attempts are right", "correct", 0.1),),
    examples=(
        ByHand("a right, b wrong, a and c right: a and c", lambda: _kept(), [0, 3]),
        ByHand("repeats kept", lambda: _kept(distinct=False), [0, 2, 3]),
        ByHand("at most two", lambda: _kept(distinct=False, max_answers=2), [0, 2]),
        OffPolicy(
            "log pi = -1 + ln 2 and -1, whatever they were sampled with",
            ratio=(2.0, 1.0),
            advantage=(0.0, 0.0),
            weights={IMITATION: (1.0, 1.0)},
            loss=((1 - math.log(2)) + 1) / 2,
            gradient=(-1 / 2, -1 / 2),
        ),
    ),
)
