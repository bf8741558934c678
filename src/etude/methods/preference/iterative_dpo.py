"""Iterative DPO: rounds of sampling, scoring and DPO, each against the policy that the round before left.

Several answers to each prompt are scored by a reward model; best and worst are a pair, ties are skipped. After a round the reference
becomes the policy, so that each round may move as far as the first. RLHF Workflow: From Reward Modeling to Online RLHF, arXiv
2405.07863."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Annotated, Any

from etude.channels import writes
from etude.credit.pairs import Margin, Pairs, preference_pairs
from etude.fixtures.examples import example_group
from etude.fixtures.given import given_stage
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.group_rollout import independent
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Group, Signal


@writes("policy", extras=(PAIR,))
class PairsInRounds:
    """Best and worst of each group; after each of `rounds` equal parts of the run the reference becomes the policy."""

    def __init__(
        self,
        rounds: Annotated[
            int, Setting("rounds; after each the reference becomes the policy", "rounds", low=1, high=1000)
        ] = 3,
        pairs: Pairs = 1,
        margin: Margin = 1e-6,
    ) -> None:
        self.rounds, self.round = rounds, 0
        self._pairs = preference_pairs(pairs, margin)

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        return self._pairs(groups, context)

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Moves the reference where a round is over."""
        now = int(context.progress * self.rounds)
        if now > self.round:
            self.round = now
            context.auxiliary["reference"].become(context.policy)

    def report(self) -> dict[str, float]:
        return {"round": float(self.round)}

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round = state["round"]


def moved() -> list[float]:
    """How often the reference has become the policy, after steps at these shares of a run of three rounds."""
    credit, found = given_stage(RECIPE, "credit"), list[float]()
    times: list[object] = []
    reference = SimpleNamespace(become=times.append)
    for progress in (0.2, 0.34, 0.5, 0.9):
        credit.observe(
            [], [], SimpleNamespace(progress=progress, policy=0, auxiliary={"reference": reference})
        )
        found.append(float(len(times)))
    return found


def paired() -> list[list[float]]:
    """Reward and advantage of the pair of a group; of a group of equals there is none."""
    credit = given_stage(RECIPE, "credit")
    signals = credit(
        [example_group([0.2, 0.9, 0.5]), example_group([0.5, 0.5])], SimpleNamespace(seed=0, step=0)
    )
    return [[s.episode.reward, float(s.advantage[0])] for s in signals]


RECIPE: Recipe = Recipe(
    name="iterative_dpo",
    base=DPO,
    paper=Paper("RLHF Workflow: From Reward Modeling to Online RLHF", "2405.07863", 2024),
    published_lr=5e-7,
    idea="In each round the policy answers several times, a reward scores the answers, and DPO learns from the best and the worst. "
    "Then the reference becomes the policy, and the next round begins. "
    "The reward is usually a reward model (--reward model:DIR).",
    equation="y_1..y_K ~ pi;  y+ = argmax r, y- = argmin r;  L = DPO(beta) against pi_k;  pi_{k+1} = the policy after round k",
    departures=(
        "each step samples with the policy of that step; the script samples a round's answers beforehand",
        "no length penalty in the choice: that is a part of the reward (--reward length,weight=-0.001)",
    ),
    stages={"group_rollout": stage(independent), "credit": stage(PairsInRounds)},
    claim="Three rounds of fresh pairs reach a higher reward than one round with as many pairs.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand("best and worst; equals are no pair", paired, [[0.9, 1], [0.2, -1]]),
        ByHand("the reference moves at a third and at two thirds", moved, [0, 1, 1, 2]),
        Reduction("one round: DPO", "dpo", {"credit.rounds": 1}),
    ),
)
