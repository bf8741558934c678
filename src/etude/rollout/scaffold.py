"""A ladder of hints for a task that all attempts failed: climbed from the vaguest until one solves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.settings import Setting
from etude.types import Array, Episode, Group, Message, Span, Task


def with_hint(task: Task, level: int) -> Task:
    """The task with hint `level` (from 1, the vaguest) below its question."""
    *before, last = task.prompt
    hinted = Message(last.role, f"{last.content}\n\nHint: {task.hints[level - 1]}")
    return replace(task, prompt=(*before, hinted))


def behind(episode: Episode, prompt: Array) -> Episode:
    """The episode as it was sampled, with its first prompt hidden from training and `prompt`, int32[n], in its place."""
    first, *rest = episode.spans
    instead = Span(first.role, prompt, unseen=True, tag=first.tag)
    return replace(episode, spans=(replace(first, hidden=True), instead, *rest))


class Scaffold:
    """Every player on its own; where all of them fail, one attempt per hint, from the vaguest, until one is right: it
    takes the place of a failed one. Notes `hint`: which hint it had."""

    def __init__(
        self,
        begin: Annotated[
            float, Setting("share of the budget before which nobody is helped", low=0, high=1)
        ] = 0.1,
        prompt: Annotated[
            str,
            Setting(
                "what a helped attempt is trained behind; both: it takes two places",
                choices=("hinted", "plain", "both"),
            ),
        ] = "hinted",
    ) -> None:
        self.begin, self.prompt = begin, prompt
        self.seen: dict[str, float] = {}

    async def __call__(self, table: Any) -> list[Episode]:
        first = await table.plays(range(table.samples))
        failed = [i for i, e in enumerate(first) if e.failure is None and not e.correct]
        solved = any(e.correct for e in first)
        if solved or not failed or table.progress < self.begin:
            return first
        tried = await self._climb(table)
        found = next((e for e in tried if e.correct), None)
        if found is not None:
            ways = self._ways(found, table.voice.renderer.prompt(table.task.prompt))
            for place, way in zip(failed[::-1], ways, strict=False):
                first[place] = replace(way, index=first[place].index)
        return first + [e for e in tried if e.failure is not None]

    async def _climb(self, table: Any) -> list[Episode]:
        """One attempt per hint until one is right; each has a seat of its own, whatever came before."""
        tried: list[Episode] = []
        for level in range(1, len(table.task.hints) + 1):
            fresh = await table.play(table.samples + level - 1, task=with_hint(table.task, level))
            tried += [replace(e, task=table.task, notes={**e.notes, "hint": level}) for e in fresh]
            if any(e.correct for e in fresh):
                break
        return tried

    def _ways(self, episode: Episode, plain: Array) -> list[Episode]:
        ways = {"hinted": episode, "plain": behind(episode, plain)}
        return list(ways.values()) if self.prompt == "both" else [ways[self.prompt]]

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        """Remembers whom the last step helped."""
        played = [g.episodes for g in groups if g.episodes]
        self.seen = {}
        if not played:
            return
        helped = [[e.notes["hint"] for e in group if "hint" in e.notes] for group in played]
        alone = [[e.correct and "hint" not in e.notes for e in group] for group in played]
        levels = [levels[0] for levels in helped if levels]
        self.seen = {
            "unhinted": float(np.mean([right for group in alone for right in group])),
            "failed": float(np.mean([not any(group) for group in alone])),
            "rescued": len(levels) / len(played),
            "level": float(np.mean(levels)) if levels else 0.0,
        }

    def report(self) -> dict[str, float]:
        """Of the last step: the pass rate without hints, the shares of tasks that all failed without and that a hint
        rescued, and the hint that did it, on average."""
        return self.seen
