"""SAGE: functions that the policy wrote for one task are at hand in the next, and are paid for where they were of use.

Wang et al. (arXiv 2512.17102), skill-augmented GRPO. Two tasks of one kind are solved one after another by programs (the tool `python`). Functions of programs
that ran without an error are skills; they can be called in the second task's programs.

    R_1 = r_1 + r_1 r_2 u,   R_2 = r_2 + r_2 u,   u = 1 where a program of the second task calls a skill of the first and runs

r is 1 for a right answer. A = R - mean R over the group, at each of the two places by itself; loss as GRPO. What tools gave is not trained.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.attempts import compared, on_parts, scores_of
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.fixtures.given import given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.reward.attempts import FIRST, SECOND, rewards_of
from etude.reward.attempts import scores as of_attempts
from etude.rollout.attempts import attempt, attempt_tag, below
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Reward, Rollout
from etude.tasks import confinement
from etude.tools.kit import CALLS, Kit
from etude.tools.shipped import python
from etude.tools.tool import Tool, tool
from etude.types import Episode, Group, Request, Signal, Task

SKILLS, USED = "skills", "used"
"""Notes: the functions that were kept of the first task, by name; those of them that programs of the second called."""

PYTHON = "python"
ASK = "Solve it by programs. Put what could be of use again into functions; those of programs that run are kept."
HAVE = "These functions are kept, and your programs can call them:\n\n{skills}"


# ---- the library -----------------------------------------------------------------------------------------------------


class Library:
    """The skills of one episode, and a tool `python` whose programs can call them (`tools.kit.ToolSource`)."""

    name = PYTHON

    def __init__(self) -> None:
        self.skills: dict[str, str] = {}
        self.used: set[str] = set()
        self.before: set[str] = set()  # those that are there from the task before

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        return [tool(python, slow=True, keeps=True, run=lambda arguments: self.run(**arguments))]

    def close(self) -> None:
        """Nothing is held."""

    def run(self, code: str) -> str:
        """Runs a program below the skills; one that ends without an error may leave new ones. Raises ToolError."""
        defined = functions_of(code)
        known = [text for name, text in self.skills.items() if name not in defined]
        said = python("\n\n".join([*known, code]) if readable(code) else code)
        self.used |= called_in(code) & self.before - set(defined)
        self.skills |= defined
        return said


def readable(code: str) -> bool:
    """Whether it is Python at all."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def functions_of(code: str) -> dict[str, str]:
    """The functions at the top of a program, as they are written; none where it cannot be read."""
    if not readable(code):
        return {}
    found = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(code, node) or "" for node in found}


