"""Skill-It: draw what helps most where the losses are still high."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from etude.credit.imitate import imitate, tagged
from etude.curriculum.arms import Arms, By, ByArm, Every, Tally, softmax
from etude.errors import UserError
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.demonstrate import solution
from etude.settings import Setting, stage
from etude.types import Array, Group


def _edges(text: str) -> list[tuple[str, str]]:
    found = []
    for part in text.split(","):
        here, arrow, there = (p.strip() for p in part.partition(">"))
        if not (here and arrow and there):
            raise UserError(
                f"curriculum.graph has '{part}'; it must be own, levels, or edges such as sum>chain,sort/0>reverse/0"
            )
        found.append((here, there))
    return found


def skills(arms: Arms, graph: str, edge: float) -> Array:
    """f64[K, K], A_ij > 0 where training on i helps j; A_ii = 1. `graph`: "own" (no edges), "levels" (a level helps
    the next one of its kind), or edges such as "sum>chain,sort/0>reverse/0" between kinds or arms."""
    a = np.eye(len(arms))
    if graph == "own":
        return a
    if graph == "levels":
        kinds: dict[str, list[int]] = {}
        for k, arm in enumerate(arms):  # a kind's levels rise in the order of the arms
            if arm.options[0][1] is not None:
                kinds.setdefault(arm.name.rpartition("/")[0], []).append(k)
        pairs = [pair for row in kinds.values() for pair in pairwise(row)]
    else:
        pairs = [(i, j) for here, there in _edges(graph) for i in arms.named(here) for j in arms.named(there)]
    for i, j in pairs:
        a[i, j] = 1.0 if i == j else edge
    return a


def mixture(a: Array, losses: Array, eta: float) -> Array:
    """p_i proportional to exp(eta sum_j A_ij Lbar_j)."""
    return softmax(eta * (a @ losses))


def solution_losses(arms: Arms, probes: int, context: Any) -> Array:
    """f64[K]: -log pi per token of the solutions of `probes` tasks of every arm, drawn for this alone."""
    rng, signals, owner = context.rng("probes"), [], []
    for k, arm in enumerate(arms):
        for _ in range(probes):
            task = context.tasks.draw(arm.request(rng, ""), int(rng.integers(1 << 30)), context.seed)
            if task.reference is None and task.answer is None:
                raise UserError(
                    f"curriculum.loss is 'nll', but a task of '{arm.name}' has neither reference nor answer"
                )
            shown = solution(task, context.policy.renderer)
            signals.append(imitate(shown, tagged(shown, "demonstration")))
            owner.append(k)
    rows = context.rows(signals, lambda out: out.logp)
    means = [-float(row[s.weights["imitation"] != 0].mean()) for row, s in zip(rows, signals, strict=True)]
    return np.bincount(owner, means) / probes


class SkillGraph(ByArm):
    """Arms drawn by `mixture`. Lbar_j is the sum of the last `window` losses of arm j; at first it is 1."""

    def __init__(
        self,
        eta: Annotated[float, Setting("how sharply the mixture follows the losses; 0: uniform", low=0)] = 0.5,
        window: Annotated[int, Setting("latest losses that are added up", "looks", low=1)] = 3,
        every: Every = 10,
        graph: Annotated[
            str,
            Setting(
                "own | levels | edges such as sum>chain,sort/0>reverse/0: training on the first helps the second"
            ),
        ] = "levels",
        edge: Annotated[float, Setting("strength of an edge; of a skill on itself it is 1", low=0)] = 0.5,
        loss: Annotated[
            str,
            Setting(
                "share of wrong attempts, or -log pi per token of solutions that were not trained on",
                choices=("wrong", "nll"),
            ),
        ] = "wrong",
        probes: Annotated[
            int, Setting("solutions scored per arm and look, with loss=nll", "tasks", low=1)
        ] = 2,
        by: By = "both",
    ) -> None:
        super().__init__(by)
        self.eta, self.window, self.every, self.graph, self.edge = eta, window, every, graph, edge
        self.loss, self.probes = loss, probes

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.a = skills(self.arms, self.graph, self.edge)
        self.losses: list[Array] = []  # f64[K] each, the last `window`
        self.answers = Tally(len(self.arms))
        self.steps = 0
        self.looked = 0  # step of the last look at solutions

    @property
    def recent(self) -> Array:
        """f64[K]: Lbar."""
        return np.sum(self.losses, 0) if self.losses else np.ones(len(self.arms))

    def chances(self, context: Any) -> Array:
        if self.loss == "nll" and self.steps and self.steps % self.every == 0 and self.looked != self.steps:
            self.remember(solution_losses(self.arms, self.probes, context))
            self.looked = self.steps
        return mixture(self.a, self.recent, self.eta)

    def remember(self, losses: Array) -> None:
        self.losses = [*self.losses, losses][-self.window :]

    def why(self, k: int) -> str:
        return f"recent loss {self.recent[k]:.2f}, with what it helps {self.a[k] @ self.recent:.2f}, p {self.now[k]:.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        self.steps += 1
        if self.loss == "nll":
            return
        self.answers.add(self.arms, groups)
        tried = self.answers.tried
        if self.steps % self.every or not tried.any():
            return
        last = self.losses[-1] if self.losses else np.ones(len(self.arms))
        wrong = 1 - self.answers.right / np.maximum(tried, 1)
        self.remember(np.where(tried > 0, wrong, last))  # an arm that was not drawn keeps its loss
        self.answers.clear()

    def state_dict(self) -> dict[str, Any]:
        answers = (self.answers.right.copy(), self.answers.tried.copy())
        return {"losses": list(self.losses), "answers": answers, "steps": self.steps, "looked": self.looked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.steps, self.looked = list(state["losses"]), state["steps"], state["looked"]
        self.answers.right, self.answers.tried = (np.array(row) for row in state["answers"])


CHAIN = np.array([[1.0, 0.5], [0.0, 1.0]])  # the first skill helps the second


RECIPE = Recipe(
    name="skill_it",
    default_base=GRPO,
    n=36,
    paper=Paper(
        "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models",
        "2307.14430",
        2023,
    ),
    idea="Some skills help to learn others: one-step sums help two-step sums. Such help is written down as a graph. "
    "A skill is drawn the more often, the higher the recent losses of what it helps, itself included.",
    equation="p_i proportional to exp(eta sum_j A_ij Lbar_j);  Lbar_j = the sum of the last w losses on skill j;  at first Lbar = 1",
    departures=(
        "the graph is given, not estimated from short runs: by default a level helps the next level of its kind with 0.5; "
        "curriculum.graph takes other edges",
        "the loss of an arm is the share of its attempts since the last look that were wrong, before they were trained on; with "
        "curriculum.loss=nll it is that of fresh tasks' solutions, which imitation needs, as it makes no attempts",
        "an arm without attempts since the last look keeps its loss",
        "a look every 10 steps, where the paper has 500 to 1000",
    ),
    stages={"curriculum": stage(SkillGraph)},
    claim="On chained skills the loss of the last is lower than with uniform sampling at equal steps.",
    examples=(
        ByHand("eta = 0: uniform", lambda: mixture(CHAIN, np.array([3.0, 1.0]), 0.0), [0.5, 0.5]),
        ByHand(
            "A = I: softmax over the own losses",
            lambda: mixture(np.eye(2), np.array([0, 2 * math.log(3)]), 0.5),
            [0.25, 0.75],
        ),
        ByHand(
            "a helper of a lossy skill: sums 0 + 0.5 x 4 and 4",
            lambda: mixture(CHAIN, np.array([0.0, 4.0]), 0.5 * math.log(3)),
            [0.25, 0.75],
        ),
        ByHand("equal losses, equal columns", lambda: mixture(np.ones((3, 3)), np.ones(3), 0.5), [1 / 3] * 3),
    ),
)
