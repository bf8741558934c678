"""The laboratory's tasks: worked out line by line, the result marked at the end.

    sort DACBE   ->   A\nB\nC\nD\nE\n<answer>ABCDE</answer>

Six kinds of problem (`lab.problems`), levels 0 to 4, and two environments (`lab.worlds`), levels 0 to 3. A quarter of all
problems, by a hash of their content, belongs to the teaching of the laboratory's model and is never drawn."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.errors import UserError, nearest
from etude.lab.problems import KINDS, read, solve, tool
from etude.lab.worlds import DOORS, TURNS, House, Lock, draw_house, draw_lock, marked
from etude.tasks.check import UNARY, Exact, NoText
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import Param, typed
from etude.types import Message, Task, Verdict

WORLDS: Mapping[str, tuple[str, int, Callable[[np.random.Generator, int], tuple[str, Any]]]] = {
    "lock": ("a lock of three to six turns", len(TURNS), draw_lock),
    "house": ("a way through a house", len(DOORS), draw_house),
}
LEVELS: Mapping[str, tuple[float, ...]] = {
    **{name: tuple(float(i) for i in range(len(kind.sizes))) for name, kind in KINDS.items()},
    **{name: tuple(float(i) for i in range(levels)) for name, (_, levels, _) in WORLDS.items()},
}
MAX_TOKENS = (
    128  # no worked solution of the laboratory is longer, those that are checked (below level 2) included
)
TRIES = 256  # redraws until a problem falls into the part that is asked for

PARAMS = (
    Param(
        "kind",
        str,
        "all",
        f"which kinds, joined by +: {', '.join(KINDS)} (all of these), or the environments {', '.join(WORLDS)}",
    ),
    Param("level", int | None, None, "0 to 4 (environments: to 3), rising in length; none: all evenly"),
    Param(
        "calls",
        bool,
        False,
        "a problem names the call of the laboratory's tool that solves it (column calls)",
    ),
    Param(
        "feedback", typing.Literal["none", "unary", "hint", "full"], "unary", "what a wrong answer is told"
    ),
)

WAIT, CHECK = "Wait", "Check:"
"""What opens a line that takes back what stands above it, and what opens a second working of the same lines."""


def written_steps(text: str) -> list[str]:
    """The lines of working of an answer, as they stand at its end: a line that begins with "Wait" takes back the one
    above it ("start again": all of them; "line 3": those from there on), and lines under "Check:" replace those above
    where there are as many. Lines in words ("Plan: ...") are none."""
    before, _, _ = text.rpartition("<answer>")
    lines: list[str] = []
    checked: list[str] | None = None
    for line in (raw.strip() for raw in (before or text).splitlines()):
        if line.startswith(WAIT):
            from_line = re.search(r"[Ll]ine (\d+)", line)
            keep = int(from_line[1]) - 1 if from_line else len(lines) - 1
            del lines[0 if "again" in line else max(keep, 0) :]
        elif line == CHECK:
            checked, lines = lines, []
        elif line and not re.match(r"[A-Z][a-z]|<", line):
            lines.append(line)
    return checked if checked is not None and len(lines) != len(checked) else lines


def steps_right(task: Task, text: str) -> bool | None:
    """Whether all lines of working of an answer are those of the task's solution; None where it has no lines."""
    right = task.meta.get("steps")
    return None if right is None else written_steps(text) == list(right)


@dataclass(frozen=True)
class Worked(Exact):
    """The marked result decides. Of a wrong answer, feedback "hint" names the first line that is wrong."""

    extract: str = "tag"
    lines: tuple[str, ...] = ()

    def __call__(self, answer: str) -> Verdict:
        """Judges the completion."""
        verdict = super().__call__(answer)
        if verdict.correct or self.feedback != "hint":
            return verdict
        wrong = first_wrong(self.lines, answer)
        return replace(verdict, feedback=f"{UNARY} Line {wrong} is wrong." if wrong else UNARY)

    def posed(self, task: Task, text: str) -> Task | None:
        """The problem that the first line of `text` poses, worked out, if it is of the same kind as `task`; None
        where it poses none, or one of those that were taught."""
        said = (text.strip().splitlines() or [""])[0].strip()
        found = read(said)
        if found is None or said.split()[0] != task.prompt[-1].content.split()[0] or taught(said):
            return None
        return problem(said, self.feedback, task.kind)


def first_wrong(lines: Sequence[str], answer: str) -> int:
    """The first line of an answer that is wrong, from 1; 0 where all are right."""
    said = written_steps(answer)
    return next((i for i, line in enumerate(lines, 1) if said[i - 1 : i] != [line]), 0)


