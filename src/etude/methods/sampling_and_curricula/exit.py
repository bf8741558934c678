"""ExIt: earlier answers become tasks of their own, and improving on them is what is rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.group import Credit, constant, standardised
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import rewards_of
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Message, Request, Signal, Task

IMPROVE = "Improve this answer."


DIVERGE = "Improve this answer with a clearly different approach."


WHY = "to improve on an earlier answer"


def quality(episode: Episode) -> float:
    """The last verdict's reward."""
    return episode.verdict.reward if episode.verdict else 0.0


@dataclass(frozen=True)
class Start:
    """An answer, int32[n], to `task`, of this quality in [0, 1], with `steps` improvements behind it (0: a first
    answer). `score` in [0, 1]: how much attempts from here, or from where it came from, differed."""

    task: Task
    reply: Array
    quality: float
    steps: int
    score: float

    @property
    def name(self) -> int:
        return seeds.key("start", self.task.key, self.steps, self.reply.tobytes())

    def asked(self, renderer: Any, told: str) -> Task:
        """The task of improving on it: question and answer, then `told`. `meta["parent"]` is the task's key, so that
        what is held out stays so."""
        said = (Message("assistant", renderer.decode(self.reply)), Message("user", told))
        mine = {"parent": self.task.key, "start": self, "quality": self.quality}
        return replace(self.task, prompt=(*self.task.prompt, *said), meta={**self.task.meta, **mine})


def spread(qualities: Array) -> float:
    """The variance of qualities in [0, 1], over the greatest that it can be (1/4)."""
    return 4 * float(np.var(qualities)) if len(qualities) else 0.0


def chances(scores: Sequence[float], kappa: float) -> Array:
    """P_i proportional to exp(kappa S_i)."""
    weights = np.exp(kappa * (np.array(scores) - max(scores)))
    return weights / weights.sum()


