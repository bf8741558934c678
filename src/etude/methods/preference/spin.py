"""SPIN: the model plays against what it was a round ago, until its answers cannot be told from the demonstrations.

DPO with the demonstration as the chosen answer and an answer of the last round's model as the rejected one; that model is the
reference too, and moves on at the end of each round. Self-Play Fine-Tuning Converts Weak Language Models to Strong Language
Models, arXiv 2401.01335."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.pairs import preferred
from etude.fixtures.given import example_answers, example_demonstration, given_stage
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage
from etude.types import Episode, Group, Signal


def against_the_opponent() -> GroupRolloutStage:
    """The task's own answer, and answers of the opponent (the reference)."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        opponent = replace(rollouts, generator=rollouts.generators["reference"])
        return [*await opponent.plays(range(rollouts.samples)), rollouts.demonstrate()]

    return group_rollout


@writes("policy", extras=(PAIR,))
class SelfPlay:
    """The demonstration against each answer of the opponent. At the end of each of `rounds` equal parts of the run the opponent
    becomes the policy."""

    reads = frozenset({"reference"})

    def __init__(
        self,
        rounds: Annotated[
            int, Setting("rounds; after each the opponent becomes the policy", "rounds", low=1, high=1000)
        ] = 3,
    ) -> None:
        self.rounds, self.round = rounds, 0

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            for shown in group.demonstrations:
                for number, episode in enumerate(group.episodes, 1):
                    if not np.array_equal(shown.text, episode.text):  # the same words teach nothing
                        mask = _words(shown)
                        mark = {PAIR: np.full(len(mask), number, np.float32)}
                        signals += [
                            Signal(shown, mask, {"policy": mask}, mark),
                            preferred(episode, -1.0, number),
                        ]
        return signals

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Moves the opponent on where a round is over."""
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


def _words(shown: Episode) -> np.ndarray:
    """f32[T]: 1 on the tokens of the demonstration's replies."""
    return np.concatenate([np.full(len(s), s.role == "assistant", np.float32) for s in shown.spans])


def credited() -> list[list[float]]:
    """Advantage and pair at the last token, of a demonstration and two answers of which one says the same."""
    shown = replace(example_demonstration((7, 8)), text="same")
    made = example_answers((0.0, (5, 6)), (0.0, (7, 8)), demonstrations=[shown])
    tried = tuple(replace(e, text=t) for e, t in zip(made.episodes, ("other", "same"), strict=True))
    signals = given_stage(RECIPE, "credit")([replace(made, episodes=tried)], SimpleNamespace())
    return [[float(s.advantage[-1]), float(s.extras[PAIR][-1])] for s in signals]


def moved() -> list[float]:
    """How often the opponent has become the policy, seen after steps at these shares of a run of three rounds."""
    credit, found = given_stage(RECIPE, "credit"), list[float]()
    times: list[object] = []
    opponent = SimpleNamespace(become=times.append)
    for progress in (0.2, 0.34, 0.5, 0.9):
        credit.observe(
            [], [], SimpleNamespace(progress=progress, policy=0, auxiliary={"reference": opponent})
        )
        found.append(float(len(times)))
    return found


RECIPE: Recipe = Recipe(
    name="spin",
    base=DPO,
    paper=Paper(
        "Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models", "2401.01335", 2024
    ),
    published_lr=5e-7,
    idea="The model learns to tell a demonstration from what it would itself have written a round ago, and to write the former. "
    "After each round its opponent is the model that it has become. "
    "No preferences are needed; the game is over when its answers are like the demonstrations.",
    equation="y' ~ pi_k;  L = - mean log sigmoid(beta [log pi(y*)/pi_k(y*) - log pi(y')/pi_k(y')]);  pi_{k+1} = argmin L",
    departures=(
        "the opponent answers as training goes, where the paper writes all answers of a round beforehand; its weights are fixed within a round",
        "answers that say the same as the demonstration are left out",
        "beta 0.1 throughout; the paper raises it to 5 in its last round",
    ),
    stages={
        "group_rollout": stage(against_the_opponent),
        "reward": stage(optional_verdict),
        "credit": stage(SelfPlay),
    },
    needs=("answer",),
    defaults={"group_size": 1},
    claim="Where imitation of the demonstrations has stopped helping, a round of self-play on the same ones still does.",
    manipulation=(
        Manipulated(
            "the demonstration of six pairs in ten is preferred at last", "preferred", 0.6, read="last"
        ),
    ),
    examples=(
        ByHand("one answer is other than the demonstration's", credited, [[1, 1], [-1, 1]]),
        ByHand("the opponent moves at a third and at two thirds", moved, [0, 1, 1, 2]),
        ByHand(
            "nothing checked, no reward",
            lambda: given_stage(RECIPE, "reward")(SimpleNamespace(verdict=None))["reward"],
            0.0,
        ),
    ),
)
