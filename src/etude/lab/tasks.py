"""The laboratory's tasks: worked out line by line, the result marked at the end.

    sort cabd   ->   a\nb\nc\nd\n<answer>abcd</answer>

Five kinds, levels 0 to 4. A level adds an item, hence a line; every line is an intermediate result that can be
checked. A quarter of all problems, by a hash of their content, belongs to the model's warm-up and is never drawn.
With `turns` above 1 a task is an environment: as many problems of one kind and level, one a turn, won with all of them right.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.errors import UserError, nearest
from etude.tasks.check import UNARY, Exact, NoText
from etude.tasks.kind import feedback_text
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import Param, typed
from etude.types import Message, Task, Verdict

LEVELS = (0.0, 1.0, 2.0, 3.0, 4.0)
LETTERS = "abcdefghijklmnopqrst"
ITEMS = (3, 4, 5, 7, 9)  # of a problem, by level
OPEN, CLOSE = "<answer>", "</answer>"
MAX_TOKENS = 40  # of the longest worked solution
TRIES = 256  # redraws until a problem falls into the part that is asked for

Problem = tuple[str, list[str], str]  # what is asked, the lines of working, the result


def _sum(rng: np.random.Generator, level: int) -> Problem:
    return _totals("sum", [str(i) for i in rng.integers(0, 10, ITEMS[level])])


def _chain(rng: np.random.Generator, level: int) -> Problem:
    items = rng.integers(1, 10, ITEMS[level]) * rng.choice([-1, 1], ITEMS[level])
    return _totals("chain", [f"{i:+d}" for i in items])


def _totals(kind: str, items: list[str]) -> Problem:
    """A line is an item and the total so far."""
    totals = np.cumsum([int(i) for i in items]) % 10
    return (
        f"{kind} {''.join(items)}",
        [f"{i}{t}" for i, t in zip(items, totals, strict=True)],
        str(totals[-1]),
    )


def _sort(rng: np.random.Generator, level: int) -> Problem:
    return _sorted([str(c) for c in rng.choice(list(LETTERS), ITEMS[level])])


def _sorted(items: list[str]) -> Problem:
    return f"sort {''.join(items)}", sorted(items), "".join(sorted(items))


def _reverse(rng: np.random.Generator, level: int) -> Problem:
    return _reversed([str(c) for c in rng.choice(list(LETTERS), ITEMS[level])])


def _reversed(items: list[str]) -> Problem:
    return f"reverse {''.join(items)}", items[::-1], "".join(items[::-1])


def _count(rng: np.random.Generator, level: int) -> Problem:
    items = [str(c) for c in rng.choice(list("abc"), ITEMS[level])]
    return _counted(str(rng.choice(list("abc"))), items)


def _counted(which: str, items: list[str]) -> Problem:
    counts = np.cumsum([c == which for c in items])
    lines = [f"{c}{n}" for c, n in zip(items, counts, strict=True)]
    return f"count {which} in {''.join(items)}", lines, str(counts[-1])


KINDS: Mapping[str, tuple[str, Callable[[np.random.Generator, int], Problem]]] = {
    "sum": ("adds digits, modulo 10", _sum),
    "chain": ("adds and subtracts digits, modulo 10", _chain),
    "sort": ("puts letters in order", _sort),
    "reverse": ("turns a word around", _reverse),
    "count": ("counts a letter", _count),
}

WRITTEN: Mapping[str, Callable[[re.Match[str]], Problem]] = {
    r"sum (\d+)": lambda m: _totals("sum", list(m[1])),
    r"chain ((?:[+-][1-9])+)": lambda m: _totals("chain", re.findall("[+-].", m[1])),
    rf"sort ([{LETTERS}]+)": lambda m: _sorted(list(m[1])),
    rf"reverse ([{LETTERS}]+)": lambda m: _reversed(list(m[1])),
    r"count ([abc]) in ([abc]+)": lambda m: _counted(m[1], list(m[2])),
}

PARAMS = (
    Param("kind", str, "all", f"which kinds, joined by +: {', '.join(KINDS)}"),
    Param("level", int | None, None, "0 to 4: every level adds an item; none: all levels evenly"),
    Param(
        "feedback", typing.Literal["none", "unary", "hint", "full"], "unary", "what a wrong answer is told"
    ),
    Param("turns", int, 1, "1 to 8: problems, one a turn, of which all must be right"),
)
MOST_TURNS = 8


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
        said = [line.strip() for line in answer.split(OPEN)[0].splitlines()]
        wrong = next((i for i, line in enumerate(self.lines, 1) if said[i - 1 : i] != [line]), 0)
        return replace(verdict, feedback=f"{UNARY} Line {wrong} is wrong." if wrong else UNARY)

    def posed(self, task: Task, text: str) -> Task | None:
        """The problem that the first line of `text` poses, worked out, if it is of the same kind as `task`; None
        where it poses none, or one of the warm-up's."""
        line = (text.strip().splitlines() or [""])[0].strip()
        found = ((re.fullmatch(pattern, line), work) for pattern, work in WRITTEN.items())
        problem = next((work(match) for match, work in found if match), None)
        if problem is None or line.split()[0] != task.prompt[-1].content.split()[0] or warm(line):
            return None
        if not ITEMS[0] <= len(problem[1]) <= ITEMS[-1]:
            return None
        level = max(i for i, items in enumerate(ITEMS) if items <= len(problem[1]))
        return _task(task.kind, level, problem, self.feedback)


