"""UFO: "try again" is all that a wrong answer hears, and later success is worth less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.baseline import value_baseline
from etude.curriculum.filter import Filter
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import rewards_of
from etude.rollout.attempts import notes_of
from etude.rollout.basic import retry
from etude.settings import Setting, stage
from etude.testing.examples import example_group
from etude.types import Episode, Group


def decayed(turn: int, decay: float) -> float:
    """decay^turn for success at `turn`, counted from 0 (UFO)."""
    return decay**turn


def repeated(answers: list[str | None]) -> float:
    """1 - E/N: the share of the N answers found that had been given before; 0 where none was found."""
    valid = [a for a in answers if a is not None]
    return 1 - len(set(valid)) / len(valid) if valid else 0.0


def turn_decay(
    decay: Annotated[float, Setting("factor for every turn that success came later", low=0, high=1)] = 0.5,
    repeat: Annotated[float, Setting("punishment of repeated answers, at most", low=0, high=10)] = 0.5,
    malformed: Annotated[
        float, Setting("punishment where the last reply holds no answer", low=0, high=10)
    ] = 0.1,
):
    """decay^t for an answer that is right at turn t, minus repeat x (1 - E/N) for E different among N answers,
    minus `malformed` (UFO, arXiv 2507.14295)."""

    def reward(episode: Episode) -> dict[str, float]:
        rewards, answers = rewards_of(episode), notes_of(episode, "answers")
        won = rewards[-1] * decayed(len(rewards) - 1, decay)
        loops = repeat * repeated(answers)
        form = malformed if answers and answers[-1] is None else 0.0
        return {"reward": won - loops - form, "won": won, "repeated": -loops, "first": rewards[0]}

    return reward


def most_varied(
    share: Annotated[float, Setting("share of the drawn groups that is kept", low=0.01, high=1)] = 0.25,
) -> Filter:
    """The groups whose rewards vary most (standard deviation), at least one; the loop draws others instead
    (UFO, arXiv 2507.14295)."""

    def filter(groups: Sequence[Group], context: Any = None) -> list[Group]:
        tried = [g for g in groups if g.episodes]
        spread = np.array([g.rewards.std() for g in tried])
        kept = np.argsort(-spread, kind="stable")[: max(1, round(share * len(tried)))]
        return [tried[i] for i in sorted(kept)]

    return filter


RECIPE = Recipe(
    name="ufo",
    base=PPO,
    n=277,
    paper=Paper('A Simple "Try Again" Can Elicit Multi-Turn LLM Reasoning', "2507.14295", 2025),
    idea="The model answers until it is right or out of turns, and hears nothing but that it was wrong. "
    "Success counts half as much with every turn that it came later, and repeating an answer is punished. "
    "A model trained on single turns repeats itself; this one learns to try something else.",
    equation="r = gamma^t 1[right at turn t] - lambda (1 - E/N) - 0.1 1[no answer found];  PPO with GAE(1, 1) over all replies",
    departures=(
        "the KL of the released settings (0.001) is off, so that no reference model is kept",
        "the punishment of a malformed answer looks at the last reply only",
    ),
    stages={
        "rollout": stage(retry, attempts=5, told="Incorrect. Please think again.", repeat=True),
        "reward": stage(turn_decay),
        "filter": stage(most_varied),
        "credit": stage(value_baseline, lam=1.0),
        "objective": stage(clipped_with_value, clip_high=0.28),
    },
    claim="Trained on single turns a model repeats its wrong answer; this one raises success within five turns and the share "
    "of different answers, at equal accuracy of the first.",
    examples=(
        ByHand(
            "right at once, at the second, at the third turn",
            lambda: [decayed(t, 0.5) for t in range(3)],
            [1, 0.5, 0.25],
        ),
        ByHand(
            "three answers, two of them alike, one not found", lambda: repeated(["4", "5", "4", None]), 1 / 3
        ),
        ByHand(
            "a quarter of four groups: the one with the widest spread",
            lambda: (
                most_varied(0.25)([example_group([r, 1 - r]) for r in (0.5, 1, 0.6, 0.4)], None)[0].rewards
            ),
            [1, 0],
        ),
        Reduction(
            "one turn, nothing punished, every group: PPO",
            "ppo",
            {"rollout.attempts": 1, "reward.malformed": 0.0, "filter.share": 1.0, "objective.clip_high": 0.2},
            {"credit.lam": 1.0},
        ),
    ),
)
