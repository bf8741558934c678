"""Nash-MD: the policy plays against a mixture of itself and the starting model, and learns how often it is preferred.

Preferences need not come from a reward: A may be preferred to B, B to C, and C to A. What can be asked for then is a policy that no
other is preferred to, the equilibrium of a game between two of them. Mirror descent finds it where each step answers the geometric
mixture pi^(1-b) ref^b, drawn token by token. Nash Learning from Human Feedback, arXiv 2312.00886; the loss as in TRL's `NashMDTrainer`
(1.8.0)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import constant
from etude.credit.kl_penalty import KLPrice, drift
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.objective.policy import plain
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.rollout.group_rollout import GroupRollout
from etude.sampling.mixture import mixture
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import NOISE, Episode, Group, Signal

MIXTURE = "mixture"  # the player of its answers


class AgainstTheMixture:
    """Half of the episodes by the policy, half by the mixture of policy and reference (at least one each)."""

    reads = frozenset({"reference"})
    in_process = "draws every token from two models at once, which engines cannot"

    def __init__(
        self,
        mixture_share: Annotated[
            float, Setting("b: exponent of the reference in the opponent pi^(1-b) ref^b", low=0, high=1)
        ] = 0.5,
    ) -> None:
        self.share = mixture_share
        self._made: tuple[Any, Any] = (
            None,
            None,
        )  # the policy's sampler, and that of the mixture: one for all groups

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        sampler = rollouts.generator.sampler
        if self._made[0] is not sampler:
            other = rollouts.generators["reference"].sampler
            self._made = sampler, mixture(sampler, other, self.share)
        opponent = replace(rollouts, generator=replace(rollouts.generator, sampler=self._made[1]))
        half = max(1, rollouts.samples // 2)
        answers = await opponent.plays(range(half, 2 * half))
        return [*await rollouts.plays(range(half)), *(replace(e, player=MIXTURE) for e in answers)]


class Preferred:
    """A_t = P(y_k > y'_k) - 1/2 - beta (log pi - log pi_ref)(y_kt) on the policy's answer y_k, y'_k being the mixture's answer k and
    P = sigmoid(scale (r - r'))."""

    reads = frozenset({"reference"})

    def __init__(
        self,
        win_scale: Annotated[
            float,
            Setting("P(y > y') = sigmoid(this x difference in reward); a large one: who is better", low=0),
        ] = 1.0,
        kl_weight: KLPrice = 0.1,
    ) -> None:
        self.win_scale, self.kl_weight, self.decided = win_scale, kl_weight, 0.0

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        own, won = list[Episode](), list[float]()
        for group in groups:
            sides = ([e for e in group.episodes if (e.player == MIXTURE) == side] for side in (False, True))
            for mine, theirs in zip(*sides, strict=False):
                own.append(mine)
                won.append(1 / (1 + np.exp(-self.win_scale * (mine.reward - theirs.reward))))
        self.decided = float(np.mean(np.abs(np.array(won) - 0.5) > NOISE)) if won else 0.0
        signals = [constant(e, p - 0.5) for e, p in zip(own, won, strict=True)]
        if not self.kl_weight:
            return signals
        return [
            replace(s, advantage=(s.advantage - self.kl_weight * away).astype(np.float32))
            for s, away in zip(signals, drift(own, context), strict=True)
        ]

    def report(self) -> dict[str, float]:
        """`decided`: the share of the last step's comparisons in which one answer was preferred."""
        return {"decided": self.decided}


def credited(**settings: float) -> list[float]:
    """Advantages of two answers of the policy, against the mixture's of rewards 0 and 3; log pi = -1, log pi_ref = -1.5."""
    made = example_answers((1.0, (5, 6)), (0.0, (5,)), (0.0, (7,)), (3.0, (7,)))
    players = ("policy", "policy", MIXTURE, MIXTURE)
    group = replace(
        made, episodes=tuple(replace(e, player=p) for e, p in zip(made.episodes, players, strict=True))
    )
    where = GivenContext(auxiliary={"reference": GivenModel(-1.5)})
    return beyond_prompt(given_stage(RECIPE, "credit", **settings)([group], where))


P1, P3 = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(3.0))

RECIPE: Recipe = Recipe(
    name="nash_md",
    paper=Paper("Nash Learning from Human Feedback", "2312.00886", 2023),
    idea="Two answers are compared: one of the policy, one of a mixture of the policy and the starting model. "
    "The policy learns how often its own was preferred. "
    "Only comparisons are needed, and they may contradict each other: it looks for a policy that no other is preferred to.",
    equation="y ~ pi, y' ~ pi^(1-b) ref^b / Z;  L = - mean sum_t [P(y > y') - 1/2 - beta log pi(y_t)/ref(y_t)] log pi(y_t)",
    departures=(
        "b and beta as TRL's defaults, 0.5 and 0.1",
        "the penalty of a token weighs that token's own gradient alone, as in TRL, and not what comes before it",
        "P comes from two rewards, as in TRL; judge:...,how=pairwise compares directly and win_scale says how steeply",
    ),
    stages={
        "group_rollout": stage(AgainstTheMixture),
        "credit": stage(Preferred),
        "objective": stage(plain),
    },
    defaults={"group_size": 2},
    claim="It is preferred to the starting model as often as online DPO is, at a smaller distance from it.",
    manipulation=(Manipulated("a fifth of the comparisons are decided", "credit.decided", 0.2),),
    examples=(
        ByHand(
            "P - 1/2, less beta times log pi - log ref = 1/2",
            credited,
            [P1 - 0.5 - 0.05, P1 - 0.5 - 0.05, P3 - 0.5 - 0.05],
        ),
        ByHand(
            "who is better, without a penalty",
            lambda: credited(win_scale=100.0, kl_weight=0.0),
            [0.5, 0.5, -0.5],
        ),
        OffPolicy(
            "no ratio, no clip; summed over two tokens, mean over two answers",
            ratio=(3.0, 1.0, 0.2),
            advantage=(0.2, 0.1, -0.3),
            lengths=(2, 1),
            loss=(-0.2 * (np.log(3) - 1) + 0.1 + 0.3 * (np.log(0.2) - 1)) / 2,
            gradient=(-0.1, -0.05, 0.15),
        ),
    ),
)
