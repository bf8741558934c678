"""BRME: a reward model of several heads that each say a number and how uncertain it is, for rewards that doubt themselves.

A plain reward model is trained first; heads on another trunk then learn to say what it says, as Gaussians. The reward is that of
the most certain head, mixed with the least of all: a policy that exploits one head does not please the others. Reward-Robust
RLHF in LLMs, arXiv 2409.15360."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from etude.batch import Batch
from etude.channels import writes
from etude.credit.compared import compared
from etude.credit.pairs import Margin, Pairs
from etude.fixtures.compared import example_pair
from etude.fixtures.given import GivenContext, GivenModel, given_stage
from etude.methods.reward_model.reward_model import RECIPE as REWARD_MODEL
from etude.methods.reward_model.reward_model import bradley_terry
from etude.models.outputs import Outputs
from etude.objective.compared import MEMBERS, REWARD, Members, seen_by
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.reward.model import RewardModel, nominal
from etude.settings import stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

TARGET = "target"
"""Extra: what the plain reward model says of an answer, at its end."""


@writes(REWARD, extras=(TARGET, MEMBERS))
def told_by_the_plain_model(pairs: Pairs = 1, margin: Margin = 1e-6) -> Credit:
    """Answers with the number that the plain reward model (auxiliary `plain`) gives them; it learns from the step's pairs after
    it was asked."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = [s for g in groups for s in compared(g, context, pairs, margin)]
        if not signals:
            return []
        plain = context.auxiliary["plain"]
        rows = context.rows(signals, lambda out: out.heads[REWARD][:, 0], policy=plain.policy)
        plain.learn(bradley_terry(), signals, context.step, context.progress)
        return [
            replace(s, extras={TARGET: r.astype(np.float32) * s.weights[REWARD], MEMBERS: s.extras[MEMBERS]})
            for s, r in zip(signals, rows, strict=True)
        ]

    return credit


def gaussian_heads(members: Members = 5) -> Objective:
    """E_eps (mu_i + s_i eps - target)^2 = (mu_i - target)^2 + s_i^2 with s_i = exp(head `spread`); mean over the members that see
    the answer, and over answers."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        target = batch.extras[TARGET][:, None]
        each = (out.heads[REWARD] - target) ** 2 + (2 * out.heads["spread"]).exp()
        seen = seen_by(batch.extras[MEMBERS], members).to(each)
        return (each * seen).sum(1) / seen.sum(1), {"spread": out.heads["spread"].exp().mean(1)}

    term = Term("gaussian", loss, sum_per_episode, weight=REWARD)
    made = objective(term, unit="group", extras={TARGET, MEMBERS})
    return replace(made, heads={REWARD: members, "spread": members})


def credited() -> list[float]:
    """The targets at the ends of the answers, to which the plain model gives 2 and 0.5 (its last tokens; 9 elsewhere)."""
    model = GivenModel([-1.0] * 3, reward=[[2.0], [9.0], [0.5]])
    context = GivenContext(auxiliary={"plain": model})
    signals = given_stage(RECIPE, "credit")([example_pair()], context)
    return [float(v) for s in signals for v in s.extras[TARGET][1:]]


def robust() -> list[float]:
    """Nominal, and half nominal and half least, of two answers; of the first the second member is the most certain one."""
    values, spread = np.array([[1.0, 3.0], [2.0, 0.0]]), np.array([[0.5, 0.1], [0.1, 0.5]])
    held = object.__new__(RewardModel)
    held.aggregate, held.nominal_weight = "robust", 0.5
    held.members = lambda asked: (values, spread)  # type: ignore[method-assign]
    return [*nominal(values, spread).tolist(), *held.scored([]).tolist()]


RECIPE: Recipe = Recipe(
    name="brme",
    base=REWARD_MODEL,
    paper=Paper("Reward-Robust RLHF in LLMs", "2409.15360", 2024),
    idea="Several heads each give an answer a number and say how uncertain it is. "
    "As a reward, the most certain head is mixed with the most pessimistic one (aggregate=robust). "
    "A policy then gains little from fooling one of them.",
    equation="L = mean_i (mu_i - r_BT)^2 + s_i^2;  reward = a mu_{argmin s} + (1 - a) min_i mu_i",
    departures=(
        "guess: the heads' target is the plain reward model's number, and the expectation over the Gaussian is taken exactly",
        "the plain reward model learns in the same run, and is asked as it is then; the paper trains it beforehand",
        "heads differ by the four fifths of the pairs that each sees",
        "the policy is trained in a run of its own: --reward model:RUN,aggregate=robust,nominal_weight=0.6",
    ),
    stages={"credit": stage(told_by_the_plain_model), "objective": stage(gaussian_heads)},
    auxiliary={"plain": AuxiliaryModel("copy", lr=1.0, heads={REWARD: 1})},
    claim="Against a noisy reward model, a weight between 0 and 1 keeps the true reward higher late in training than 1.",
    manipulation=(Manipulated("the heads become surer", "spread", 0.1, read="range"),),
    examples=(
        ByHand("the plain model's number at each answer's end", credited, [2, 0, 0.5]),
        ByHand("nominal 3 and 2; robust (3 + 1)/2 and (2 + 0)/2", robust, [3, 2, 2, 1]),
        OffPolicy(
            "mu = 2 and 0.5, targets 1 and 0, s = 1 and 1/2: (1 + 1 + 1/4 + 1/4) / 2",
            ratio=(2.0, 0.5),
            advantage=(1.0, -1.0),
            lengths=(1, 1),
            weights={REWARD: (1.0, 1.0)},
            extras={TARGET: (1.0, 0.0), MEMBERS: (1, 1)},
            heads={REWARD: (2.0, 0.5), "spread": (0.0, -math.log(2))},
            settings={"objective.members": 1},
            loss=1.25,
            gradient=(0.0, 0.0),
        ),
    ),
)
