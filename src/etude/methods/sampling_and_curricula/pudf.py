"""PUDF: item response theory says which tasks the model is able to learn from.

Psychologists measure the difficulty of test items and the ability of those who take the test on one scale (the Rasch
model). Items are the arms, the policy takes the test while it trains, and it trains on what is no harder than it is able
to do. A Psychology-based Unified Dynamic Framework for Curriculum Learning, arXiv 2408.05326.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from etude.curriculum.arms import By, ByArm, Every, Tally, evenly
from etude.fixtures.curricula import after_steps, attempts_at
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array, Group, Signal

PRIOR_B = 3.0  # standard deviation of the prior of difficulties, logits; of abilities it is 1


def negative_log_likelihood(theta: Array, b: Array, right: Array, tried: Array) -> Array:
    """-log P of the answers, f64[W, K], P(right) = sigmoid(theta - b), for abilities f64[W, 1] and difficulties
    f64[1, K]; of `tried` answers `right` were right."""
    x = theta - b
    return right * np.logaddexp(0, -x) + (tried - right) * np.logaddexp(0, x)


def fit_rasch(right: Array, tried: Array) -> tuple[Array, Array]:
    """Abilities theta f64[W] and difficulties b f64[K] in logits: the maximum of their posterior, given counts f64[W, K]
    of right answers and of all answers by W test takers to K items; theta ~ N(0, 1), b ~ N(0, 3^2)."""
    takers, items = right.shape

    def loss(point: Array) -> tuple[float, Array]:
        theta, b = point[:takers, None], point[None, takers:]
        likelihood = negative_log_likelihood(theta, b, right, tried).sum()
        prior = (theta**2).sum() / 2 + (b**2).sum() / (2 * PRIOR_B**2)
        pull = tried * expit(theta - b) - right  # d(-log likelihood) / d theta = -d(-log likelihood) / d b
        gradient = np.concatenate([pull.sum(1) + theta[:, 0], -pull.sum(0) + b[0] / PRIOR_B**2])
        return float(likelihood + prior), gradient

    found = minimize(loss, np.zeros(takers + items), jac=True, method="L-BFGS-B", options={"gtol": 1e-8})
    return found.x[:takers], found.x[takers:]


def fit_ability(b: Array, right: Array, tried: Array) -> float:
    """argmax_theta log N(theta; 0, 1) + log P(answers), given difficulties f64[K] and counts f64[K]."""
    found = minimize_scalar(
        lambda theta: theta**2 / 2 + float(negative_log_likelihood(np.array(theta), b, right, tried).sum()),
        bracket=(-1.0, 1.0),
        options={"xtol": 1e-10},
    )
    return float(found.x)


class Ability(ByArm):
    """First every arm is drawn alike, and the policies of these steps are the test takers whose answers say how hard
    each arm is. From then on only arms with b_c <= cap are drawn, evenly."""

    def __init__(
        self,
        crowd: Annotated[
            int, Setting("updates from which difficulties are fitted, all arms open", "updates", low=1)
        ] = 3,
        every: Every = 5,
        creep: Annotated[
            float, Setting("how far the cap rises where ability did not", "logits", low=0)
        ] = 0.1,
        min_arms: Annotated[int, Setting("arms that are always open, the easiest", "arms", low=1)] = 3,
        by: By = "both",
    ) -> None:
        super().__init__(by)
        self.crowd, self.every, self.creep, self.min_arms = crowd, every, creep, min_arms

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.answers = Tally(len(self.arms))  # since the last update
        self.takers: list[tuple[Array, Array]] = []  # (right, tried) of each, until difficulties are fitted
        self.difficulty: Array | None = None  # b, f64[K]
        self.cap = self.best = self.theta = -np.inf
        self.steps = 0

    def probabilities(self, context: Context) -> Array:
        if self.difficulty is None:
            return evenly(np.ones(len(self.arms)))
        is_open = self.difficulty <= self.cap
        if is_open.sum() < self.min_arms:
            is_open = np.zeros(len(self.arms), bool)
            is_open[np.argsort(self.difficulty, kind="stable")[: self.min_arms]] = True
        return evenly(is_open)

    def why(self, k: int) -> str:
        if self.difficulty is None:
            return "difficulties are being measured"
        return f"difficulty {self.difficulty[k]:+.2f}, ability {self.theta:+.2f}, cap {self.cap:+.2f}"

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        self.answers.add(self.arms, groups)
        self.steps += 1
        if self.steps % self.every or not self.answers.tried.any():
            return
        right, tried = self.answers.right, self.answers.tried
        if self.difficulty is None:
            self.takers.append((right, tried))
            if len(self.takers) >= self.crowd and np.all(sum(t for _, t in self.takers) > 0):
                self.difficulty = fit_rasch(*(np.stack(rows) for rows in zip(*self.takers, strict=True)))[1]
                self.takers = []
        if self.difficulty is not None:
            self.theta = fit_ability(self.difficulty, right, tried)
            if self.theta > self.best:
                self.cap = self.best = self.theta
            else:
                self.cap += self.creep
        self.answers.clear()

    def report(self) -> Mapping[str, float]:
        if self.difficulty is None:
            return super().report()
        hard = {f"difficulty of {n}": float(b) for n, b in zip(self.arms.names, self.difficulty, strict=True)}
        return {**super().report(), "estimated ability": self.theta, "difficulty cap": self.cap, **hard}

    def state_dict(self) -> dict[str, Any]:
        return {
            "answers": self.answers.state_dict(),
            "takers": list(self.takers),
            "difficulty": self.difficulty,
            "levels": (self.cap, self.best, self.theta),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.answers.load_state_dict(state["answers"])
        self.takers, self.difficulty = list(state["takers"]), state["difficulty"]
        self.cap, self.best, self.theta = state["levels"]
        self.steps = state["steps"]


ITEMS = [("a", 0.0), ("a", 1.0)]


def _after(*answers: tuple[Sequence[float], Sequence[float]], **settings: Any) -> Ability:
    """The curriculum over two items after steps with these rewards for each; difficulties from the first `crowd`."""
    steps = [[attempts_at(i, found) for i, found in zip(ITEMS, both, strict=True)] for both in answers]
    curriculum: Ability = after_steps(
        RECIPE, ITEMS, *steps, settings={"crowd": 1, "every": 1, "min_arms": 1, **settings}
    )
    return curriculum


MIRRORED = ([1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0])  # theta = 0 and b = -x, x by symmetry
UNEVEN = ([1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0])


def _posterior(later: tuple[Sequence[float], Sequence[float]] | None = None) -> list[float]:
    """Derivatives of the log posterior, 0 at its maximum, after UNEVEN, or later answers to the two items (none: []):
    of theta, and of the difficulties where theta is that of the answers that they were fitted to."""
    found = _after(UNEVEN, later) if later else _after(UNEVEN)
    assert found.difficulty is not None
    counts = [(sum(answers), len(answers)) for answers in (later or UNEVEN)]
    x = found.theta - found.difficulty
    pulls = [n / (1 + math.exp(-x[k])) - right for k, (right, n) in enumerate(counts)]
    of_b = [] if later else [pull - b / 9 for pull, b in zip(pulls, found.difficulty, strict=True)]
    return [found.theta + sum(pulls), *of_b]


def _fitted(*answers: tuple[Sequence[float], Sequence[float]], **settings: Any) -> bool:
    return _after(*answers, **settings).difficulty is not None


def _caps(creep: float) -> list[float]:
    """What the cap is above theta = 0 after no progress, again none, progress (then it is theta), and none again."""
    solved = ([1.0] * 4, [1.0] * 4)
    runs = [[MIRRORED] * 2, [MIRRORED] * 3, [MIRRORED] * 3 + [solved], [MIRRORED, solved, MIRRORED]]
    found = [_after(*steps, creep=creep) for steps in runs]
    return [found[0].cap, found[1].cap, found[2].cap - found[2].theta, found[3].cap - found[3].best]


def _open(steps: int, **settings: Any) -> list[float]:
    """The probabilities of the two items after that many steps of the same answers."""
    return list(_after(*[MIRRORED] * steps, **settings).report().values())[:2]


RECIPE = Recipe(
    name="pudf",
    default_base=GRPO,
    paper=Paper("A Psychology-based Unified Dynamic Framework for Curriculum Learning", "2408.05326", 2024),
    published_lr=1e-4,
    idea="Psychologists measure the difficulty of test items and the ability of those who take the test on one scale. "
    "Here the items are kinds of tasks at their levels, and the policy takes the test while it trains. "
    "It trains on what is no harder than it is able to do, and the bound rises with its ability.",
    equation="P(right) = sigmoid(theta - b_c);  theta = argmax log N(theta; 0, 1) + log P(answers);  draw {c: b_c <= cap}, "
    "cap = theta if theta > best so far, else cap + 0.1",
    departures=(
        "the artificial crowd that fits the difficulties is the policy itself in its first updates (curriculum.crowd x curriculum.every "
        "steps, all arms drawn evenly), where the paper fine-tunes several models beforehand; then they are kept fixed, as in the paper",
        "items are arms rather than tasks, since a generated task is rarely drawn twice; an arm's answers are binomial",
        "the Rasch model is fitted by its posterior's maximum (SciPy, L-BFGS), where the paper has variational inference (py-irt)",
        "guess: difficulties have the prior N(0, 3^2); the paper's is vaguer",
        "the probe set is the attempts since the last update, on open arms; one update is one epoch",
        "it reads attempts: where a run only imitates demonstrations it stays uniform",
    ),
    stages={"curriculum": stage(Ability)},
    claim="On sums of rising length a target accuracy is reached with fewer examples than in random order.",
    manipulation=(Manipulated("a share moves by 0.1", r"curriculum\.[^ ]+/[^ ]+", 0.1, read="range"),),
    examples=(
        ByHand("3 and 2 of 4 right: ability and difficulties", _posterior, [0, 0, 0]),
        ByHand("later 1 and 2 of 4", lambda: _posterior(([1, 0, 0, 0], [1, 1, 0, 0])), [0]),
        ByHand("later the first item alone", lambda: _posterior(([1, 1, 1, 0], [])), [0]),
        ByHand(
            "no progress: the cap creeps; progress: it is theta", lambda: _caps(0.25), [0.25, 0.5, 0, 0.25]
        ),
        ByHand("the cap 0 leaves the easier item", lambda: _open(1), [1, 0]),
        ByHand("a cap above the harder item's b < 1 opens both", lambda: _open(2, creep=1.0), [0.5, 0.5]),
        ByHand("two arms are always open", lambda: _open(1, min_arms=2), [0.5, 0.5]),
        ByHand("until difficulties are known all are open", lambda: _open(1, crowd=2), [0.5, 0.5]),
        ByHand(
            "fitted from a crowd of two, from the second step, once both items were answered",
            lambda: [
                *(_fitted(*[UNEVEN] * n, crowd=2) for n in (1, 2)),
                *(_fitted(*[UNEVEN] * n, every=2) for n in (1, 2)),
                _fitted(([1.0], [])),
                _fitted(([1.0], []), ([], [1.0])),
            ],
            [0, 1, 0, 1, 0, 1],
        ),
    ),
)
