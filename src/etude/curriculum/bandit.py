"""Curricula as bandits: an arm is drawn the more, the more its groups have taught, or the better they have pointed
to where one wants to go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import standardised
from etude.curriculum.align import TARGET, alignments
from etude.curriculum.arms import By, ByArm, softmax
from etude.errors import UserError
from etude.settings import Setting
from etude.types import Array, Group, Request, Signal

# ---- what a group has taught ---------------------------------------------------------------------------


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


# ---- where a group has pointed ---------------------------------------------------------------------------

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
