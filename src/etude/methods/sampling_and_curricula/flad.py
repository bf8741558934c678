"""EXP3-FLAD and UCB1-FLAD: other tasks are drawn by how well their gradients point to where the target's do.

One arm, the target, is what the user cares about; the others may help. Another arm helps if learning it moves the
weights the way that learning the target does: its reward is the cosine of the two gradients. Two bandits draw by it.
Improving Few-Shot Generalization by Exploring and Exploiting Auxiliary Data, arXiv 2302.00674.

Notation: K arms beside the target, numbered by their place in `others`; g_a, g_T gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import pack
from etude.curriculum.arms import By, ByArm, Every, softmax
from etude.errors import UserError
from etude.fixtures.curricula import ExampleContext, example_curriculum
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks import TaskSet
from etude.types import Array, Group, Request, Signal

TARGET = -1  # the target's number among the parts of a step
PART = "part"  # extras row: the number of the part that a token belongs to
CHUNK = 256  # rows whose probabilities over the vocabulary are held at once


# ---- the reward of an arm ----------------------------------------------------------------------------------


@torch.no_grad()
def head_gradients(parts: Mapping[int, Sequence[Signal]], context: Context) -> Iterator[tuple[int, Tensor]]:
    """g = sum_t c_t (onehot(y_t) - softmax(W h_t)) h_t^T, f32[V, D], of every part in turn: the gradient of
    sum_t c_t log pi(y_t) in the output projection W. c_t is weight x advantage in a policy gradient, and the weight alone
    where a token is imitated. One forward pass for all parts and no backward pass; one gradient at a time, since each is
    as large as W."""
    signals = [
        replace(s, extras={**s.extras, PART: np.full(len(s.advantage), k, np.float32)})
        for k, found in parts.items()
        for s in found
    ]
    batch = pack(signals, context.sampling)
    out = context.policy.score(batch, frozenset({"hidden"}))
    assert out.hidden is not None
    batch = batch.to(out.logp.device)
    c = batch.weight("policy") * batch.advantage
    c = (c + sum(batch.weight(n) for n in batch.weights if n != "policy")) * batch.needed
    for k in parts:
        rows = ((batch.extras[PART] == k) & (c != 0)).nonzero()[:, 0]
        gradient = torch.zeros(())
        for chunk in rows.split(CHUNK):
            logits = out.logits(chunk).float() / context.sampling.temperature
            error = -torch.softmax(logits, -1)
            error[torch.arange(len(chunk), device=error.device), batch.tokens[chunk]] += 1
            gradient = gradient + (error * c[chunk][:, None]).T @ out.hidden[chunk].float()
        yield k, gradient


def alignments(parts: Mapping[int, Sequence[Signal]], most: int, context: Context) -> dict[int, float]:
    """{a: cos(g_a, g_T)} of the arms with a gradient; {} where the target has none. At most `most` signals of each arm
    are looked at, and as many of the target as of all arms together; 0: all."""
    arms = {a: _drawn(found, most, a, context) for a, found in parts.items() if a != TARGET}
    arms = {a: found for a, found in arms.items() if found}
    target = _drawn(parts.get(TARGET, ()), most * len(arms), TARGET, context)
    if not arms or not target:
        return {}
    gradients = head_gradients({TARGET: target, **arms}, context)
    _, g_target = next(gradients)
    return {a: _cosine(g, g_target) for a, g in gradients}


def _cosine(a: Tensor, b: Tensor) -> float:
    """<a, b> / (|a| |b|); 0 where one of them is 0."""
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size else 0.0


def _drawn(signals: Sequence[Signal], most: int, k: int, context: Context) -> list[Signal]:
    """Up to `most` (0: all) of the signals that have a gradient, each equally likely."""
    alive = [s for s in signals if _has_gradient(s)]
    if not most or len(alive) <= most:
        return alive
    picks = context.rng("align", k).choice(len(alive), most, replace=False)
    return [alive[i] for i in sorted(picks)]


def _has_gradient(signal: Signal) -> bool:
    return any(
        ((row != 0) & ((signal.advantage != 0) if name == "policy" else True)).any()
        for name, row in signal.weights.items()
    )


# ---- the curricula -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Aligned(ByArm):
    """Of every step `target_share` is the target's; the other arms compete for the rest. A bandit says which of them are
    played (`play`) and learns from their cosines (`learn`)."""

    target: Annotated[
        str, Setting("kind, or arm such as sort/4, that the others are to help; empty: the last arm")
    ] = ""
    target_share: Annotated[
        float, Setting("share of the tasks that are the target's", low=0.01, high=0.99)
    ] = 0.5
    episodes: Annotated[
        int,
        Setting(
            "episodes of an arm whose gradient is taken, of the target as many as of all arms; 0: all", low=0
        ),
    ] = 2
    every: Every = 1
    by: By = "both"

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.p = np.zeros(len(self.arms))
        self.targets = self.arms.named(self.target or self.arms.names[-1])
        self.others = [k for k in range(len(self.arms)) if k not in self.targets]
        if not self.others:
            raise UserError(
                f"curriculum.target '{self.target}' leaves no other arm of {', '.join(self.arms.names)}"
            )
        self.part: dict[int | None, int] = {
            **{k: a for a, k in enumerate(self.others)},
            **dict.fromkeys(self.targets, TARGET),
        }
        self.steps = 0

    def play(self, n: int, rng: np.random.Generator) -> list[int]:
        """Which of the others to draw n tasks from."""
        raise NotImplementedError

    def learn(self, found: Mapping[int, float]) -> None:
        """`found`: {a: cos(g_a, g_T)} of what was played in this step."""
        raise NotImplementedError

    def why_played(self, a: int) -> str:
        raise NotImplementedError

    def next(self, n: int, context: Context) -> list[Request]:
        rng = context.rng("arms", context.drawn)
        aimed = math.floor(n * self.target_share + rng.random())  # its expectation is n x target_share
        played = self.play(n - aimed, rng)
        picks = [(int(k), "the target") for k in rng.choice(self.targets, aimed)]
        picks += [(self.others[a], self.why_played(a)) for a in played]
        self.p = np.bincount([k for k, _ in picks], minlength=len(self.arms)) / n
        return [self.arms[k].request(rng, why) for k, why in (picks[i] for i in rng.permutation(n))]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            part = {g.task.key: self.part.get(self.arms.of(g.task)) for g in groups}
            parts: dict[int, list[Signal]] = {}
            for signal in signals:
                k = part.get(signal.episode.task.key)
                if k is not None:
                    parts.setdefault(k, []).append(signal)
            cosines = alignments(parts, self.episodes, context)
            if cosines:  # of an arm whose rewards were all equal it is 0
                tried = {a: 0.0 for a in range(len(self.others)) if a in part.values()}
                self.learn({**tried, **cosines})

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


class Exp3(Aligned):
    """Arms are drawn from pi; R_a adds up cos(g_a, g_T) / pi(a), once in every update in which arm a was played."""

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.totals, self.turn = np.zeros(len(self.others)), 1  # R, f64[K], and t
        self.pi = self._pi()

    def _pi(self) -> Array:
        """f64[K]: (1 - K E_t) softmax(E_{t-1} R) + E_t;  E_t = min(1/K, sqrt(ln K / (K t))), E_0 = 1/K."""
        k, t = len(self.totals), self.turn
        before, now = (min(1 / k, math.sqrt(math.log(k) / (k * i))) if i else 1 / k for i in (t - 1, t))
        return (1 - k * now) * softmax(before * self.totals) + now

    def play(self, n: int, rng: np.random.Generator) -> list[int]:
        self.pi = self._pi()
        found: list[int] = rng.choice(len(self.others), n, p=self.pi).tolist()
        return found

    def why_played(self, a: int) -> str:
        return f"R {self.totals[a]:.2f}, p {self.pi[a]:.2f}"

    def learn(self, found: Mapping[int, float]) -> None:
        """R_a += cos(g_a, g_T) / pi(a), however often a was played."""
        pi = self._pi()
        for a, cos in found.items():
            self.totals[a] += cos / pi[a]
        self.turn += 1

    def report(self) -> Mapping[str, float]:
        """{arm: its probability}."""
        names, rest = self.arms.names, 1 - self.target_share
        pi = {names[k]: rest * float(p) for k, p in zip(self.others, self.pi, strict=True)}
        return {**pi, **{names[k]: self.target_share / len(self.targets) for k in self.targets}}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "totals": self.totals.tolist(), "turn": self.turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.totals, self.turn = np.array(state["totals"]), state["turn"]


@dataclass(eq=False)
class Ucb1(Aligned):
    """The arm of the highest index R_a + sqrt(2 ln t / n_a) is played, task after task; R_a is a moving mean of cosines,
    n_a the tasks of arm a, t of all."""

    ucb1_beta: Annotated[float, Setting("beta, share of the newest cosine in the mean", low=0, high=1)] = 0.1

    def prepare(self, tasks: TaskSet) -> None:
        super().prepare(tasks)
        self.means, self.known = np.zeros(len(self.others)), np.zeros(len(self.others), bool)  # R
        self.plays = np.zeros(len(self.others))  # n

    def play(self, n: int, rng: np.random.Generator) -> list[int]:
        played = []
        for _ in range(n):
            with np.errstate(divide="ignore", invalid="ignore"):
                bonus = np.sqrt(2 * math.log(max(1.0, self.plays.sum())) / self.plays)
            played.append(int(np.argmax(np.where(self.plays > 0, self.means + bonus, np.inf))))
            self.plays[played[-1]] += 1
        return played

    def why_played(self, a: int) -> str:
        return f"mean cosine {self.means[a]:+.2f}, played {self.plays[a]:.0f} times"

    def learn(self, found: Mapping[int, float]) -> None:
        """R_a <- (1 - beta) R_a + beta cos(g_a, g_T); the first measurement stands as it is."""
        for a, cos in found.items():
            self.means[a] += (self.ucb1_beta if self.known[a] else 1.0) * (cos - self.means[a])
            self.known[a] = True

    def state_dict(self) -> dict[str, Any]:
        own = {"means": self.means.tolist(), "known": self.known.tolist(), "plays": self.plays.tolist()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.means, self.known, self.plays = (np.array(state[n]) for n in ("means", "known", "plays"))


# ---- recipes and their numbers -----------------------------------------------------------------------------


def _after(recipe: Recipe, *cosines: Mapping[int, float]) -> Any:
    """The curriculum over x, y and the target z after steps of eight tasks with these cosines of x and y; it has drawn for
    the next step."""
    curriculum = example_curriculum(recipe, [("x", 0), ("y", 0), ("z", 0)])
    for number, found in enumerate(cosines):
        curriculum.next(8, ExampleContext(number))
        curriculum.learn(found)
    curriculum.next(8, ExampleContext(len(cosines)))
    return curriculum


def _pi(exponent: float, kept: float) -> float:
    """kept / (1 + exp(exponent)) + (1 - kept) / 2: pi of one of two arms."""
    return kept / (1 + math.exp(exponent)) + (1 - kept) / 2


PAPER = Paper(
    "Improving Few-Shot Generalization by Exploring and Exploiting Auxiliary Data", "2302.00674", 2023
)
DEPARTURES = (
    "both gradients are taken just after the step's update instead of before it, of sum A log pi (imitation: sum log pi) in the output "
    "projection, input side excluded, of untruncated probabilities",
    "gradients are compared on 2 episodes of each arm and as many of the target as of all arms, drawn alike among those that teach "
    "something (curriculum.episodes=0: all); that costs some 5 % of a step, and curriculum.every=4 has it every fourth step alone",
    "a step plays several arms at once; an arm whose rewards were all equal has cosine 0; where the target's were, nothing is learnt",
    "half of the tasks are the target's; by default it is the last arm",
)
CLAIM = "With distracting kinds of tasks around, related kinds get more than their even share, and the target is learnt better."

EXP3: Recipe = Recipe(
    name="exp3_flad",
    default_base=GRPO,
    paper=PAPER,
    published_lr=1e-4,
    idea="One kind of task is what you care about; others may help. Another kind helps if learning it moves the weights the way that "
    "learning the target does. Kinds are drawn by how much they have helped so far, and none is ever given up.",
    equation="pi(a) = (1 - K E_t) softmax(E_{t-1} R_a) + E_t;  E_t = min(1/K, sqrt(ln K / (K t)));  R_a += cos(g_a, g_T) / pi(a)",
    departures=(
        *DEPARTURES,
        "t counts updates, as in the paper; the release has ten times its micro-batches",
    ),
    stages={"curriculum": stage(Exp3)},
    claim=CLAIM,
    manipulation=(Manipulated("a share moves by 0.1", r"curriculum\.[^ ]+", 0.1, read="range"),),
    examples=(
        ByHand("at t = 1 evenly", lambda: list(_after(EXP3).report().values()), [0.25, 0.25, 0.5]),
        ByHand(
            "R = -0.2 / 0.5 and 0.4 / 0.5, though eight tasks were drawn",
            lambda: _after(EXP3, {0: -0.2, 1: 0.4}).totals,
            [-0.4, 0.8],
        ),
        ByHand(
            "then E_1 = 1/2, E_2 = sqrt(ln 2 / 4): 1 - 2 E_2 = 1 - sqrt(ln 2)",
            lambda: _after(EXP3, {0: -0.2, 1: 0.4}).pi,
            [_pi(0.5 * 1.2, 1 - math.sqrt(math.log(2))), _pi(-0.5 * 1.2, 1 - math.sqrt(math.log(2)))],
        ),
    ),
)

UCB1: Recipe = Recipe(
    name="ucb1_flad",
    default_base=GRPO,
    paper=PAPER,
    published_lr=1e-4,
    idea="One kind of task is what you care about; others may help, if learning them moves the weights the way the target does. "
    "Always the kind is played that may be the best, given how well it did and how seldom it was tried.",
    equation="play argmax R_a + sqrt(2 ln t / n_a);  R_a <- (1 - beta) R_a + beta cos(g_a, g_T)",
    departures=(
        *DEPARTURES,
        "an arm is first measured while it is played, where the paper spends 1000 samples on it beforehand, and counts as 0 until then; "
        "n_a counts tasks",
    ),
    stages={"curriculum": stage(Ucb1)},
    claim=CLAIM,
    manipulation=(Manipulated("a share moves by 0.1", r"curriculum\.[^ ]+", 0.1, read="range"),),
    examples=(
        ByHand("not measured yet: in turn", lambda: _after(UCB1).plays, [2, 2]),
        ByHand(
            "R = 0.4 and -0.4: of twelve further tasks one is y's",
            lambda: _after(UCB1, *[{0: 0.4, 1: -0.4}] * 3).plays,
            [13, 3],
        ),
        ByHand(
            "the first cosines stand; of the next, beta = 0.1",
            lambda: _after(UCB1, {0: 0.5, 1: -0.2}, {0: -0.5}).means,
            [0.9 * 0.5 - 0.1 * 0.5, -0.2],
        ),
    ),
)

RECIPES = (EXP3, UCB1)