def called_in(code: str) -> set[str]:
    """The names that a program calls."""
    nodes = ast.walk(ast.parse(code)) if readable(code) else ()
    return {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


# ---- group rollout ---------------------------------------------------------------------------------------------------


class Chained:
    """Each attempt goes on to a second task of the same kind and level, the same for the whole group, in a context of its own, with the skills that it
    wrote for the first."""

    def __init__(
        self,
        chain: Annotated[int, Setting("tasks in a row", low=1, high=2)] = 2,
        library: Annotated[bool, Setting("programs may be run, and their functions are kept")] = True,
        skill_request: Annotated[str, Setting("what stands below each task; empty: nothing")] = ASK,
    ) -> None:
        self.chain, self.library, self.request = chain, library, skill_request
        self.tasks: Any = None
        self.last: dict[str, float] = {}

    def prepare(self, tasks: Any) -> None:
        """Keeps the tasks, of which second ones are drawn. Raises UserError where no program can be run safely."""
        self.tasks = tasks
        if self.library and (refused := confinement.refusal()):
            raise refused

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        second = self._second(rollouts)
        return await rollouts.plays(range(rollouts.samples), self._course(second))

    def _second(self, rollouts: GroupRollout) -> Task | None:
        """Another training task of the kind and level; None where there is none."""
        if self.chain < 2 or self.tasks is None:
            return None
        first = rollouts.task
        level = first.difficulty if first.difficulty in self.tasks.levels(first.kind) else None
        wanted = Request(first.kind, level)
        drawn = (self.tasks.draw(wanted, i, seeds.key(rollouts.key, "second task")) for i in range(8))
        return next((task for task in drawn if task.key != first.key), None)

    def _course(self, second: Task | None) -> Rollout:
        async def rollout(task: Task, conversation: Conversation) -> Episode:
            kept = Library()
            if self.library:
                kit = conversation.generator.kit
                sources = [*(s for s in kit.sources if s.name != PYTHON), kept]
                conversation.generator = replace(
                    conversation.generator, kit=Kit(sources, kit.budgets, kit.syntax)
                )
            await attempt(conversation, below(task.prompt, self.request), 1)
            calls = [len(conversation.session.record) if conversation.session else 0]
            notes = {SKILLS: dict(kept.skills)}
            if second is not None:
                kept.before = set(kept.skills)
                have = HAVE.format(skills="\n\n".join(kept.skills.values())) if kept.skills else ""
                asked = below(below(second.prompt, self.request), have)
                conversation.task = second
                try:
                    await attempt(conversation, asked, 2, new_context=True)
                finally:
                    conversation.task = task
                calls.append((len(conversation.session.record) if conversation.session else 0) - calls[0])
            return conversation.done(**notes, **{USED: sorted(kept.used)}, calls_each=calls)

        return rollout

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        made = [e.notes for g in groups for e in g.episodes if SKILLS in e.notes]
        self.last = {}
        if made:
            self.last = {
                "kept": float(np.mean([len(n[SKILLS]) for n in made])),
                "reused": float(np.mean([bool(n[USED]) for n in made])),
            }

    def report(self) -> Mapping[str, float]:
        """Of the last step's attempts: how many functions they kept, and the share in which one was called again."""
        return self.last


# ---- reward and credit -----------------------------------------------------------------------------------------------


def skill_integrated(
    skill_weight: Annotated[float, Setting("weight of what a used skill adds", low=0)] = 1.0,
    without_program: Annotated[
        float | None,
        Setting("reward at a place where no program was run; none: that of the answer", low=-10, high=0),
    ] = None,
) -> Reward:
    """R_1 and R_2 as the scores `FIRST` and `SECOND`; `reward` is the last. skill: whether a skill was used."""

    def reward(episode: Episode) -> dict[str, float]:
        r = rewards_of(episode)
        used = float(bool(episode.notes.get(USED)))
        bonus = skill_weight * used
        total = [r[0] + bonus * r[0] * r[1], r[1] + bonus * r[1]] if len(r) > 1 else r
        if without_program is not None:
            calls = episode.notes.get("calls_each", [len(episode.notes.get(CALLS, ()))])
            total = [without_program if not n else value for value, n in zip(total, calls, strict=False)]
        return {**of_attempts(total), "skill": used}

    return reward


def each_place() -> Credit:
    """A = R - mean R over the group, at each place, on what was sampled there."""
    places = ((FIRST, attempt_tag(1)), (SECOND, attempt_tag(2)))

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            rows = {tag: compared(scores_of(group, name)) for name, tag in places}
            signals += [
                on_parts(e, {tag: row[i] for tag, row in rows.items()}) for i, e in enumerate(group.episodes)
            ]
        return signals

    return credit


# ---- the recipe ------------------------------------------------------------------------------------------------------

CODE = "def twice(x):\n    return 2 * x\n\nprint(twice(3))"


def _rewarded(
    *rewards: float, used: bool = True, calls: Sequence[int] = (1, 1), **settings: Any
) -> list[float]:
    """The rewards at both places."""
    made = example_attempts(*rewards)
    notes = {**made.notes, USED: ["f"] if used else [], "calls_each": list(calls)}
    scored = given_stage(RECIPE, "reward", **settings)(replace(made, notes=notes))
    return [scored[name] for name in (FIRST, SECOND) if name in scored]


def _credited() -> list[float]:
    """The advantages at the first and the second place of two attempts: right and right with a skill; right and wrong."""
    made = [
        replace(e, notes={**e.notes, USED: u})
        for e, u in ((example_attempts(1.0, 1.0), ["f"]), (example_attempts(1.0, 0.0), []))
    ]
    signals = credited_signals(RECIPE, made)
    return [*advantages_of(signals, attempt_tag(1)), *advantages_of(signals, attempt_tag(2))]


RECIPE: Recipe = Recipe(
    name="sage",
    base=GRPO,
    paper=Paper("Reinforcement Learning for Self-Improving Agent with Skill Library", "2512.17102", 2025),
    published_lr=1e-6,
    idea="An agent that solves every task anew learns little from the last one. Here what it programmed for a task is at hand in the next of its kind. "
    "A function that was called again earns more, for the task that wrote it and for the one that used it, where both were solved.",
    equation="R_1 = r_1 + r_1 r_2 u,  R_2 = r_2 + r_2 u;  A = R - mean R at each place;  L as GRPO",
    departures=(
        "r is the verdict's reward; a chain has two tasks of a kind and level, in the paper of a scenario",
        "a function is kept where its program ran, in the paper where the policy says so; a program of the second task may define it anew, which is no use of it",
        "programs are calls of the tool `python` in the model's own syntax, in the sandbox; other tools of the run may be called beside it, not by programs",
        "where no program was run the answer counts (reward.without_program=-1 for the paper's -1), and the attempt goes on to the second task",
        "the paper begins with imitation of an expert's programs (`sft`)",
    ),
    confidence="source",
    stages={
        "group_rollout": stage(Chained),
        "reward": stage(skill_integrated),
        "credit": stage(each_place),
    },
    claim="In second tasks functions of the first are called more often, and fewer programs are needed, than with a reward for answers alone.",
    manipulation=(
        Manipulated(
            "one attempt in twenty calls a function again", r"group_rollout\.reused", 0.05, read="max"
        ),
    ),
    examples=(
        ByHand("both right, a skill used: 1 + 1, 1 + 1", lambda: _rewarded(1.0, 1.0), [2, 2]),
        ByHand("first wrong: 0, 1 + 1", lambda: _rewarded(0.0, 1.0), [0, 2]),
        ByHand("second wrong: 1, 0", lambda: _rewarded(1.0, 0.0), [1, 0]),
        ByHand(
            "half right, half of a skill: 1/2 + 1/8, 1/2 + 1/4",
            lambda: _rewarded(0.5, 0.5, skill_weight=0.5),
            [0.625, 0.75],
        ),
        ByHand("no skill used", lambda: _rewarded(1.0, 1.0, used=False), [1, 1]),
        ByHand("one task", lambda: _rewarded(1.0), [1]),
        ByHand(
            "no program in the second: -1",
            lambda: _rewarded(1.0, 1.0, calls=(2, 0), without_program=-1.0),
            [2, -1],
        ),
        ByHand("at the first place 2 and 1, at the second 2 and 0", _credited, [0.5, -0.5, 1, -1]),
        ByHand(
            "functions of a program: one; of what cannot be read: none; calls",
            lambda: float(
                functions_of(CODE) == {"twice": "def twice(x):\n    return 2 * x"}
                and not functions_of("def f(:")
                and called_in(CODE) == {"twice", "print"}
                and not called_in("f(")
            ),
            1,
        ),
        Reduction(
            "one task, no programs: GRPO without std",
            "grpo",
            {"group_rollout.chain": 1, "group_rollout.library": False, "group_rollout.skill_request": ""},
            {"credit.scale": "off"},
        ),
    ),
)
