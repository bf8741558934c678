"""OREAL: clone the best, push away the worst, and let a learned token reward say where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.batch import Batch
from etude.credit.group import Credit, leave_one_out
from etude.credit.redistribution import judged
from etude.models.outputs import Outputs
from etude.objective.outcome import binary_cross_entropy, to_outcome
from etude.objective.policy import KLWeight, kl_to_start
from etude.objective.terms import Objective, Term, TokenLoss, objective
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal


def shares(scores: Array, right: bool) -> Array:
    """w_t of one answer: with p_t = sigmoid(mean of s_1..s_t), clip(2 p_t - 1, 0, 1) where it is right and
    clip(1 - 2 p_t, 0, 1) where it is wrong."""
    p = 1 / (1 + np.exp(-np.cumsum(scores) / np.arange(1, len(scores) + 1)))
    return np.clip(2 * p - 1 if right else 1 - 2 * p, 0, 1)


TOKEN_REWARD = "token_reward"  # OREAL's companion and its head


def estimate_token_reward() -> Objective:
    """Binary cross-entropy of sigmoid(mean_t s_t) against whether the answer is right, s_t the head (OREAL)."""
    return to_outcome(
        lambda out, batch: out.heads[TOKEN_REWARD][:, 0],
        binary_cross_entropy,
        lambda batch: batch.weight("right") != 0,
        mean=True,
    )


def best_and_worst(
    keep: Annotated[int, Setting("right and wrong answers kept per task, of each; 0: all", low=0)] = 1,
    baseline: Annotated[bool, Setting("subtract the mean of the other answers from +1 and -1")] = True,
    weigh: Annotated[bool, Setting("weigh tokens by the learned token reward")] = True,
) -> Credit:
    """Leave-one-out advantages of rewards +1 and -1 for the kept answers, and the share of each token in it by the
    companion's scores, which learn from the same answers first (OREAL, arXiv 2502.06781)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        kept: list[tuple[Episode, float, bool]] = []
        for group in groups:
            rewards = 2 * group.rewards - 1
            advantages = leave_one_out(rewards) if baseline else rewards
            order = context.rng("oreal", context.drawn, group.task.key).permutation(len(rewards))
            for right in (True, False):
                mine = [i for i in order if (rewards[i] > 0) == right][: keep or None]
                kept += [(group.episodes[i], advantages[i], right) for i in mine]
        signals = [judged(*one, np.ones(1)) for one in kept]
        if not weigh:
            return signals
        judge = context.auxiliary[TOKEN_REWARD]
        judge.learn(estimate_token_reward(), signals, context.step, context.progress)
        scores = context.rows(signals, lambda out: out.heads[TOKEN_REWARD][:, 0], policy=judge.policy)
        return [
            judged(e, a, right, shares(row[e.sampled], right))
            for (e, a, right), row in zip(kept, scores, strict=True)
        ]

    return credit


def two_sided(
    negative: Annotated[float, Setting("weight of wrong answers", low=0)] = 0.5, beta: KLWeight = 0.01
) -> Objective:
    """-w_t A log pi_theta(y_t), a token mean over right answers plus `negative` times one over wrong answers, plus
    beta x KL to the starting policy (OREAL, arXiv 2502.06781)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.extras["share"] * batch.advantage * out.logp

    right = Term("right", loss, weight="right", proportional=True)
    wrong = Term("wrong", loss, weight="wrong", coefficient=negative, proportional=True)
    return objective(right, wrong) + kl_to_start(beta)


RECIPE = Recipe(
    name="oreal",
    n=170,
    paper=Paper(
        "Exploring the Limit of Outcome Reward for Learning Mathematical Reasoning", "2502.06781", 2025
    ),
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
    examples=(
        ByHand("p = 3/4, then 1/2", lambda: shares(np.array([np.log(3), -np.log(3)]), True), [0.5, 0.0]),
        ByHand(
            "the same in a wrong answer", lambda: shares(np.array([-np.log(3), np.log(3)]), False), [0.5, 0.0]
        ),
        Reduction(
            "all right answers at weight 1 and no wrong ones: RFT",
            "rft",
            {
                "credit.keep": 0,
                "credit.baseline": False,
                "credit.weigh": False,
                "objective.negative": 0.0,
                "objective.beta": 0.0,
            },
            {"credit.distinct": False},
        ),
    ),
)