def taught(said: str) -> bool:
    """Whether a problem belongs to the quarter with which the model was taught."""
    return int(digest(said), 16) % 4 == 0


def lab_task(kind: str, level: int, seed: int, feedback: str = "unary", teaching: bool = False) -> Task:
    """The task named by the arguments. `teaching`: from the quarter of problems with which the model was taught;
    otherwise never one of these."""
    for attempt in range(TRIES):
        rng = np.random.default_rng(item_seed("lab", kind, level, seed, attempt))
        made: Lock | House | None = None
        if kind in WORLDS:
            said, made = WORLDS[kind][2](rng, level)
        else:
            said = KINDS[kind].draw(rng, KINDS[kind].sizes[level])
        if taught(said) == teaching:
            break
    if made is None:
        return problem(said, feedback, kind)
    return _world(said, kind, level, replace(made, feedback=feedback))


def problem(said: str, feedback: str, kind: str | None = None) -> Task:
    """The task of solving a problem, as it is written; `kind`: under another name."""
    found = read(said)
    assert found is not None, said
    lines, result = solve(said)
    shown = dict.fromkeys((1, (len(lines) + 1) // 2, len(lines) - 1))  # from vague to telling
    return Task(
        prompt=(Message("user", said),),
        check=Worked(result, feedback=feedback, lines=tuple(lines)),
        kind=kind or found[0],
        difficulty=float(found[1]),
        answer=result,
        reference=marked(lines, result),
        hints=tuple("\n".join(lines[:n]) for n in shown),
        meta={"source": "lab", "steps": lines, "feedback": feedback},
    )


def _world(said: str, kind: str, level: int, made: Lock | House) -> Task:
    replies = made().solve()
    return Task(
        prompt=(Message("user", said),),
        check=NoText("lab"),
        kind=kind,
        difficulty=float(level),
        reference="\n".join(replies),
        hints=(replies[0],),
        environment=made,
        meta={"source": "lab", "feedback": made.feedback, "environment_key": said},
    )


class LabSource:
    """The tasks as a source (`etude.tasks.source.Source`). Raises UserError for settings that do not exist."""

    def __init__(self, name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> None:
        own = {p.name: p.default for p in PARAMS} | typed("task 'lab'", given or {}, PARAMS)
        chosen = list(KINDS) if own["kind"] == "all" else own["kind"].split("+")
        for kind in chosen:
            if kind not in LEVELS:
                raise UserError(f"task 'lab' has no kind '{kind}'{nearest(kind, LEVELS)}")
        if called and len(chosen) > 1:
            raise UserError("task 'lab': as=NAME needs a single kind, as in lab:kind=sort,as=NAME")
        self.name = called or name
        self._own = {called or kind: kind for kind in chosen}
        self.kinds = tuple(self._own)
        self.feedback, self.calls = own["feedback"], own["calls"]
        self._level = None if own["level"] is None else float(own["level"])
        if self._level is not None:
            for kind in chosen:
                check_level(
                    f"{self.name}: {kind}" if kind in WORLDS else self.name, self._level, LEVELS[kind]
                )

    def levels(self, kind: str) -> tuple[float, ...]:
        """Those of the kind; the one level that the source was fixed to."""
        return LEVELS[self._own[kind]] if self._level is None else (self._level,)

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        """`n` tasks; see `etude.tasks.source.Source`."""
        levels = self.levels(kind)
        level = self._level if difficulty is None else check_level(kind, difficulty, levels)
        tasks = []
        for i in range(n):
            here = level if level is not None else levels[item_seed("level", kind, seed, i) % len(levels)]
            task = lab_task(self._own[kind], int(here), item_seed("task", seed, i), self.feedback)
            if self.calls and task.environment is None:
                call = {"name": tool.__name__, "arguments": {"problem": task.prompt[-1].content}}
                task = replace(task, meta={**task.meta, "calls": [call]})
            tasks.append(replace(task, kind=kind))
        return tasks

    def describe(self) -> Info:
        """For the catalogue."""
        worlds = set(self._own.values()) & set(WORLDS)
        return replace(info(), carries=("reference", "feedback", "environment")) if worlds else info()

    def fingerprint(self) -> str:
        """Changes with the parameters."""
        return digest(["lab 2", self._own, self._level, self.feedback, *(["calls"] if self.calls else [])])


def info() -> Info:
    """The catalogue's entry."""
    return Info(
        "lab",
        "generator",
        "Sums, programs, look-ups, letters and conditions, worked line by line; made for the model 'lab'",
        PARAMS,
        LEVELS,
        ("reference", "hints", "feedback", "steps"),
    )
