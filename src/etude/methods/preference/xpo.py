"""XPO: online DPO with optimism, which makes the policy try what the reference does not.

Each pair is one answer of the policy and one of the reference. Beside DPO's loss the likelihood of the reference's answers is
pushed down a little, whichever won: that is optimism in the face of uncertainty, written as a bonus on the implicit reward.
Exploratory Preference Optimization, arXiv 2405.21046, algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.batch import Batch
from etude.channels import writes
from etude.credit.pairs import preferred
from etude.fixtures.given import GivenContext, beyond_prompt, example_answers, given_stage
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.models.outputs import Outputs
from etude.objective.preference import PAIR, DpoBeta, dpo_loss
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.recipe import ByHand, OffPolicy, Paper, Recipe
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import NOISE, Episode, Group, Signal

OPTIMISM = "optimism"  # weight row: the reference's answers


def with_the_reference() -> GroupRolloutStage:
    """Half of the episodes by the policy, half by the reference (at least one each)."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        half = max(1, rollouts.samples // 2)
        other = replace(rollouts, generator=rollouts.generators["reference"])
        written = await other.plays(range(half, 2 * half))
        return [*await rollouts.plays(range(half)), *(replace(e, player="reference") for e in written)]

    return group_rollout


@writes("policy", OPTIMISM, extras=(PAIR,))
def policy_against_reference() -> Credit:
    """Answer k of the policy and answer k of the reference are pair k, the one with the greater reward chosen; the reference's
    tokens have weight 1 in the row `OPTIMISM`. Equal rewards are no pair."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            own = [e for e in group.episodes if e.player == "policy"]
            start = [e for e in group.episodes if e.player != "policy"]
            for number, (one, other) in enumerate(zip(own, start, strict=False), 1):
                if abs(one.reward - other.reward) <= NOISE:
                    continue
                sign = float(np.sign(one.reward - other.reward))
                theirs = preferred(other, -sign, number)
                weights = {**theirs.weights, OPTIMISM: theirs.weights["policy"]}
                signals += [preferred(one, sign, number), replace(theirs, weights=weights)]
        return signals

    return credit


def optimistic(
    dpo_beta: DpoBeta = 0.1,
    optimism: Annotated[
        float, Setting("alpha: weight of the reference's log-likelihood, which is lowered", low=0)
    ] = 5e-6,
) -> Objective:
    """DPO's loss + alpha log pi(y~), y~ the reference's answer, summed over tokens, a mean over pairs."""

    def bonus(out: Outputs, batch: Batch) -> TokenLoss:
        return out.logp

    term = Term("optimism", bonus, sum_per_episode, weight=OPTIMISM, coefficient=optimism)
    return dpo_loss(dpo_beta) + objective(term, unit="group")


def credited() -> list[list[float]]:
    """Advantages and optimism weights: the policy wins the first pair, loses the second; the third is equal."""
    made = example_answers(*((r, (5,)) for r in (1.0, 0.0, 0.5, 0.0, 1.0, 0.5)))
    players = ("policy",) * 3 + ("reference",) * 3
    tried = tuple(replace(e, player=p) for e, p in zip(made.episodes, players, strict=True))
    signals = given_stage(RECIPE, "credit")([replace(made, episodes=tried)], GivenContext())
    return [beyond_prompt(signals), beyond_prompt(signals, OPTIMISM)]


W = 1 / (1 + 24**0.1)  # DPO's row: sigmoid(-beta margin)

RECIPE: Recipe = Recipe(
    name="xpo",
    base=DPO,
    paper=Paper(
        "Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF",
        "2405.21046",
        2024,
    ),
    idea="Each comparison is between an answer of the policy and one of the starting model. "
    "Besides learning from it, the policy makes the starting model's answer a little less likely, even where it won. "
    "So it goes on trying what nobody has tried.",
    equation="y ~ pi_t, y~ ~ ref;  L = - mean log sigmoid(beta [log pi(y+)/ref(y+) - log pi(y-)/ref(y-)]) + alpha mean log pi(y~)",
    departures=(
        "each step trains on its own pairs, where the algorithm minimises over all pairs so far",
        "alpha is constant at the paper's 5e-6",
    ),
    stages={
        "group_rollout": stage(with_the_reference),
        "credit": stage(policy_against_reference),
        "objective": stage(optimistic),
    },
    defaults={"group_size": 2},
    claim="Where the starting model rarely gives the best answer, XPO finds it in fewer labelled pairs than online DPO.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand("won, lost; equals are no pair", credited, [[1, -1, -1, 1], [0, 1, 0, 1]]),
        OffPolicy(
            "DPO's row of margin log 24; y- is the reference's, log pi = -1 - log 2; alpha 0.5",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            weights={"policy": (1, 1, 1), OPTIMISM: (0, 0, 1)},
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            settings={"objective.optimism": 0.5},
            loss=-math.log(1 - W) + 0.5 * (-1 - math.log(2)),
            gradient=(-0.1 * W, -0.1 * W, 0.1 * W + 0.5),
        ),
    ),
)
