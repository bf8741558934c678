"""SEC: the curriculum is a bandit that is paid in advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import standardised
from etude.curriculum.arms import By, ByArm, softmax
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def taught(rewards: Array) -> Array:
    """|A_i|, A the rewards of a group standardised; 0 where all are equal."""
    return np.abs(standardised(rewards, 1e-8))


def taught_by_credit(groups: Sequence[Group], signals: Sequence[Signal]) -> list[Array]:
    """|A| as the run's own credit has it, a group's sequences each: the mean over trained tokens. A group that is
    not trained on teaches nothing."""
    found: dict[str, list[float]] = {}
    for signal in signals:
        on = signal.episode.sampled
        if on.any():
            mean = float(np.abs(signal.advantage[on]).mean())
            found.setdefault(signal.episode.task.key, []).append(mean)
    return [np.array(found.get(g.task.key, [0.0] * len(g.episodes))) for g in groups]


def smoothed(old: Array, found: Mapping[int, float], rate: float, decay_absent: bool = False) -> Array:
    """(1 - rate) old + rate found; an arm that is absent keeps its value, or counts as 0."""
    new = old * (1 - rate) if decay_absent else old.copy()
    for k, value in found.items():
        new[k] = (1 - rate) * old[k] + rate * value
    return new


class Evolving(ByArm):
    """Softmax over Q, a moving mean of the advantages' size that each arm brought (SEC)."""

    def __init__(
        self,
        tau: Annotated[float, Setting("temperature of the softmax over Q; inf: uniform", low=1e-3)] = 0.2,
        alpha: Annotated[float, Setting("share of the newest step in Q", low=0, high=1)] = 0.5,
        decay_absent: Annotated[
            bool, Setting("an arm that was not drawn counts as 0, instead of keeping its Q")
        ] = False,
        advantage: Annotated[
            str,
            Setting(
                "|A| of rewards standardised in their group, or of the credit", choices=("rewards", "credit")
            ),
        ] = "rewards",
        by: By = "both",
    ) -> None:
        super().__init__(by)
        self.tau, self.alpha, self.decay_absent, self.advantage = tau, alpha, decay_absent, advantage

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.q = np.zeros(len(self.arms))

    def chances(self, context: Any) -> Array:
        return softmax(self.q / self.tau)

    def why(self, k: int) -> str:
        return f"Q {self.q[k]:.2f}, p {self.now[k]:.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal]) -> None:
        tried = [g for g in groups if g.episodes]
        sizes = (
            [taught(g.rewards) for g in tried]
            if self.advantage == "rewards"
            else taught_by_credit(tried, signals)
        )
        found: dict[int, list[float]] = {}
        for group, size in zip(tried, sizes, strict=True):
            k = self.arms.of(group.task)
            if k is not None:
                found.setdefault(k, []).extend(size)
        means = {k: float(np.mean(values)) for k, values in found.items()}
        if means:
            self.q = smoothed(self.q, means, self.alpha, self.decay_absent)

    def state_dict(self) -> dict[str, Any]:
        return {"q": self.q.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q = np.array(state["q"])


RECIPE = Recipe(
    name="sec",
    default_base=GRPO,
    n=2,
    paper=Paper("Self-Evolving Curriculum for LLM Reasoning", "2505.14970", 2025),
    idea="A group teaches most where about half of its attempts are right: there the advantages are largest. "
    "Each kind of task at each level is an arm, whose value is the recent size of the advantages it brought. "
    "Arms are drawn by their value, so the tasks get harder as the model gets better.",
    equation="p(c) = softmax(Q(c) / tau);  Q(c) <- (1 - alpha) Q(c) + alpha mean |A_i|",
    departures=(
        "|A| is that of the rewards standardised within their group, whatever credit the run uses; with "
        "curriculum.advantage=credit it is the mean |A| over the tokens of each sequence as credited",
        "groups that are drawn but not trained on count as they are",
        "an arm that was not drawn keeps its Q, as the equation reads; the released code lets it decay "
        "(curriculum.decay_absent=true)",
        "tau is 0.2, which the paper has for arms of kind and level together; it has 1.0 and 0.4 for levels alone",
    ),
    stages={"curriculum": stage(Evolving)},
    claim="Probability moves from easy to hard levels, and the hardest held-out level is solved more often than with uniform "
    "sampling at equal steps.",
    examples=(
        ByHand("half right: 2 sqrt(p (1 - p)) = 1", lambda: np.mean(taught(np.array([1.0, 1, 0, 0]))), 1.0),
        ByHand("1 of 4 right", lambda: np.mean(taught(np.array([1.0, 0, 0, 0]))), 3**0.5 / 2),
        ByHand("all right teaches nothing", lambda: taught(np.ones(4)), [0, 0, 0, 0]),
        ByHand(
            "alpha 0.5; the second arm was not drawn",
            lambda: smoothed(np.array([0.4, 0.6]), {0: 1.0}, 0.5),
            [0.7, 0.6],
        ),
        ByHand("and decays", lambda: smoothed(np.array([0.4, 0.6]), {0: 1.0}, 0.5, True), [0.7, 0.3]),
        ByHand("Q = 0 and tau log 3", lambda: softmax(np.array([0, 0.2 * math.log(3)]) / 0.2), [0.25, 0.75]),
    ),
)