def lab_task(kind: str, level: int, seed: int, feedback: str = "unary", warm_up: bool = False) -> Task:
    """The task named by the arguments. `warm_up`: from the quarter of problems that the model was warmed up on;
    otherwise never one of these."""
    for attempt in range(TRIES):
        rng = np.random.default_rng(item_seed("lab", kind, level, seed, attempt))
        said, lines, result = KINDS[kind][1](rng, level)
        if warm(said) == warm_up:
            break
    return _task(kind, level, (said, lines, result), feedback)


def warm(said: str) -> bool:
    """Whether a problem belongs to the quarter that the model was warmed up on."""
    return int(digest(said), 16) % 4 == 0


def _task(kind: str, level: int, problem: Problem, feedback: str) -> Task:
    said, lines, result = problem
    return Task(
        prompt=(Message("user", said),),
        check=Worked(result, feedback=feedback, lines=tuple(lines)),
        kind=kind,
        difficulty=float(level),
        answer=result,
        reference=solution(lines, result),
        hints=("\n".join(lines[:1]), "\n".join(lines[: len(lines) // 2])),
        meta={"source": "lab", "steps": lines, "feedback": feedback},
    )


def solution(lines: Sequence[str], result: str) -> str:
    """The worked solution as text."""
    return "\n".join([*lines, f"{OPEN}{result}{CLOSE}"])


@dataclass(frozen=True)
class ProblemSeries:
    """Makes a fresh series: `problems` posed one a turn. Nothing tells before the end whether one was right."""

    problems: tuple[Task, ...]
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> ProblemSeriesEnvironment:
        """A new episode; nothing in it is left to chance."""
        return ProblemSeriesEnvironment(self)


class ProblemSeriesEnvironment:
    """One way through a series: `etude.types.Environment`. The first problem is the task's prompt."""

    def __init__(self, series: ProblemSeries) -> None:
        self._series = series
        self._wrong: list[int] = []  # counted from 1
        self._done = 0

    def observe(self) -> str:
        """Nothing more than the prompt says."""
        return ""

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Checks the reply, without saying how it did, and returns the next problem. Raises RuntimeError after the end."""
        problems = self._series.problems
        if self._done == len(problems):
            raise RuntimeError("the series is over: call task.environment() for a new one")
        right = problems[self._done].check(text).correct
        self._done += 1
        if not right:
            self._wrong.append(self._done)
        if self._done < len(problems):
            return problems[self._done].prompt[0].content, None
        if not self._wrong:
            return "All of it is right.", Verdict(1.0, True)
        hint = f"{UNARY} Wrong: {', '.join(map(str, self._wrong))} of {len(problems)}."
        answers = ", ".join(p.answer or "" for p in problems)
        said = feedback_text(self._series.feedback, UNARY, hint, f"{hint} The right answers are {answers}.")
        return "Not all of it is right.", Verdict(0.0, False, said)

    def solve(self) -> list[str]:
        """The worked solutions, a reply each."""
        return [p.reference or "" for p in self._series.problems]


def series(problems: Sequence[Task], feedback: str) -> Task:
    """The task of solving all `problems` in turn. Its `reference` has several lines a turn."""
    make = ProblemSeries(tuple(problems), feedback)
    return Task(
        prompt=problems[0].prompt,
        check=NoText("lab"),
        kind=problems[0].kind,
        difficulty=problems[0].difficulty,
        reference="\n".join(make().solve()),
        environment=make,
        meta={
            "source": "lab",
            "feedback": feedback,
            "environment_key": [p.prompt[0].content for p in problems],
        },
    )


class LabSource:
    """The tasks as a source (`etude.tasks.source.Source`). Raises UserError for settings that do not exist."""

    def __init__(self, name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> None:
        own = {p.name: p.default for p in PARAMS} | typed("task 'lab'", given or {}, PARAMS)
        chosen = list(KINDS) if own["kind"] == "all" else own["kind"].split("+")
        for kind in chosen:
            if kind not in KINDS:
                raise UserError(f"task 'lab' has no kind '{kind}'{nearest(kind, KINDS)}")
        if called and len(chosen) > 1:
            raise UserError("task 'lab': as=NAME needs a single kind, as in lab:kind=sort,as=NAME")
        self.name = called or name
        self._own = {called or kind: kind for kind in chosen}
        self.kinds = tuple(self._own)
        if not 1 <= own["turns"] <= MOST_TURNS:
            raise UserError(
                f"task 'lab': turns={own['turns']} is out of range; it must be from 1 to {MOST_TURNS}"
            )
        self.feedback, self.turns = own["feedback"], own["turns"]
        self._level = None if own["level"] is None else check_level(self.name, float(own["level"]), LEVELS)

    def levels(self, kind: str) -> tuple[float, ...]:
        """All five, whatever the kind; the one level that the source was fixed to."""
        return LEVELS if self._level is None else (self._level,)

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        """`n` tasks; see `etude.tasks.source.Source`."""
        level = self._level if difficulty is None else check_level(kind, difficulty, self.levels(kind))
        tasks = []
        for i in range(n):
            here = level if level is not None else LEVELS[item_seed("level", kind, seed, i) % len(LEVELS)]
            drawn = [item_seed("task", seed, i)]
            drawn += [item_seed("task", seed, i, turn) for turn in range(1, self.turns)]
            parts = [lab_task(self._own[kind], int(here), one, self.feedback) for one in drawn]
            task = parts[0] if self.turns == 1 else series(parts, self.feedback)
            tasks.append(replace(task, kind=kind))
        return tasks

    def describe(self) -> Info:
        """For the catalogue."""
        return (
            info() if self.turns == 1 else replace(info(), carries=("reference", "feedback", "environment"))
        )

    def fingerprint(self) -> str:
        """Changes with the parameters."""
        return digest(["lab", self._own, self._level, self.feedback, self.turns])


def info() -> Info:
    """The catalogue's entry."""
    return Info(
        "lab",
        "generator",
        "Short chains of letters and digits, worked line by line; made for the model 'lab'",
        PARAMS,
        dict.fromkeys(KINDS, LEVELS),
        ("reference", "hints", "feedback", "steps"),
    )


def steps_right(task: Task, text: str) -> bool | None:
    """Whether the lines of working in an answer are those of the worked solution; None for a task without steps."""
    steps = task.meta.get("steps")
    if not steps:
        return None
    return [line.strip() for line in text.split(OPEN)[0].strip().splitlines()] == list(steps)