class Starts:
    """A buffer of start states. Of the tasks asked for, `share` go on from one of them."""

    def __init__(
        self,
        share: Annotated[
            float, Setting("share of the tasks that go on from a start state", low=0, high=1)
        ] = 0.5,
        kappa: Annotated[
            float, Setting("how strongly a high score is preferred; 0: not at all", low=0)
        ] = 4.0,
        most: Annotated[int, Setting("start states that are kept", low=1)] = 512,
        least: Annotated[int, Setting("start states there must be before any is used", low=1)] = 16,
        different: Annotated[float, Setting("share that is asked for another approach", low=0, high=1)] = 0.2,
        told: Annotated[str, Setting("how an improvement is asked for")] = IMPROVE,
        diverge: Annotated[str, Setting("how another approach is asked for")] = DIVERGE,
    ) -> None:
        self.share, self.kappa, self.most, self.least = share, kappa, most, least
        self.different, self.told, self.diverge = different, told, diverge
        self.kept: list[Start] = []
        self.key = 0  # names the draws of the step that is under way

    def next(self, n: int, context: Any) -> list[Request]:
        self.key = seeds.key(context.seed, "starts", context.step)
        return [self._one(context.rng("start", context.drawn + i), context) for i in range(n)]

    def _one(self, rng: np.random.Generator, context: Any) -> Request:
        if len(self.kept) < self.least or rng.random() >= self.share:
            return Request()
        start = self.kept[rng.choice(len(self.kept), p=chances([s.score for s in self.kept], self.kappa))]
        told = self.diverge if rng.random() < self.different else self.told
        return Request(task=start.asked(context.policy.renderer, told), why=WHY)

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        """Scores the starts that were used, and keeps one new answer of every group under that score."""
        for number, group in enumerate(groups):
            judged = [e for e in group.episodes if e.verdict is not None]
            if not judged:
                continue
            score = spread(np.array([quality(e) for e in judged]))
            came_from: Start | None = group.task.meta.get("start")
            if came_from is not None:
                name = came_from.name
                self.kept = [replace(s, score=score) if s.name == name else s for s in self.kept]
            rng = seeds.generator(self.key, number, group.task.key)
            self._expand(
                came_from or Start(group.task, np.zeros(0, np.int32), 0.0, -1, score), judged, score, rng
            )

    def _expand(
        self, parent: Start, episodes: Sequence[Episode], score: float, rng: np.random.Generator
    ) -> None:
        open_ended = [e for e in episodes if quality(e) < 1 and e.sampled.any()]
        if not open_ended:
            return
        episode = open_ended[rng.integers(len(open_ended))]
        reply = [s.tokens for s in episode.spans if s.sampled][-1]
        new = Start(parent.task, reply, quality(episode), parent.steps + 1, score)
        if any(s.name == new.name for s in self.kept):
            return
        if len(self.kept) < self.most:
            self.kept.append(new)
            return
        lowest = min(range(len(self.kept)), key=lambda i: self.kept[i].score)
        if score >= self.kept[lowest].score:
            self.kept[lowest] = new

    def report(self) -> dict[str, float]:
        """How many start states there are, their mean score, and the improvements behind the longest."""
        if not self.kept:
            return {"starts": 0.0}
        return {
            "starts": float(len(self.kept)),
            "score": float(np.mean([s.score for s in self.kept])),
            "longest": float(max(s.steps for s in self.kept)),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"kept": list(self.kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = list(state["kept"])


def gain(new: float, old: float) -> float:
    """max(0, new - old) / (1 - old): the share that was gained of what could be; 0 where nothing could be."""
    return max(0.0, new - old) / (1 - old) if old < 1 else 0.0


def improvement():
    """The quality of a first answer, its last verdict's reward; of an answer that goes on from an earlier one, what
    it gained (ExIt, arXiv 2509.04575)."""

    def reward(episode: Episode) -> dict[str, float]:
        old, new = episode.task.meta.get("quality"), rewards_of(episode)[-1]
        return {"reward": new if old is None else gain(new, old), "quality": new}

    return reward


def distances(embeddings: Array) -> Array:
    """d_i = |e_i - mean e| / (max_j - min_j of these distances), f64[G] of [G, D]; 1 where all are equally far."""
    embeddings = np.asarray(embeddings, np.float64)
    distance = np.linalg.norm(embeddings - embeddings.mean(0), axis=1)
    width = np.ptp(distance)
    return distance / width if width > 1e-5 * distance.max() else np.ones(len(distance))


def _mean(rows: Array) -> Array:
    return rows.mean(0) if len(rows) else np.zeros(rows.shape[1])


def diverse() -> Credit:
    """GRPO's advantage times how far an answer lies from the others of its group, by the policy's own last hidden
    states, averaged over the answer (ExIt, arXiv 2509.04575)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        everyone = [constant(e, 1.0) for g in groups for e in g.episodes]
        rows = context.rows(everyone, lambda out: out.hidden, {"hidden"})
        means = iter([_mean(row[s.episode.sampled]) for s, row in zip(everyone, rows, strict=True)])
        signals = []
        for group in groups:
            advantages = standardised(group.rewards)
            if len(advantages):
                advantages = advantages * distances(np.stack([next(means) for _ in group.episodes]))
            signals += [constant(e, float(a)) for e, a in zip(group.episodes, advantages, strict=True)]
        return signals

    return credit


PAPER = Paper("Bootstrapping Task Spaces for Self-Improvement", "2509.04575", 2025)

DEPARTURES = (
    "GUESS: kappa = 4 (not given)",
    "guess: a group adds one of its answers, drawn among those that can still be improved (quality below 1)",
    "only answers in words: the prefix of a conversation of several turns is not made a start state",
    "16 start states are enough to begin with, where the paper waits for 128, the tasks of one of its steps",
    "the run's reward is the gain; the score `quality` is the answer's own",
)

EXIT = Recipe(
    name="exit",
    n=49,
    paper=PAPER,
    idea="An answer that was given is a place from which to go on. Half of all tasks show the policy an earlier answer and ask for "
    "a better one, and the reward is what was gained. Answers from which attempts differ most come back most often, so the "
    "policy makes itself a growing space of tasks.",
    equation="P(start i) ~ exp(kappa S_i), S = 4 var of the group's qualities;  r = max(0, G(y) - G(y_old)) / (1 - G(y_old))",
    departures=(
        *DEPARTURES,
        "alone it is trained as GRPO; `topr+exit` and the like take credit and loss from the other",
    ),
    stages={"curriculum": stage(Starts), "reward": stage(improvement)},
    default_base=GRPO,
    needs=("text",),
    claim="Trained on single steps, accuracy after four chained improvements exceeds the first answer's by more than under GRPO.",
    examples=(
        ByHand(
            "from a half to 1; from three quarters to a half; from a half to three quarters; from 1 to 1",
            lambda: [gain(1, 0.5), gain(0.5, 0.75), gain(0.75, 0.5), gain(1, 1)],
            [1, 0, 0.5, 0],
        ),
        ByHand(
            "half of a group right, a quarter, all",
            lambda: [spread(np.array(q)) for q in ([1, 0], [1, 0, 0, 0], [1, 1])],
            [1, 0.75, 0],
        ),
        ByHand("scores 1 and 0, kappa = ln 3", lambda: chances([1.0, 0.0], np.log(3)), [0.75, 0.25]),
        Reduction("no start states: GRPO", "grpo", {"curriculum.share": 0.0}),
    ),
)

DIVERSE = Recipe(
    name="exit_diverse",
    base=GRPO,
    n=49,
    paper=PAPER,
    idea="ExIt, and among the answers of a group the ones unlike the others count for more. "
    "So the space of start states does not narrow to one way of answering. What is unlike is told by the policy's hidden states.",
    equation="A_i = d_i (r_i - mean r) / (std r + 1e-4);  d_i = |e_i - mean e| / (max_j |e_j - mean e| - min_j |e_j - mean e|)",
    departures=(
        *DEPARTURES,
        "GUESS: e is the policy's own last hidden state averaged over the answer; d = 1 where all are equally far",
    ),
    stages={"curriculum": stage(Starts), "reward": stage(improvement), "credit": stage(diverse)},
    needs=("text",),
    claim="The answers of a group stay more different than under ExIt at no loss of accuracy.",
    examples=(
        ByHand(
            "distances 1, 3, 2 from the mean", lambda: distances(np.array([[1.0], [-3], [2]])), [0.5, 1.5, 1]
        ),
    ),
)

RECIPES = [EXIT, DIVERSE]
