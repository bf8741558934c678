"""OREAL (arXiv 2502.06781): of each task one right answer is cloned and one wrong answer pushed away. A copy of the model
learns from the outcomes alone which prefixes lead to right answers, and decides how much of the outcome each token is
given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.batch import Batch
from etude.channels import writes
from etude.credit.group import laid, leave_one_out
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    beyond_prompt,
    example_answers,
    example_loss,
    given_stage,
)
from etude.models.outputs import Outputs
from etude.objective.outcome import binary_cross_entropy, to_outcome
from etude.objective.policy import KLWeight, kl_to_start
from etude.objective.terms import Objective, Term, TokenLoss, objective
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Episode, Group, Signal

TOKEN_REWARD = "token_reward"  # the auxiliary model and its head
RIGHT, WRONG = "right", "wrong"  # weight rows: the tokens of right and of wrong answers
SHARE = "share"  # extra: w_t


def estimate_token_reward() -> Objective:
    """Binary cross-entropy of sigmoid(mean_t s_t) against whether the answer is right, s_t the head."""
    return to_outcome(
        lambda out, batch: out.heads[TOKEN_REWARD][:, 0],
        binary_cross_entropy,
        lambda batch: batch.weight(RIGHT) != 0,
        mean=True,
    )


def shares(scores: Array, right: bool) -> Array:
    """w_t of one answer: with p_t = sigmoid(mean of s_1..s_t), clip(2 p_t - 1, 0, 1) where it is right and
    clip(1 - 2 p_t, 0, 1) where it is wrong."""
    p = 1 / (1 + np.exp(-np.cumsum(scores) / np.arange(1, len(scores) + 1)))
    return np.clip(2 * p - 1 if right else 1 - 2 * p, 0, 1)


@writes("policy", RIGHT, WRONG, extras=(SHARE,))
def best_and_worst(
    max_each: Annotated[int, Setting("right and wrong answers kept per task, of each; 0: all", low=0)] = 1,
    unanimous: Annotated[bool, Setting("keep tasks whose answers are all right or all wrong")] = False,
    subtract_mean: Annotated[bool, Setting("subtract the mean of the other answers from +1 and -1")] = True,
    weigh: Annotated[bool, Setting("weigh tokens by the learned token reward")] = True,
) -> Credit:
    """Leave-one-out advantages of rewards +1 and -1 for the kept answers, and the share of each token in it by the
    auxiliary model's scores, which learn from the same answers first: as many right ones as wrong, one pair of each
    task that has both, so that an answer about which nothing is known has p = 1/2."""

    def signal(episode: Episode, advantage: float, right: bool, share: Array | float) -> Signal:
        on = episode.sampled.astype(np.float32)
        rows = {"policy": on, RIGHT: on * right, WRONG: on * (not right)}
        return Signal(episode, advantage * on, rows, {SHARE: laid(episode.sampled, share)})

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        kept: list[tuple[Episode, float, bool]] = []
        for group in groups:
            rewards = 2 * group.rewards - 1
            if not unanimous and (rewards > 0).all() == (rewards > 0).any():
                continue
            advantages = leave_one_out(rewards) if subtract_mean else rewards
            order = context.rng("oreal", context.drawn, group.task.key).permutation(len(rewards))
            for right in (True, False):
                mine = [i for i in order if (rewards[i] > 0) == right][: max_each or None]
                kept += [(group.episodes[i], advantages[i], right) for i in mine]
        signals = [signal(*one, share=1.0) for one in kept]
        if not weigh:
            return signals
        model = context.auxiliary[TOKEN_REWARD]
        model.learn(estimate_token_reward(), signals, context.step, context.progress)
        scores = context.rows(signals, lambda out: out.heads[TOKEN_REWARD][:, 0], policy=model.policy)
        return [
            signal(*one, share=shares(row[one[0].sampled], one[2]))
            for one, row in zip(kept, scores, strict=True)
        ]

    return credit


def two_sided(
    negative: Annotated[float, Setting("weight of wrong answers", low=0)] = 0.5, kl_weight: KLWeight = 0.01
) -> Objective:
    """-w_t A log pi_theta(y_t), a token mean over right answers plus `negative` times one over wrong answers, plus
    kl_weight x KL to the starting policy."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.extras[SHARE] * batch.advantage * out.logp

    right = Term("right", loss, weight=RIGHT, proportional=True)
    wrong = Term("wrong", loss, weight=WRONG, coefficient=negative, proportional=True)
    # "policy" is read by the KL, where it has a weight, and by the auxiliary model's own loss.
    return objective(right, wrong, extras={SHARE}, silent={"policy"}) + kl_to_start(kl_weight)


LN3 = math.log(3)


def _rows() -> list[list[float]]:
    """Of a right and a wrong answer of two tokens each, scored 2 ln 3, 0 and -2 ln 3, 0: means ln 9, ln 3 and the same
    below 0, p = 9/10, 3/4 and 1/10, 1/4."""
    group = example_answers((1.0, (2, 3)), (0.0, (4, 5)))
    model = GivenModel(**{TOKEN_REWARD: [2 * LN3, 0, -2 * LN3, 0]})
    signals = given_stage(RECIPE, "credit")([group], GivenContext(auxiliary={TOKEN_REWARD: model}))
    return [beyond_prompt(signals, name) for name in ("advantage", SHARE, RIGHT, WRONG)]


