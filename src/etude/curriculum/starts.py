"""Start states: earlier answers to go on from, the more often the more the attempts that followed them differed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.settings import Setting
from etude.types import Array, Episode, Group, Message, Request, Task

IMPROVE = "Improve this answer."
DIVERGE = "Improve this answer with a clearly different approach."
WHY = "to improve on an earlier answer"


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


def quality(episode: Episode) -> float:
    """The last verdict's reward."""
    return episode.verdict.reward if episode.verdict else 0.0
