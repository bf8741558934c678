"""SKILL0: skills stand in the prompt at first, and are withdrawn as they stop to help, until none is left and the policy has them by itself.

Lu et al. (arXiv 2604.02268); what is withdrawn when after the released code (ZJU-REAL/SkillZero, curriculum_skill_manager.py). A skill is a text about one kind of
task; there may be one for all.

- The run has phases of equal length, and at most M skills in each: 6, then 3, then none. The one for all counts among them.
- Every few steps the step's tasks are also attempted with all skills and without any, which is not trained:
  delta_kind = mean success with - mean success without.
- Skills with delta < 0 go; of the others the M - 1 of the largest delta stay, beside the one for all. Training as GRPO.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from etude.errors import UserError
from etude.fixtures.curricula import ExampleContext, built
from etude.fixtures.examples import example_episode
from etude.fixtures.inference import Spoken, collected, example_question
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Episode, Group, Signal, Task

GENERAL = "general"
"""The file of the skill for all kinds."""

SKILLED, MEASURED = "skilled", "measured"
"""Notes: whether a skill stood in the prompt; success with all skills and without any, where that was measured."""

BEYOND = 1 << 16  # the numbers of attempts that measure begin here


def read_skills(folder: str) -> dict[str, str]:
    """{kind: text} of the files KIND.md. Raises UserError where there are none; {} for ""."""
    if not folder:
        return {}
    files = sorted(Path(folder).glob("*.md"))
    try:
        found = {file.stem: file.read_text("utf-8").strip() for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the skills in '{folder}' cannot be read: {error}") from None
    if not any(found.values()):
        raise UserError(
            f"the folder '{folder}' holds no skills; they are files KIND.md, and {GENERAL}.md for all kinds"
        )
    return found


def read_phases(text: str) -> list[int]:
    """ "6;3;0" as numbers. Raises UserError for anything else."""
    try:
        found = [int(part) for part in text.split(";")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise UserError(f"phases '{text}' must read like 6;3;0: the most skills of each phase")
    return found


# ---- group rollout ---------------------------------------------------------------------------------------------------


class Withdrawn:
    """Attempts with the skills that are left in the prompt, above the question: the one for all and that of the task's kind. Without a folder a task's own hints
    are the skill of its kind."""

    def __init__(
        self,
        skills: Annotated[
            str, Setting("folder of skills, KIND.md and general.md; empty: the tasks' own hints")
        ] = "",
        phases: Annotated[str, Setting("most skills in each of the phases of equal length")] = "6;3;0",
        measured_every: Annotated[int, Setting("steps between two measurements", "steps", low=1)] = 10,
        measuring: Annotated[
            int,
            Setting("attempts at each task of that step with, and as many without, skills", low=1, high=64),
        ] = 2,
    ) -> None:
        self.skills, self.phases = read_skills(skills), read_phases(phases)
        self.every, self.measuring = measured_every, measuring
        self.step = 0
        self.ranked: list[str] | None = (
            None  # kinds whose skills help, the most helpful first; None: not measured yet
        )
        self.last: dict[str, float] = {}

    def prepare(self, tasks: Any) -> None:
        """Refuses a run without any skill."""
        if max(self.phases) and not self.skills and not any(t.hints for t in tasks.different(8, 0)):
            raise UserError(
                "skill0 needs skills: --set group_rollout.skills=FOLDER of files KIND.md, or tasks with hints"
            )

    def most(self, progress: float) -> int:
        """M."""
        return self.phases[min(len(self.phases) - 1, int(progress * len(self.phases)))]

    def active(self, kind: str, progress: float) -> bool:
        """Whether the skill of a kind still stands in the prompt."""
        most = self.most(progress)
        if not most or self.ranked is None:
            return most > 0
        return kind in self.ranked[: most - (GENERAL in self.skills)]

    def told(self, task: Task, own: bool = True) -> str:
        """The skills for a task; `own`: with that of its kind."""
        mine = self.skills.get(task.kind, "") if self.skills else "\n".join(task.hints)
        return "\n\n".join(text for text in (self.skills.get(GENERAL, ""), mine if own else "") if text)

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        task, most = rollouts.task, self.most(rollouts.progress)
        told = self.told(task, self.active(task.kind, rollouts.progress)) if most else ""
        jobs = [self._play(rollouts, told, range(rollouts.samples))]
        if max(self.phases) and self.step % self.every == 0:
            jobs += [
                self._play(rollouts, text, [BEYOND + 2 * i + j for i in range(self.measuring)])
                for j, text in enumerate((self.told(task), ""))
            ]
        attempts, *others = await asyncio.gather(*jobs)
        notes: dict[str, Any] = {SKILLED: bool(told)}
        if others:
            notes[MEASURED] = [_success(episodes) for episodes in others]
        return [replace(e, notes={**e.notes, **notes}) for e in attempts]

    async def _play(self, rollouts: GroupRollout, told: str, numbers: Sequence[int]) -> list[Episode]:
        task = rollouts.task
        if told:
            task = replace(task, prompt=reworded(task.prompt, f"{told}\n\n{task.prompt[-1].content}"))
        found = await asyncio.gather(*(rollouts.play(i, task=task) for i in numbers))
        return [replace(e, task=rollouts.task) for episodes in found for e in episodes]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Ranks the kinds by what their skills bring, where the step measured it."""
        self.step = context.step + 1
        whole = [(g.task.kind, g.episodes[0].notes) for g in groups if g.episodes]
        found: dict[str, list[float]] = {}
        for kind, notes in whole:
            if MEASURED in notes and None not in notes[MEASURED]:
                with_skills, without = notes[MEASURED]
                found.setdefault(kind, []).append(with_skills - without)
        if found:
            delta = {kind: float(np.mean(rows)) for kind, rows in found.items()}
            kept = [kind for kind in sorted(delta) if delta[kind] >= 0]
            self.ranked = sorted(kept, key=lambda kind: -delta[kind])
            self.last = {"delta": float(np.mean(list(delta.values())))}
        skilled = [bool(notes.get(SKILLED)) for _, notes in whole]
        self.last |= {"skilled": float(np.mean(skilled))} if skilled else {}

    def report(self) -> Mapping[str, float]:
        """The share of the last step's groups with a skill in the prompt, and what skills brought when it was last measured."""
        return dict(self.last)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "ranked": self.ranked, "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.ranked, self.last = state["step"], state["ranked"], dict(state["last"])


