"""UFO: "try again" is all that a wrong answer hears, and later success is worth less.

The model answers until it is right or out of turns, in one conversation. Success at turn t is worth gamma^t, and
repeated answers are punished, so that it learns to try something else. PPO with a value head over all replies. A Simple
"Try Again" Can Elicit Multi-Turn LLM Reasoning, arXiv 2507.14295."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.assembly import build
from etude.credit.baseline import value_baseline
from etude.fixtures.attempts import example_attempts
from etude.fixtures.examples import example_group
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import FIRST, FormPenalty, rewards_of
from etude.rollout.attempts import ANSWERS, notes_of
from etude.rollout.basic import retry
from etude.settings import Setting, stage
from etude.stages import Context, Reward
from etude.types import Episode, Group

TRY_AGAIN = "Incorrect. Please think again."


def turn_decay(
    turn_factor: Annotated[
        float, Setting("gamma: factor for every turn that success came later", low=0, high=1)
    ] = 0.5,
    repeat_penalty: Annotated[
        float, Setting("lambda: punishment of repeated answers, at most", low=0, high=10)
    ] = 0.5,
    form_penalty: FormPenalty = 0.1,
) -> Reward:
    """gamma^t for an answer that is right at turn t, from 0; minus lambda (1 - E/N) where the N answers found are E
    different ones; minus `form_penalty` where the last reply holds no answer."""

    def reward(episode: Episode) -> dict[str, float]:
        rewards, answers = rewards_of(episode), notes_of(episode, ANSWERS)
        won = rewards[-1] * turn_factor ** (len(rewards) - 1)
        found = [a for a in answers if a is not None]
        repeated = repeat_penalty * (1 - len(set(found)) / len(found)) if found else 0.0
        form = form_penalty if answers and answers[-1] is None else 0.0
        return {"reward": won - repeated - form, "won": won, "repeated": -repeated, FIRST: rewards[0]}

    return reward


class MostVaried:
    """Of the groups that a step has drawn, those whose rewards vary most (standard deviation), at least one. Nothing is
    drawn in place of the others: eight are paid for and two trained."""

    redraws = False

    def __init__(
        self,
        keep_share: Annotated[
            float, Setting("share of the drawn groups that is kept", low=0.01, high=1)
        ] = 0.25,
    ) -> None:
        self.keep_share = keep_share

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Group]:
        tried = [g for g in groups if g.episodes]
        spread = np.array([g.rewards.std() for g in tried])
        kept = np.argsort(-spread, kind="stable")[: max(1, int(self.keep_share * len(tried)))]
        return [tried[i] for i in sorted(kept)]


def _reward(*rewards: float, answers: Sequence[str | None]) -> float:
    _, stages = build(RECIPE)
    return float(stages["reward"](example_attempts(*rewards, answers=answers))["reward"])


def _kept(*rewards: Sequence[float]) -> list[float]:
    """The first reward of each group that is kept."""
    _, stages = build(RECIPE)
    return [float(g.rewards[0]) for g in stages["filter"]([example_group(r) for r in rewards], None)]


RECIPE = Recipe(
    name="ufo",
    base=PPO,
    paper=Paper('A Simple "Try Again" Can Elicit Multi-Turn LLM Reasoning', "2507.14295", 2025),
    idea="The model answers until it is right or out of turns, and hears nothing but that it was wrong. "
    "Success counts half as much with every turn that it came later, and repeating an answer is punished. "
    "A model trained on single turns repeats itself; this one learns to try something else. "
    "Of the groups that a step has drawn the quarter whose rewards vary most is trained on.",
    equation="r = gamma^t 1[right at turn t] - lambda (1 - E/N) - 0.1 1[no answer found];  PPO with GAE(1, 1) over all replies",
    departures=(
        "the KL and the entropy bonus of the released settings (0.001 each) are off, so that no reference model is kept",
        "the punishment of a malformed answer looks at the last reply only, where the release punishes every malformed reply; and such "
        "a reply counts as a turn in gamma^t, where the release does not count it",
        "the release shows the reward of a turn, 0, beside its words; here only the words are shown",
    ),
    stages={
        "rollout": stage(retry, attempts=5, told=TRY_AGAIN),
        "reward": stage(turn_decay),
        "filter": stage(MostVaried),
        "credit": stage(value_baseline, lam=1.0),
        "objective": stage(clipped_with_value, clip_high=0.28),
    },
    claim="Trained on single turns a model repeats its wrong answer; this one raises success within five turns and the share "
    "of different answers, at equal accuracy of the first.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "right at once, at the second, at the third turn",
            lambda: [
                _reward(1, answers="7"),
                _reward(0, 1, answers="67"),
                _reward(0, 0, 1, answers="567"),
            ],
            [1, 0.5, 0.25],
        ),
        ByHand(
            "never right: two alike of three, 0.5 x (1 - 2/3); and the last not found, 0.1 more",
            lambda: [
                _reward(0, 0, 0, answers=("4", "5", "4")),
                _reward(0, 0, 0, 0, answers=("4", "5", "4", None)),
            ],
            [-0.5 / 3, -0.5 / 3 - 0.1],
        ),
        ByHand(
            "right at the fourth turn, two of the three before alike: 1/8 - 0.5 x (1 - 3/4)",
            lambda: _reward(0, 0, 0, 1, answers="4547"),
            0,
        ),
        ByHand(
            "a quarter of eight groups: the two with the widest spread, in their order",
            lambda: _kept(*([r, 1 - r] for r in (0.5, 1, 0.6, 0.4, 0.5, 0.9, 0.7, 0.3))),
            [1, 0.9],
        ),
        ByHand(
            "a quarter of seven is one, and so is a quarter of two",
            lambda: [len(_kept(*([0, 1],) * n)) for n in (7, 2)],
            [1, 1],
        ),
        OffPolicy(
            "praise beyond 1.28, between 1.2 and 1.28; blame beyond 0.8 and within; the value 0.5 above, 0.3 above and "
            "0.2 below the return, of which the second clip keeps 0.5: squared, halved, times 0.1",
            ratio=(1.5, 1.25, 0.5, 0.9),
            advantage=(1.0, 1.0, -1.0, -1.0),
            heads={"value": (1.5, 0.3, -0.2, 0.0)},
            extras={"returns": (1.0, 0.0, 0.0, 0.0), "values": (1.5, 0.7, -0.2, 0.0)},
            loss=(-1.28 - 1.25 + 0.8 + 0.9) / 4 + 0.1 * 0.5 * (0.25 + 0.25 + 0.04) / 4,
            gradient=(0, -1.25 / 4, 0, 0.9 / 4),
        ),
        Reduction(
            "one turn, nothing punished, every group: PPO",
            "ppo",
            {
                "rollout.attempts": 1,
                "reward.form_penalty": 0.0,
                "filter.keep_share": 1.0,
                "objective.clip_high": 0.2,
            },
            {"credit.lam": 1.0},
        ),
    ),
)
