"""EXP3-FLAD and UCB1-FLAD: other tasks are drawn by how well their gradients point to where the target's do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch, pack
from etude.curriculum.arms import By, ByArm, softmax
from etude.errors import UserError
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.settings import Setting, stage
from etude.types import Array, Group, Request, Signal

Target = Annotated[
    str, Setting("kind, or arm such as sort/4, that the others are to help; empty: the last arm")
]


Share = Annotated[float, Setting("share of the tasks that are the target's", low=0.01, high=0.99)]


Episodes = Annotated[
    int,
    Setting(
        "episodes of an arm whose gradient is taken, and as many of the target as of all arms; 0: all", low=0
    ),
]


Apart = Annotated[int, Setting("steps between measurements of gradients", "steps", low=1)]


TARGET = -1


MARK = "part"  # extras row: which part a token belongs to


CHUNK = 256  # rows whose probabilities over the vocabulary are held at once


def strength(batch: Batch) -> Tensor:
    """f32[N]: what the log-probability of each token is multiplied with: advantage x weight where there is an
    advantage, the weight alone where a token is imitated."""
    acts = batch.weight("policy") * batch.advantage
    return acts + sum((batch.weight(n) for n in batch.weights if n != "policy"), torch.zeros_like(acts))


def with_mark(signal: Signal, k: int) -> Signal:
    row = np.full(len(signal.advantage), k, np.float32)
    return replace(signal, extras={**signal.extras, MARK: row})


@torch.no_grad()
def head_gradients(parts: Mapping[int, Sequence[Signal]], context: Any) -> Iterator[tuple[int, Tensor]]:
    """Of every part in turn, f32[V, D]: sum_t c_t (onehot(y_t) - softmax(W h_t)) h_t^T, the gradient of
    sum_t c_t log pi(y_t) in the output projection W, c = `strength`. One forward pass for all, no backward pass.
    One gradient at a time, since each is as large as the projection."""
    signals = [with_mark(s, k) for k, found in parts.items() for s in found]
    batch = pack(signals, context.sampling)
    out = context.policy.score(batch, frozenset({"hidden"}))
    assert out.hidden is not None
    weight = strength(batch) * batch.needed
    for k in parts:
        rows = ((batch.extras[MARK] == k) & (weight != 0)).nonzero()[:, 0]
        found = torch.zeros(())
        for part in rows.split(CHUNK):
            logits = out.logits(part).float() / context.sampling.temperature
            error = -torch.softmax(logits, -1)
            error[torch.arange(len(part)), batch.tokens[part]] += 1
            found = found + (error * weight[part][:, None]).T @ out.hidden[part].float()
        yield k, found


def cosine(a: Tensor, b: Tensor) -> float:
    """<a, b> / (|a| |b|); 0 where one of them is 0."""
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size else 0.0


def teaches(signal: Signal) -> bool:
    """Whether any token of it is praised, blamed or imitated."""
    return any(
        ((row != 0) & ((signal.advantage != 0) if name == "policy" else True)).any()
        for name, row in signal.weights.items()
    )


def chosen(signals: Sequence[Signal], most: int, k: int, context: Any) -> list[Signal]:
    """Up to `most` of those that teach something, drawn alike."""
    alive = [s for s in signals if teaches(s)]
    if not most or len(alive) <= most:
        return alive
    picked = context.rng("align", k).choice(len(alive), most, replace=False)
    return [alive[i] for i in sorted(picked)]


def alignments(
    target: Sequence[Signal], others: Mapping[int, Sequence[Signal]], most: int, context: Any
) -> dict[int, float]:
    """{k: cosine with the target}, of those that teach something; {} where the target teaches nothing. At most
    `most` signals of each are looked at, and as many of the target as of all others together; 0: all."""
    some = {k: chosen(found, most, k, context) for k, found in others.items()}
    some = {k: found for k, found in some.items() if found}
    aim = chosen(target, most * len(some), TARGET, context)
    if not some or not aim:
        return {}
    gradients = head_gradients({TARGET: aim, **some}, context)
    goal = next(gradients)[1]
    return {k: cosine(gradient, goal) for k, gradient in gradients}


class Aligned(ByArm):
    """A part of every step is the target's; the other arms compete for the rest by the cosine between the gradient
    of their groups and the target's. What follows says which are played (`play`) and learns (`learn`)."""

    def __init__(
        self,
        target: Target = "",
        share: Share = 0.5,
        episodes: Episodes = 2,
        every: Apart = 4,
        by: By = "both",
    ) -> None:
        super().__init__(by)
        self.target, self.share, self.episodes, self.every = target, share, episodes, every

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.aim = self.arms.named(self.target or self.arms.names[-1])
        self.others = [k for k in range(len(self.arms)) if k not in self.aim]
        if not self.others:
            raise UserError(
                f"curriculum.target '{self.target}' leaves no other arm of {', '.join(self.arms.names)}"
            )
        self.steps = 0
        self.played = np.zeros(len(self.others))  # in this step

    def play(self, n: int, rng: np.random.Generator) -> list[int]:
        """Which of the others to play, by their places in `others`."""
        raise NotImplementedError

    def learn(self, found: Mapping[int, float]) -> None:
        """`found`: {place in `others`: cosine} of what was played in this step."""
        raise NotImplementedError

    def words(self, place: int) -> str:
        raise NotImplementedError

    def next(self, n: int, context: Any) -> list[Request]:
        self.context = context
        rng = context.rng("arms", context.drawn)
        aimed = math.floor(n * self.share + rng.random())  # its expectation is n x share
        places = self.play(n - aimed, rng)
        self.played += np.bincount(places, minlength=len(self.others))
        picks = [(int(k), "the target") for k in rng.choice(self.aim, aimed)]
        picks += [(self.others[i], self.words(i)) for i in places]
        self.now = np.bincount([k for k, _ in picks], minlength=len(self.arms)) / n
        return [self.arms[k].request(rng, why) for k, why in (picks[i] for i in rng.permutation(n))]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal]) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            self._measure(groups, signals)
        self.played = np.zeros(len(self.others))

    def _measure(self, groups: Sequence[Group], signals: Sequence[Signal]) -> None:
        of = {g.task.key: self.arms.of(g.task) for g in groups}
        parts: dict[int, list[Signal]] = {TARGET: []}
        for signal in signals:
            k = of.get(signal.episode.task.key)
            if k is not None:
                parts.setdefault(TARGET if k in self.aim else self.others.index(k), []).append(signal)
        cosines = alignments(parts.pop(TARGET), parts, self.episodes, self.context)
        if cosines:
            tried = {self.arms.of(g.task) for g in groups}
            silent = {
                i: 0.0 for i, k in enumerate(self.others) if k in tried
            }  # equal rewards have no gradient
            self.learn({**silent, **cosines})

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def exploration(k: int, t: int) -> float:
    """E_t = min(1/K, sqrt(ln K / (K t))); E_0 = 1/K."""
    return min(1 / k, math.sqrt(math.log(k) / (k * t))) if t else 1 / k


