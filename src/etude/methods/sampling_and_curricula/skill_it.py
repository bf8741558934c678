"""Skill-It: draw what helps most where the losses are still high.

Some skills help to learn others; such help is written down as a graph A over the arms. An arm is drawn the more often,
the higher the recent losses of what it helps, itself included. Skill-it! A Data-Driven Skills Framework for
Understanding and Training Language Models, arXiv 2307.14430.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from etude.credit.imitate import imitate, tagged
from etude.curriculum.arms import Arms, By, ByArm, Every, Tally, softmax
from etude.errors import UserError
from etude.fixtures.curricula import after_steps, attempts_at
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.rollout.demonstrate import solution
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array, Group, Signal


def skill_graph(arms: Arms, graph: str, edge: float) -> Array:
    """A, f64[K, K]: A_ij = `edge` where training on i helps j, A_ii = 1, else 0. `graph`: "own" (no edges), "levels" (a
    level helps the next one of its kind), or edges such as "sum>chain,sort/0>reverse/0" between kinds or arms."""
    pairs: list[tuple[int, int]] = []
    if graph == "levels":
        kinds: dict[str, list[int]] = {}
        for k, arm in enumerate(arms):  # a kind's levels rise in the order of the arms
            if arm.options[0][1] is not None:
                kinds.setdefault(arm.name.rpartition("/")[0], []).append(k)
        pairs = [pair for row in kinds.values() for pair in pairwise(row)]
    elif graph != "own":
        for part in graph.split(","):
            helper, arrow, helped = (p.strip() for p in part.partition(">"))
            if not (helper and arrow and helped):
                raise UserError(
                    f"curriculum.graph has '{part}'; it must be own, levels, or edges such as sum>chain,sort/0>reverse/0"
                )
            pairs += [(i, j) for i in arms.named(helper) for j in arms.named(helped)]
    a = np.eye(len(arms))
    for i, j in pairs:
        a[i, j] = 1.0 if i == j else edge
    return a


def solution_losses(arms: Arms, probes: int, context: Context) -> Array:
    """f64[K]: -log pi per token of the solutions of `probes` tasks of every arm, drawn for this alone. Raises UserError
    for a task without a solution."""
    rng, signals, owner = context.rng("probes"), [], []
    for k, arm in enumerate(arms):
        for _ in range(probes):
            task = context.tasks.draw(arm.request(rng), int(rng.integers(1 << 30)), context.seed)
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
    """p_i proportional to exp(eta sum_j A_ij Lbar_j); Lbar_j is the sum of the last `loss_window` losses of arm j, and
    1 before there are any."""

    def __init__(
        self,
        eta: Annotated[float, Setting("how sharply the mixture follows the losses; 0: uniform", low=0)] = 0.5,
        loss_window: Annotated[int, Setting("latest losses that are added up", "updates", low=1)] = 3,
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
        probe_tasks: Annotated[
            int, Setting("solutions scored per arm and update, with loss=nll", "tasks", low=1)
        ] = 2,
        by: By = "both",
    ) -> None:
        super().__init__(by)
        self.eta, self.loss_window, self.every, self.graph, self.edge = eta, loss_window, every, graph, edge
        self.loss, self.probe_tasks = loss, probe_tasks

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.a = skill_graph(self.arms, self.graph, self.edge)
        self.losses: list[Array] = []  # f64[K] each, the last `loss_window`
        self.answers = Tally(len(self.arms))  # since the last update
        self.steps = 0
        self.scored_at = 0  # the step at which solutions were scored last

    @property
    def recent(self) -> Array:
        """f64[K]: Lbar."""
        return np.sum(self.losses, 0) if self.losses else np.ones(len(self.arms))

    def probabilities(self, context: Context) -> Array:
        due = self.steps and self.steps % self.every == 0 and self.scored_at != self.steps
        if self.loss == "nll" and due:
            self._remember(solution_losses(self.arms, self.probe_tasks, context))
            self.scored_at = self.steps
        return softmax(self.eta * (self.a @ self.recent))

    def why(self, k: int) -> str:
        return f"recent loss {self.recent[k]:.2f}, with what it helps {self.a[k] @ self.recent:.2f}, p {self.p[k]:.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        self.steps += 1
        if self.loss == "nll":
            return
        self.answers.add(self.arms, groups)
        tried = self.answers.tried
        if self.steps % self.every or not tried.any():
            return
        last = self.losses[-1] if self.losses else np.ones(len(self.arms))
        wrong = 1 - self.answers.right / np.maximum(tried, 1)
        self._remember(np.where(tried > 0, wrong, last))  # an arm that was not drawn keeps its loss
        self.answers.clear()

    def _remember(self, losses: Array) -> None:
        self.losses = [*self.losses, losses][-self.loss_window :]

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self.losses),
            "answers": self.answers.state_dict(),
            "steps": self.steps,
            "scored_at": self.scored_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.steps, self.scored_at = list(state["losses"]), state["steps"], state["scored_at"]
        self.answers.load_state_dict(state["answers"])


CHAIN = [("a", 0.0), ("a", 1.0)]  # the first skill helps the second
HALF, WRONG, RIGHT = [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]


def _p(*steps: Sequence[Sequence[float]], **settings: Any) -> list[float]:
    """The probabilities of the two skills after steps with these rewards of each, updated every step."""
    groups = [[attempts_at(arm, r) for arm, r in zip(CHAIN, rewards, strict=False)] for rewards in steps]
    found = after_steps(RECIPE, CHAIN, *groups, settings={"every": 1, **settings}).report()
    return list(found.values())


RECIPE = Recipe(
    name="skill_it",
    default_base=GRPO,
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
        "the loss of an arm is the share of its attempts since the last update that were wrong, before they were trained on; with "
        "curriculum.loss=nll it is that of fresh tasks' solutions, which imitation needs, as it makes no attempts",
        "an arm without attempts since the last update keeps its loss",
        "an update every 10 steps, where the paper has 500 to 1000",
    ),
    stages={"curriculum": stage(SkillGraph)},
    claim="On chained skills the loss of the last is lower than with uniform sampling at equal steps.",
    manipulation=(Manipulated("a share moves by 0.1", r"curriculum\.[^ ]+", 0.1, read="range"),),
    examples=(
        ByHand("eta = 0: uniform", lambda: _p([HALF, WRONG], eta=0), [0.5, 0.5]),
        ByHand(
            "A = I, losses 0 and 1: softmax over the own losses",
            lambda: _p([RIGHT, WRONG], eta=math.log(3), graph="own"),
            [0.25, 0.75],
        ),
        ByHand(
            "the first helps the second: sums 0 + 0.5 x 1 and 1, eta = 2 ln 3",
            lambda: _p([RIGHT, WRONG], eta=2 * math.log(3)),
            [0.25, 0.75],
        ),
        ByHand(
            "not the other way: sums 1 + 0.5 x 0 and 0",
            lambda: _p([WRONG, RIGHT], eta=math.log(3)),
            [0.75, 0.25],
        ),
        ByHand("at first Lbar = 1: sums 1.5 and 1", lambda: _p(eta=2 * math.log(3)), [0.75, 0.25]),
        ByHand(
            "window 2: 1/2 + 0 against the 0 + 0 of the last two",
            lambda: _p(
                [WRONG, WRONG], [HALF, RIGHT], [RIGHT, RIGHT], eta=2 * math.log(3), loss_window=2, graph="own"
            ),
            [0.75, 0.25],
        ),
        ByHand(
            "the second is not drawn and keeps its loss: 1 + 0 against 1 + 1",
            lambda: _p([WRONG, WRONG], [RIGHT], eta=math.log(3), graph="own"),
            [0.25, 0.75],
        ),
        ByHand(
            "an update every second step: 1 of 4 right against 3 of 4",
            lambda: _p([WRONG, RIGHT], [HALF, HALF], eta=2 * math.log(3), graph="own", every=2),
            [0.75, 0.25],
        ),
    ),
)
