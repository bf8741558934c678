"""PUDF: item response theory says which tasks the model is able to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from etude.curriculum.arms import By, ByArm, Every, Tally, evenly
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import Setting, stage
from etude.types import Array, Group

SPREAD = 3.0  # standard deviation of difficulties, logits


def unlikely(theta: Array, b: Array, right: Array, tried: Array) -> Array:
    """-log likelihood of each cell, f64[W, K], for abilities f64[W, 1] and difficulties f64[1, K]."""
    x = theta - b
    return right * np.logaddexp(0, -x) + (tried - right) * np.logaddexp(0, x)


def rasch(right: Array, tried: Array, spread: float = SPREAD) -> tuple[Array, Array]:
    """Abilities f64[W] and difficulties f64[K], in logits, that are likeliest given counts f64[W, K] of right
    answers and of answers by each of W takers to each of K items."""
    takers, items = right.shape

    def loss(point: Array) -> tuple[float, Array]:
        theta, b = point[:takers, None], point[None, takers:]
        cells = unlikely(theta, b, right, tried)
        pull = tried * expit(theta - b) - right  # d(-log likelihood) / d theta
        slope = np.concatenate([pull.sum(1) + theta[:, 0], -pull.sum(0) + b[0] / spread**2])
        return float(cells.sum() + (theta**2).sum() / 2 + (b**2).sum() / (2 * spread**2)), slope

    found = minimize(loss, np.zeros(takers + items), jac=True, method="L-BFGS-B", options={"gtol": 1e-8})
    return found.x[:takers], found.x[takers:]


def ability(b: Array, right: Array, tried: Array) -> float:
    """argmax_theta log N(theta; 0, 1) + log likelihood, given difficulties f64[K] and counts f64[K]."""
    found = minimize_scalar(
        lambda theta: theta**2 / 2 + float(unlikely(np.array(theta), b, right, tried).sum()),
        bracket=(-1.0, 1.0),
        options={"xtol": 1e-10},
    )
    return float(found.x)


def raised(cap: float, best: float, theta: float, creep: float) -> tuple[float, float]:
    """(cap, best): the best ability so far, or a little more where there was no progress."""
    return (theta, theta) if theta > best else (cap + creep, best)


class Ability(ByArm):
    """First every arm is drawn alike and the policies of these steps are the takers whose answers say how hard each
    arm is. From then on only arms that are no harder than the policy is able are drawn, evenly."""

    def __init__(
        self,
        crowd: Annotated[
            int, Setting("looks from which difficulties are fitted, all arms open", "looks", low=1)
        ] = 3,
        every: Every = 5,
        creep: Annotated[
            float, Setting("how far the cap rises where ability did not", "logits", low=0)
        ] = 0.1,
        least: Annotated[int, Setting("arms that are always open, the easiest", "arms", low=1)] = 3,
        by: By = "both",
    ) -> None:
        super().__init__(by)
        self.crowd, self.every, self.creep, self.least = crowd, every, creep, least

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.answers = Tally(len(self.arms))  # since the last look
        self.takers: list[
            tuple[Array, Array]
        ] = []  # (right, tried) of each look, while difficulties are unknown
        self.difficulty: Array | None = None
        self.cap = self.best = self.theta = -np.inf
        self.steps = 0

    def chances(self, context: Any) -> Array:
        if self.difficulty is None:
            return evenly(np.ones(len(self.arms)))
        chosen = self.difficulty <= self.cap
        if chosen.sum() < self.least:
            chosen = np.zeros(len(self.arms), bool)
            chosen[np.argsort(self.difficulty, kind="stable")[: self.least]] = True
        return evenly(chosen)

    def why(self, k: int) -> str:
        if self.difficulty is None:
            return "difficulties are being measured"
        return f"difficulty {self.difficulty[k]:+.2f}, ability {self.theta:+.2f}, cap {self.cap:+.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        self.answers.add(self.arms, groups)
        self.steps += 1
        if self.steps % self.every or not self.answers.tried.any():
            return
        right, tried = self.answers.right, self.answers.tried
        if self.difficulty is None:
            self.takers.append((right, tried))
            if len(self.takers) >= self.crowd and np.all(sum(t for _, t in self.takers) > 0):
                counts = [np.stack(rows) for rows in zip(*self.takers, strict=True)]
                self.difficulty = rasch(counts[0], counts[1])[1]
                self.takers = []
        if self.difficulty is not None:
            self.theta = ability(self.difficulty, right, tried)
            self.cap, self.best = raised(self.cap, self.best, self.theta, self.creep)
        self.answers.clear()

    def report(self) -> dict[str, float]:
        if self.difficulty is None:
            return super().report()
        hard = {f"difficulty of {n}": float(b) for n, b in zip(self.arms.names, self.difficulty, strict=True)}
        return {**super().report(), "estimated ability": self.theta, "difficulty cap": self.cap, **hard}

    def state_dict(self) -> dict[str, Any]:
        return {
            "answers": (self.answers.right.copy(), self.answers.tried.copy()),
            "takers": list(self.takers),
            "difficulty": self.difficulty,
            "levels": (self.cap, self.best, self.theta),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.answers.right, self.answers.tried = (np.array(row) for row in state["answers"])
        self.takers, self.difficulty = list(state["takers"]), state["difficulty"]
        self.cap, self.best, self.theta = state["levels"]
        self.steps = state["steps"]


def _mirrored() -> list[float]:
    """Two items, answered right 3 and 1 times in 4 by one taker: theta = 0 and b = -x, x by symmetry."""
    (theta,), b = rasch(np.array([[3.0, 1.0]]), np.array([[4.0, 4.0]]))
    return [theta, b[0] + b[1]]


RECIPE = Recipe(
    name="pudf",
    default_base=GRPO,
    n=16,
    paper=Paper("A Psychology-based Unified Dynamic Framework for Curriculum Learning", "2408.05326", 2024),
    idea="Psychologists measure the difficulty of test items and the ability of those who take the test on one scale. "
    "Here the items are kinds of tasks at their levels, and the policy takes the test while it trains. "
    "It trains on what is no harder than it is able to do, and the bound rises with its ability.",
    equation="P(right) = sigmoid(theta - b_c);  theta = argmax log N(theta; 0, 1) + log P(answers);  draw {c: b_c <= cap}, "
    "cap = theta if theta > best so far, else cap + 0.1",
    departures=(
        "the artificial crowd that fits the difficulties is the policy itself in its first looks (curriculum.crowd x curriculum.every "
        "steps, all arms drawn evenly), where the paper fine-tunes several models beforehand; then they are kept fixed, as in the paper",
        "items are arms rather than tasks, since a generated task is rarely drawn twice; an arm's answers are binomial",
        "the Rasch model is fitted by its posterior's maximum (SciPy, L-BFGS), where the paper has variational inference (py-irt)",
        "guess: difficulties have the prior N(0, 3^2); the paper's is vaguer",
        "the probe set is the attempts of the last look, on open arms; one look is one epoch",
        "it reads attempts: where a run only imitates demonstrations it stays uniform",
    ),
    stages={"curriculum": stage(Ability)},
    claim="On sums of rising length a target accuracy is reached with fewer examples than in random order.",
    examples=(
        ByHand(
            "one right answer on an item of b = 0.5: theta = 1 - sigmoid(theta - b)",
            lambda: ability(np.array([0.5]), np.ones(1), np.ones(1)),
            0.5,
        ),
        ByHand("half right on b = 0", lambda: ability(np.zeros(1), np.ones(1), 2 * np.ones(1)), 0.0),
        ByHand("mirrored items: ability 0, difficulties opposite", _mirrored, [0.0, 0.0]),
        ByHand("progress raises the cap", lambda: raised(0.7, 0.5, 0.6, 0.1), [0.6, 0.6]),
        ByHand("no progress raises it a little", lambda: raised(0.7, 0.5, 0.4, 0.1), [0.8, 0.5]),
    ),
)