def exp3(totals: Array, t: int) -> Array:
    """pi = (1 - K E_t) softmax(E_{t-1} Rhat) + E_t."""
    k = len(totals)
    now = exploration(k, t)
    return (1 - k * now) * softmax(exploration(k, t - 1) * totals) + now


class Exp3(Aligned):
    """EXP3: arms drawn from pi; Rhat adds up cosine / pi."""

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.totals, self.turn = np.zeros(len(self.others)), 1
        self.pi = exp3(self.totals, self.turn)

    def play(self, n: int, rng: np.random.Generator) -> list[int]:
        self.pi = exp3(self.totals, self.turn)
        return rng.choice(len(self.others), n, p=self.pi).tolist()

    def words(self, place: int) -> str:
        return f"R {self.totals[place]:.2f}, p {self.pi[place]:.2f}"

    def learn(self, found: Mapping[int, float]) -> None:
        pi, share = exp3(self.totals, self.turn), self.played / max(1.0, self.played.sum())
        for i, cosine in found.items():  # drawn n times at once, an arm counts by its share of the draws
            self.totals[i] += share[i] * cosine / pi[i]
        self.turn += 1

    def report(self) -> dict[str, float]:
        pi = {
            self.arms.names[k]: (1 - self.share) * float(p) for k, p in zip(self.others, self.pi, strict=True)
        }
        return {**pi, **{self.arms.names[k]: self.share / len(self.aim) for k in self.aim}}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "totals": self.totals.tolist(), "turn": self.turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.totals, self.turn = np.array(state["totals"]), state["turn"]


def ucb1(means: Array, plays: Array) -> Array:
    """Rbar + sqrt(2 ln t / n), t = sum n; infinite where nothing was played."""
    t = max(1.0, float(plays.sum()))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(plays > 0, means + np.sqrt(2 * math.log(t) / plays), np.inf)


