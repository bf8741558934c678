"""Tasks that a model wrote, kept for later: no task twice, none that is nearly one that is there, none that is held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np

from etude.settings import Setting
from etude.stages import Context
from etude.tasks.asked import normalised
from etude.text import near_duplicates
from etude.text.near_duplicates import signature
from etude.types import Episode, Group, Task

Near = Annotated[
    float,
    Setting(
        "estimated overlap of the words' runs of three from which a written task counts as one that is there; 1: only the same words",
        low=0,
        high=1,
    ),
]
MostKept = Annotated[int, Setting("written tasks that are kept; the oldest leave", low=1)]


@dataclass
class Written:
    """One written task, and what became of it. `parent`: the key of the task or example that it was written from, `asked`: the
    words that its writer read, `index`: which of the attempts at `parent` wrote it, `probed`: how often it was solved when it was
    tried out (None: it was not). `step`: when."""

    task: Task
    parent: str = ""
    step: int = 0
    tried: int = 0
    solved: int = 0
    writer: str = "policy"
    asked: str = ""
    index: int = -1
    probed: float | None = None

    @classmethod
    def by(cls, episode: Episode, task: Task, step: int, probed: float | None = None) -> Written:
        """`task` as an episode wrote it, which was asked for tasks."""
        asked = episode.task.prompt[-1].content
        return cls(task, episode.task.key, step, 0, 0, episode.player, asked, episode.index, probed)

    @property
    def rate(self) -> float | None:
        """The share of attempts that solved it; None before any."""
        return self.solved / self.tried if self.tried else None


@dataclass(frozen=True)
class News:
    """Of the task `key`: that it was "written", "tried" in this step, or that it "left" the buffer."""

    what: str
    key: str
    written: Written | None = None


def after(example: Task, task: Task, writer: str) -> Written:
    """`task` as somebody wrote it who was shown `example`."""
    return Written(task, example.key, writer=writer, asked=example.prompt[-1].content)


def tried_at_once(entries: Sequence[Written]) -> list[News]:
    """News of tasks that were written and attempted in the same step, and are not kept."""
    return [n for e in entries for n in (News("written", e.task.key, e), News("tried", e.task.key))]


@dataclass
class WrittenTasks:
    """The buffer, oldest first. `refused` counts what was not taken, by why."""

    near: float = 1.0
    most: int = 16384
    kept: dict[str, Written] = field(default_factory=dict)  # by the task's key
    refused: dict[str, int] = field(default_factory=dict)
    _signs: dict[str, Any] = field(default_factory=dict)  # MinHash signatures, by key
    _news: list[News] = field(default_factory=list)  # what the run's directory has not heard yet

    def __post_init__(self) -> None:
        if self.near < 1:
            near_duplicates.needed(", or set near=1")  # said here, not in the middle of a run

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[Written]:
        return iter(self.kept.values())

    def add(self, new: Written, context: Context) -> bool:
        """Takes a task in, unless it is held out for evaluation, is there, or is near to one that is."""
        why = self._why_not(new.task, context)
        if why:
            self.refused[why] = self.refused.get(why, 0) + 1
            return False
        self.kept[new.task.key] = new
        self._news.append(News("written", new.task.key, new))
        if self.near < 1:
            self._signs[new.task.key] = signature(normalised(new.task))
        while len(self.kept) > self.most:
            oldest = next(iter(self.kept))
            del self.kept[oldest]
            self._news.append(News("left", oldest))
            self._signs.pop(oldest, None)
        return True

    def _why_not(self, task: Task, context: Context) -> str:
        if context.tasks is not None and context.tasks.held(task):
            return "held out"
        if task.key in self.kept:
            return "the same"
        if self.near < 1:
            mine = signature(normalised(task))
            if any(mine.jaccard(other) >= self.near for other in self._signs.values()):
                return "near"
        return ""

    def judge(self, groups: Sequence[Group]) -> None:
        """Counts the attempts of a step at tasks that are kept."""
        for group in groups:
            if entry := self.kept.get(group.task.key):
                entry.tried += len(group.episodes)
                entry.solved += sum(e.correct for e in group.episodes)
                self._news.append(News("tried", entry.task.key))

    def news(self) -> list[News]:
        """What became of written tasks since this was last asked, in order."""
        told, self._news = self._news, []
        return told

    def sample(self, n: int, rng: np.random.Generator, kind: str | None = None) -> list[Written]:
        """At most `n` different ones, of a kind, each equally likely."""
        fit = [w for w in self if kind is None or w.task.kind == kind]
        return [fit[i] for i in rng.permutation(len(fit))[:n]]

    def report(self) -> Mapping[str, float]:
        """How many are kept, how many were refused and why, and how often those that were tried are solved."""
        known = [w.rate for w in self if w.rate is not None]
        found = {"written": float(len(self))} | {
            f"refused/{why}": float(n) for why, n in self.refused.items()
        }
        return found | ({"solved": float(np.mean(known))} if known else {})

    def state_dict(self) -> dict[str, Any]:
        rows = [replace(w) for w in self]  # as they are now
        return {"kept": rows, "refused": dict(self.refused)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.kept = {w.task.key: w for w in state["kept"]}
        self.refused = dict(state["refused"])
        self._signs = (
            {k: signature(normalised(w.task)) for k, w in self.kept.items()} if self.near < 1 else {}
        )
