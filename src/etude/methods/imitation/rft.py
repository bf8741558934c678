"""Rejection-sampling fine-tuning, also known as expert iteration: imitate your own right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.credit.imitate import imitate
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import Setting, stage
from etude.testing.examples import example_group
from etude.types import Group, Signal


def right_answers(
    distinct: Annotated[bool, Setting("train on each different answer to a task once")] = True,
    most: Annotated[int, Setting("most answers per task", "answers", low=1)] = 64,
):
    """The sampled tokens of correct episodes."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            seen: set[bytes] = set()
            for episode in group.episodes:
                words = episode.tokens[episode.sampled].tobytes()
                if not episode.correct or len(seen) >= most or (distinct and words in seen):
                    continue
                seen.add(words if distinct else words + bytes([len(seen) % 256]))
                signals.append(imitate(episode, episode.sampled))
        return signals

    return credit


THREE = [example_group([1, 0, 1], [2, 1, 2])]  # right, wrong, and the first again
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
        ByHand(
            "right, wrong, the same again", lambda: [s.episode.index for s in right_answers()(THREE)], [0]
        ),
        ByHand("repeats kept", lambda: [s.episode.index for s in right_answers(False)(THREE)], [0, 2]),
    ),
)