def _success(episodes: Sequence[Episode]) -> float | None:
    tried = [e.correct for e in episodes if e.failure is None]
    return float(np.mean(tried)) if tried else None


# ---- the recipe ------------------------------------------------------------------------------------------------------


def _after(*measured: tuple[str, float, float], **settings: Any) -> Any:
    """The stage after a step that measured (kind, with, without)."""
    found = built(RECIPE, "group_rollout", settings)
    groups = []
    for kind, *both in measured:
        made = replace(example_episode(1.0), notes={SKILLED: True, MEASURED: both})
        groups.append(Group(replace(made.task, kind=kind), (made,)))
    found.observe(groups, [], ExampleContext())
    return found


def _asked(progress: float, **settings: Any) -> list[float]:
    """Whether a hint stands in the prompt of the first attempt, and how often the policy answered."""
    task = replace(example_question(), hints=("Add.",))
    named = {f"group_rollout.{k}": v for k, v in settings.items()}
    (played,) = collected(RECIPE, ["7"] * 9, None, named, 1, task, progress=progress)
    words = Spoken().decode(played.spans[0].tokens.tolist())
    measured = played.notes.get(MEASURED, [-1.0, -1.0])
    return [words.startswith("<user>Add.\n\n3+4?"), *measured]


HELPS = (("a", 1.0, 0.0), ("b", 0.5, 0.25), ("c", 0.0, 0.5), ("a", 0.0, 0.5), ("d", 0.5, 0.5))

RECIPE: Recipe = Recipe(
    name="skill0",
    base=GRPO,
    paper=Paper(
        "SKILL0: In-Context Agentic Reinforcement Learning for Skill Internalization", "2604.02268", 2026
    ),
    published_lr=1e-6,
    idea="Skills in the prompt help an agent, but cost room and time at every turn, and it never has them by itself. So it learns with them in view, and they "
    "are taken away one by one, first those that no longer help. In the end it works without any.",
    equation="delta_k = mean success with - mean success without;  M = 6, 3, 0 by phase;  keep the M - 1 kinds of the largest delta >= 0;  L as GRPO",
    departures=(
        "a skill file belongs to a kind of task; in the release a map says which kinds share one",
        "what skills bring is measured on the tasks of a training step, by attempts that are not trained; in the paper on validation tasks",
        "after the first measurement the bound of a phase holds at once, not from the next measurement on",
        "without the paper's picture of skills and history, and so without its reward for a compressed one; an action that cannot be done costs nothing of itself",
        "the paper's reward of 10 is 1 here, which the division by the standard deviation makes the same",
        "where no file is for all kinds, M kinds stay",
    ),
    stages={"group_rollout": stage(Withdrawn)},
    claim="After the skills are gone more tasks are solved without them than after GRPO without skills, and than after GRPO with skills to the end.",
    manipulation=(
        Manipulated("skills are there at first", r"group_rollout\.skilled", 0.5, read="max"),
        Manipulated("and gone at last", r"group_rollout\.skilled", at_most=0.0, read="last"),
    ),
    examples=(
        ByHand(
            "deltas: a (1 - 1/2) / 2, b 1/4, d 0; c hurts: six may stay, then three, then none",
            lambda: [[_after(*HELPS).active(k, p) for k in "abcd"] for p in (0.0, 0.4, 0.9)],
            [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]],
        ),
        ByHand(
            "two may stay: the first two",
            lambda: [_after(*HELPS, phases="2").active(k, 0.0) for k in "abcd"],
            [1, 1, 0, 0],
        ),
        ByHand(
            "not measured yet: all",
            lambda: [built(RECIPE, "group_rollout").active("a", p) for p in (0.0, 0.7)],
            [1, 0],
        ),
        ByHand(
            "the hint stands above the question; both are tried, all right",
            lambda: _asked(0.0),
            [1, 1, 1],
        ),
        ByHand("in the last phase no more", lambda: _asked(0.9)[0], 0),
        ByHand("no skills ever: nothing is measured", lambda: _asked(0.0, phases="0"), [0, -1, -1]),
        Reduction("no skills ever: GRPO", "grpo", {"group_rollout.phases": "0"}),
    ),
)
