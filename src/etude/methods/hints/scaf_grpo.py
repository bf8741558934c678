"""Scaf-GRPO: where all attempts fail, the least hint that helps.

A task that no attempt solves gives no signal. Once the policy had time to learn by itself, such a task is attempted with
hints, from vague to telling; the first attempt that is right takes the place of a failed one in its group.
arXiv 2510.19807."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import Credited, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import hinted
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Episode, Group, Signal, Span, Task

HINT = "hint"
"""Note: which of the task's hints the attempt had, from 1."""


def with_hint(task: Task, level: int) -> Task:
    """The task with hint `level` (from 1, the vaguest) below its question."""
    return replace(task, prompt=hinted(task, level))


def behind(episode: Episode, prompt: Array) -> Episode:
    """The episode as it was sampled, with its first prompt hidden from training and `prompt`, int32[n], in its place."""
    first, *rest = episode.spans
    instead = Span(first.role, prompt, unseen=True, tag=first.tag)
    return replace(episode, spans=(replace(first, hidden=True), instead, *rest))


class Scaffold:
    """A group of attempts; where all of them fail, one attempt per hint, from the vaguest, until one is right: it takes
    the place of a failed one. Notes `HINT`."""

    def __init__(
        self,
        begin_at: Annotated[float, Setting("share of the run at which help begins", low=0, high=1)] = 0.1,
        prompt: Annotated[
            str,
            Setting(
                "what a helped attempt is trained behind; both: it takes two places",
                choices=("hinted", "plain", "both"),
            ),
        ] = "hinted",
    ) -> None:
        self.begin_at, self.prompt = begin_at, prompt
        self.seen: dict[str, float] = {}

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        first = await rollouts.plays(range(rollouts.samples))
        failed = [i for i, e in enumerate(first) if e.failure is None and not e.correct]
        solved = any(e.correct for e in first)
        if solved or not failed or rollouts.progress < self.begin_at:
            return first
        tried = await self._climb(rollouts)
        found = next((e for e in tried if e.correct), None)
        if found is not None:
            plain = behind(
                found, rollouts.generator.renderer.prompt(rollouts.task.prompt, len(rollouts.task.prompt))
            )
            ways = {"hinted": [found], "plain": [plain], "both": [found, plain]}[self.prompt]
            for place, way in zip(failed[::-1], ways, strict=False):
                first[place] = replace(way, index=first[place].index)
        return first + [e for e in tried if e.failure is not None]

    async def _climb(self, rollouts: GroupRollout) -> list[Episode]:
        """One attempt per hint until one is right; each has a number of its own, whatever came before."""
        tried: list[Episode] = []
        for level in range(1, len(rollouts.task.hints) + 1):
            episodes = await rollouts.play(rollouts.samples + level - 1, task=with_hint(rollouts.task, level))
            tried += [replace(e, task=rollouts.task, notes={**e.notes, HINT: level}) for e in episodes]
            if any(e.correct for e in episodes):
                break
        return tried

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        """Counts which tasks the last step's hints rescued."""
        played = [g.episodes for g in groups if g.episodes]
        self.seen = {}
        if not played:
            return
        helped = [[e.notes[HINT] for e in group if HINT in e.notes] for group in played]
        unhelped = [[e.correct and HINT not in e.notes for e in group] for group in played]
        levels = [levels[0] for levels in helped if levels]
        self.seen = {
            "unhinted": float(np.mean([right for group in unhelped for right in group])),
            "failed": float(np.mean([not any(group) for group in unhelped])),
            "rescued": len(levels) / len(played),
            "level": float(np.mean(levels)) if levels else 0.0,
        }

    def report(self) -> dict[str, float]:
        """Of the last step: the pass rate without hints, the shares of tasks that all failed without and that a hint
        rescued, and the hint that did it, on average."""
        return self.seen


RECIPE = Recipe(
    name="scaf_grpo",
    paper=Paper(
        "Scaf-GRPO: Scaffolded Group Relative Policy Optimization for Enhancing LLM Reasoning",
        "2510.19807",
        2025,
    ),
    published_lr=1e-6,
    idea="A task that no attempt solves gives no signal. Once the policy had time to learn by itself, such a task is tried with "
    "hints, from vague to telling. The first hinted attempt that is right takes the place of a failed one in its group.",
    equation="if r_1 = ... = r_G = 0:  y_G <- y ~ pi(. | x, h_l) with the least l that solves x;  then GRPO, with h_l in view for y_G",
    departures=(
        "levels are the task's own hints, where the paper has three tiers of four parts, written by a stronger model",
        "levels are tried one after another and the first that solves is kept: the paper's outcome for fewer tokens",
        "the first W steps are a share of the budget: group_rollout.begin_at (guess: 0.1; 1 never helps)",
        "the run's reward counts attempts with hints; group_rollout/unhinted is the pass rate without",
        "with group_rollout.prompt=plain a rollout that states the question more than once is trained without the hint only in the first",
        "alone it is trained as GRPO; `topr+scaf_grpo` and the like take credit and loss from the other",
    ),
    stages={"group_rollout": stage(Scaffold)},
    default_base=GRPO,
    needs=("hints", "text"),
    claim="On tasks that eight attempts do not solve, hints lift the accuracy without hints where GRPO stays flat.",
    manipulation=(
        Manipulated(
            "hints rescue a tenth of the dead groups, where at least four in ten are dead",
            r"group_rollout\.rescued",
            0.04,
        ),
    ),
    examples=(
        Credited(
            "a group of 8 of which a hint rescued one: mean 1/8, std 7^0.5 / 8",
            [[0.0] * 7 + [1.0]],
            [[-1 / (7**0.5 + 8e-4)] * 7 + [7 / (7**0.5 + 8e-4)]],
        ),
        Reduction("no attempt is helped: GRPO", "grpo", {"group_rollout.begin_at": 1.0}),
    ),
)
