"""SEC: the curriculum is a bandit that is paid in advantages.

A group teaches most where about half of its attempts are right: there the advantages are largest. Kinds of tasks at
their levels are the arms; an arm's value is a moving mean of the size of the advantages it brought.
Self-Evolving Curriculum for LLM Reasoning, arXiv 2505.14970.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import standardised
from etude.curriculum.arms import By, ByArm, softmax
from etude.fixtures.curricula import after_steps, attempts_at
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array, Group, Signal


class Evolving(ByArm):
    """p(c) = softmax(Q(c) / tau);  Q(c) <- (1 - alpha) Q(c) + alpha mean |A_i|."""

    def __init__(
        self,
        sec_tau: Annotated[
            float, Setting("tau, temperature of the softmax over Q; inf: uniform", low=1e-3, high=math.inf)
        ] = 0.2,
        sec_alpha: Annotated[float, Setting("alpha, share of the newest step in Q", low=0, high=1)] = 0.5,
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
        self.tau, self.alpha, self.decay_absent, self.advantage = sec_tau, sec_alpha, decay_absent, advantage

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.q = np.zeros(len(self.arms))

    def probabilities(self, context: Context) -> Array:
        return softmax(self.q / self.tau)

    def why(self, k: int) -> str:
        return f"Q {self.q[k]:.2f}, p {self.p[k]:.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        tried = [g for g in groups if g.episodes]
        sizes = credited(tried, signals) if self.advantage == "credit" else [by_reward(g) for g in tried]
        brought: dict[int, list[float]] = {}  # |A_i| of every episode, by arm
        for group, size in zip(tried, sizes, strict=True):
            k = self.arms.of(group.task)
            if k is not None:
                brought.setdefault(k, []).extend(size)
        if not brought:
            return
        q = self.q * (1 - self.alpha) if self.decay_absent else self.q.copy()
        for k, found in brought.items():
            q[k] = (1 - self.alpha) * self.q[k] + self.alpha * float(np.mean(found))
        self.q = q

    def state_dict(self) -> dict[str, Any]:
        return {"q": self.q.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q = np.array(state["q"])


def by_reward(group: Group) -> Array:
    """|A_i| = |r_i - mean r| / std r, f64[G]; 0 where all rewards are equal."""
    return np.abs(standardised(group.rewards, 1e-8))


def credited(groups: Sequence[Group], signals: Sequence[Signal]) -> list[Array]:
    """|A| as the run's own credit has it, for every group: of each sequence the mean over its sampled tokens. A group
    that is not trained on has 0 for every episode."""
    found: dict[str, list[float]] = {}
    for signal in signals:
        on = signal.episode.sampled
        if on.any():
            size = float(np.abs(signal.advantage[on]).mean())
            found.setdefault(signal.episode.task.key, []).append(size)
    return [np.array(found.get(g.task.key, [0.0] * len(g.episodes))) for g in groups]


ARMS = [("a", 0.0), ("a", 1.0), ("b", 0.0)]
HALF, QUARTER = (
    [1.0, 1.0, 0.0, 0.0],
    [1.0, 0.0, 0.0, 0.0],
)  # |A| = 2 sqrt(p (1 - p)) on average: 1 and sqrt(3) / 2


def _q(*steps: dict[tuple[str, float], list[float]], **settings: Any) -> list[float]:
    """Q after steps in which arms earned these rewards."""
    groups = [[attempts_at(arm, rewards) for arm, rewards in step.items()] for step in steps]
    found: list[float] = after_steps(RECIPE, ARMS, *groups, settings=settings).q.tolist()
    return found


def _p(**settings: Any) -> list[float]:
    """The probabilities after one step in which the second arm was half right."""
    return list(after_steps(RECIPE, ARMS, [attempts_at(ARMS[1], HALF)], settings=settings).report().values())


def _locked() -> float:
    """The probability of one of 25 arms: all were half right twice, but the second group of this one agreed."""
    arms = [("a", float(level)) for level in range(25)]
    first = [attempts_at(arm, HALF) for arm in arms]
    report = after_steps(RECIPE, arms, first, [attempts_at(arms[0], [1.0] * 4), *first[1:]]).report()
    return float(report["a/0"])


RECIPE = Recipe(
    name="sec",
    default_base=GRPO,
    paper=Paper("Self-Evolving Curriculum for LLM Reasoning", "2505.14970", 2025),
    published_lr=1e-6,
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
        "many arms and few tasks a step lock arms out: of 25 arms that are half right, one of which had a first group that agreed, that one is "
        "not drawn again in 80 steps of 8 tasks in 65 % of runs; in 20 % where absent arms decay, in 3 % at tau 0.4, in none with both",
    ),
    stages={"curriculum": stage(Evolving)},
    claim="Probability moves from easy to hard levels, and the hardest held-out level is solved more often than with uniform "
    "sampling at equal steps.",
    manipulation=(Manipulated("a share moves by 0.1", r"curriculum\.[^ ]+", 0.1, read="range"),),
    examples=(
        ByHand(
            "half right, all right, a quarter right",
            lambda: _q({ARMS[0]: HALF, ARMS[1]: [1, 1, 1, 1], ARMS[2]: QUARTER}),
            [0.5 * 1, 0, 0.5 * 3**0.5 / 2],
        ),
        ByHand(
            "alpha 1/4, half right and then a quarter; not drawn the second time",
            lambda: _q({ARMS[0]: HALF, ARMS[2]: HALF}, {ARMS[0]: QUARTER}, sec_alpha=0.25),
            [0.75 * 0.25 + 0.25 * 3**0.5 / 2, 0, 0.25],
        ),
        ByHand(
            "and decays",
            lambda: _q({ARMS[2]: HALF}, {ARMS[0]: HALF}, sec_alpha=0.25, decay_absent=True),
            [0.25, 0, 0.75 * 0.25],
        ),
        ByHand(
            "Q = 0, 1/2, 0 and tau = 1 / (2 ln 3)", lambda: _p(sec_tau=0.5 / math.log(3)), [0.2, 0.6, 0.2]
        ),
        ByHand(
            "25 arms at Q = 3/4, one of them at 1/4 since its last group agreed: 1 in 293 tasks is its own",
            _locked,
            1 / (1 + 24 * math.exp(0.5 / 0.2)),
        ),
        ByHand("tau = inf: uniform", lambda: _p(sec_tau=math.inf), [1 / 3] * 3),
    ),
)