class Ucb1(Aligned):
    """UCB1: the arm with the highest index, slot after slot; Rbar is a moving mean of cosines."""

    def __init__(
        self,
        beta: Annotated[float, Setting("share of the newest cosine in the mean", low=0, high=1)] = 0.1,
        target: Target = "",
        share: Share = 0.5,
        episodes: Episodes = 2,
        every: Apart = 4,
        by: By = "both",
    ) -> None:
        super().__init__(target, share, episodes, every, by)
        self.beta = beta

    def prepare(self, tasks: Any) -> None:
        super().prepare(tasks)
        self.means, self.known = np.zeros(len(self.others)), np.zeros(len(self.others), bool)
        self.plays = np.zeros(len(self.others))

    def play(self, n: int, rng: np.random.Generator) -> list[int]:
        chosen = []
        for _ in range(n):
            chosen.append(int(np.argmax(ucb1(self.means, self.plays))))
            self.plays[chosen[-1]] += 1
        return chosen

    def words(self, place: int) -> str:
        return f"mean cosine {self.means[place]:+.2f}, played {self.plays[place]:.0f} times"

    def learn(self, found: Mapping[int, float]) -> None:
        for i, cosine in found.items():
            rate = self.beta if self.known[i] else 1.0  # the first measurement stands as it is
            self.means[i] += rate * (cosine - self.means[i])
            self.known[i] = True

    def state_dict(self) -> dict[str, Any]:
        own = {"means": self.means.tolist(), "known": self.known.tolist(), "plays": self.plays.tolist()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.means, self.known, self.plays = (np.array(state[n]) for n in ("means", "known", "plays"))


PAPER = Paper(
    "Improving Few-Shot Generalization by Exploring and Exploiting Auxiliary Data", "2302.00674", 2023
)
DEPARTURES = (
    "both gradients are taken just after the step's update instead of before it, of sum A log pi (imitation: sum log pi) in the output "
    "projection, input side excluded, of untruncated probabilities",
    "gradients are compared every fourth step, where the paper has every step (curriculum.every=1), on 2 episodes of each arm and as many "
    "of the target as of all arms, drawn alike among those that teach something (curriculum.episodes=0: all): so the price of this "
    "forward pass stays below 2% of a step",
    "a step plays several arms at once; an arm whose rewards were all equal has cosine 0; where the target's were, nothing is learnt",
    "half of the tasks are the target's; by default it is the last arm",
)


def _in_turn() -> list[float]:
    """How often each of three arms is played in seven turns of UCB1 with equal rewards."""
    plays = np.zeros(3)
    for _ in range(7):
        plays[np.argmax(ucb1(np.full(3, 0.2), plays))] += 1
    return plays.tolist()


EXP3 = Recipe(
    name="exp3_flad",
    default_base=GRPO,
    n=285,
    paper=PAPER,
    idea="One kind of task is what you care about; others may help. Another kind helps if learning it moves the weights the way that "
    "learning the target does. Kinds are drawn by how much they have helped so far, and none is ever given up.",
    equation="pi(a) = (1 - K E_t) softmax(E_{t-1} R_a) + E_t;  E_t = min(1/K, sqrt(ln K / (K t)));  R_a += cos(g_a, g_T) / pi(a)",
    departures=(
        *DEPARTURES,
        "played c times among n, an arm adds (c / n) cos / pi, which has the expectation of one play",
    ),
    stages={"curriculum": stage(Exp3)},
    claim="With distracting kinds of tasks around, related kinds get more than their even share, and the target is learnt better.",
    examples=(
        ByHand("at t = 1 uniform, whatever the sums", lambda: exp3(np.array([5.0, -5.0]), 1), [0.5, 0.5]),
        ByHand("E_8 of 2 arms", lambda: exploration(2, 8), math.sqrt(math.log(2) / 16)),
        ByHand("a single arm", lambda: exp3(np.array([-3.0]), 4), [1.0]),
        ByHand(
            "at right angles, and opposite",
            lambda: [cosine(torch.tensor([1.0, 0]), torch.tensor(v)) for v in ([0, 2.0], [-3.0, 0])],
            [0, -1],
        ),
    ),
)

UCB1 = Recipe(
    name="ucb1_flad",
    default_base=GRPO,
    n=285,
    paper=PAPER,
    idea="One kind of task is what you care about; others may help, if learning them moves the weights the way the target does. "
    "Always the kind is played that may be the best, given how well it did and how seldom it was tried.",
    equation="play argmax R_a + sqrt(2 ln t / n_a);  R_a <- (1 - beta) R_a + beta cos(g_a, g_T)",
    departures=(
        *DEPARTURES,
        "an arm is first measured while it is played, where the paper spends 1000 samples on it beforehand, and counts as 0 until then; "
        "n_a counts tasks",
    ),
    stages={"curriculum": stage(Ucb1)},
    claim="With distracting kinds of tasks around, related kinds get more than their even share, and the target is learnt better.",
    examples=(
        ByHand("equal rewards: in turn", _in_turn, [3, 2, 2]),
        ByHand(
            "two arms after e plays in all, one each but for the rest",
            lambda: ucb1(np.zeros(2), np.array([math.e - 1, 1.0]))[1],
            math.sqrt(2),
        ),
    ),
)

RECIPES = (EXP3, UCB1)