def _pairs() -> list[list[float]]:
    """Which of the answers to three tasks are kept as right and as wrong, of one right in four, and none twice."""
    groups = [example_answers(*((r, (2,)) for r in rewards)) for rewards in ([1, 0, 0, 0], [0] * 4, [0] * 4)]
    signals = given_stage(RECIPE, "credit", weigh=False)(groups, GivenContext())
    return [beyond_prompt(signals, name) for name in (RIGHT, WRONG)]


def _token_reward_loss() -> float:
    """What the auxiliary model is trained by: means of ln 3 in a right answer and 0 in a wrong one."""
    model = GivenModel(**{TOKEN_REWARD: [2 * LN3, 0, LN3, -LN3]})
    credit = given_stage(RECIPE, "credit")
    credit([example_answers((1.0, (2, 3)), (0.0, (4, 5)))], GivenContext(auxiliary={TOKEN_REWARD: model}))
    ((objective, signals),) = model.lessons
    return example_loss(objective, signals, model)


RECIPE = Recipe(
    name="oreal",
    paper=Paper(
        "Exploring the Limit of Outcome Reward for Learning Mathematical Reasoning", "2502.06781", 2025
    ),
    published_lr=5e-7,
    idea="Of each task one right answer is cloned and one wrong answer is pushed away, at half the weight. "
    "A copy of the model learns from the outcomes alone which prefixes lead to right answers. "
    "Its opinion decides how much of the outcome each token is given.",
    equation="L = mean_right w+_t A (-log pi(y_t)) + 0.5 mean_wrong w-_t A (-log pi(y_t)) + 0.01 KL;  w+- = clip(+-(2 p_t - 1), 0, 1)",
    departures=(
        "no steps that train the token reward alone: it starts undecided, so tokens have weight 0 until it has learned",
        "the token reward learns from a step's answers before it weighs them",
    ),
    stages={"credit": stage(best_and_worst), "objective": stage(two_sided)},
    auxiliary={TOKEN_REWARD: AuxiliaryModel("copy", lr=4.0, heads={TOKEN_REWARD: 1})},
    claim="The down-weighted wrong answers beat cloning the right ones alone.",
    manipulation=(
        Manipulated("a tenth of the attempts are right", "correct", 0.1),
        Manipulated("a tenth of the attempts are wrong", "correct", at_most=0.9),
    ),
    examples=(
        ByHand("p = 3/4, then 1/2", lambda: shares(np.array([LN3, -LN3]), True), [0.5, 0.0]),
        ByHand("the same in a wrong answer", lambda: shares(np.array([-LN3, LN3]), False), [0.5, 0.0]),
        ByHand(
            "+-1 less the other's: +-2; shares 2 p - 1 and 1 - 2 p",
            _rows,
            [[2, 2, -2, -2], [0.8, 0.5, 0.8, 0.5], [1, 1, 0, 0], [0, 0, 1, 1]],
        ),
        ByHand("1 of 4 right, and twice none: one pair is kept, half of it right", _pairs, [[1, 0], [0, 1]]),
        ByHand(
            "the token reward's loss: p = 3/4 of a right answer, 1/2 of a wrong one",
            _token_reward_loss,
            (-math.log(3 / 4) - math.log(1 / 2)) / 2,
        ),
        # Right: (1 x 2 x 1 + 1/2 x 2 x 1) / 2, log pi = -1. Wrong, halved: -1/4 x 2 x (1 - ln 2), log pi = -1 + ln 2.
        # KL: a third of the k3 of the wrong token, log ref/pi = -ln 2: 1/2 - 1 + ln 2.
        OffPolicy(
            "two right tokens of shares 1 and 1/2, a wrong one of share 1/4, 0.3 of the KL; no ratio enters",
            ratio=(0.5, 1.0, 2.0),
            advantage=(2.0, 2.0, -2.0),
            lengths=(2, 1),
            weights={"policy": (1, 1, 1), RIGHT: (1, 1, 0), WRONG: (0, 0, 1)},
            extras={SHARE: (1.0, 0.5, 0.25), "reference": (-1.0, -1.0, -1.0)},
            # log pi = -1 - ln 2, -1, -1 + ln 2; log ref / pi = ln 2, 0, -ln 2: k3 = 1 - ln 2, 0, ln 2 - 1/2.
            loss=(
                (1.0 + math.log(2))
                + 0.5
                - 0.5 * 0.25 * 2 * (1 - math.log(2))
                + 0.3 / 3 * ((1 - math.log(2)) + (math.log(2) - 0.5))
            ),
            gradient=(-1.0 + 0.3 / 3 * (1 - 2), -0.5, 0.5 * 0.25 * 2 + 0.3 / 3 * (1 - 0.5)),
            settings={"objective.kl_weight": 0.3},
        ),
        Reduction(
            "all right answers at weight 1 and no wrong ones: RFT",
            "rft",
            {
                "credit.max_each": 0,
                "credit.unanimous": True,
                "credit.subtract_mean": False,
                "credit.weigh": False,
                "objective.negative": 0.0,
                "objective.kl_weight": 0.0,
            },
            {"credit.distinct": False},
        ),
    ),
)
