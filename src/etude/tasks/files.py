"""Finite sources: your own tasks, split once by hash into training and evaluation, walked in epochs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import lru_cache

from etude.errors import UserError
from etude.tasks.asked import asked
from etude.tasks.content import contents
from etude.tasks.source import Info, check_disjoint, check_level, digest, item_seed
from etude.tasks.spec import Param
from etude.types import Task


class Listed:
    """A finite list of tasks as a source.

    `eval_share`: the share of tasks set aside for evaluation, chosen by content hash, so that the split
    depends neither on the order of the list nor on the run's seed. `held`: an evaluation list of your own
    instead; UserError where it shares a task with `tasks`. Duplicates are dropped and counted in `dropped`.
    """

    def __init__(
        self,
        name: str,
        tasks: Iterable[Task],
        eval_share: float = 0.2,
        held: Iterable[Task] | None = None,
        info: Info | None = None,
        notes: Iterable[str] = (),
        whole: bool = False,
    ) -> None:
        if not 0 <= eval_share < 1:
            raise UserError(f"task source '{name}': eval_share is {eval_share}; it must lie in [0, 1)")
        self.name = name
        self.notes = tuple(notes)  # what a user should know of the tasks, a sentence each
        self.whole = whole  # an examination may use all of it: no evaluation part was asked for
        unique, self.dropped = _unique(tasks)
        if not unique:
            raise UserError(f"task source '{name}' holds no tasks")
        if held is not None:
            others, again = _unique(held)
            self.dropped += again
            check_disjoint(unique, others)
            self._parts = {"train": unique, "eval": others}
        else:
            chosen = _set_aside(unique, eval_share)
            self._parts = {
                "train": [task for task in unique if asked(task) not in chosen],
                "eval": [task for task in unique if asked(task) in chosen],
            }
        self._info = info
        self.size = len(unique)
        self.kinds = tuple(sorted({t.kind for part in self._parts.values() for t in part}))
        self._order = lru_cache(maxsize=64)(self._ordered)

    def leave_out(self, unwanted: Callable[[Task], bool], part: str = "") -> list[Task]:
        """Takes the tasks for which `unwanted` holds out of all parts, or of one; returns them."""
        gone = []
        for name, tasks in self._parts.items():
            if not part or name == part:
                gone += [t for t in tasks if unwanted(t)]
                self._parts[name] = [t for t in tasks if not unwanted(t)]
        self.size -= len(gone)
        self._order.cache_clear()
        return gone

    def set_apart(self, wanted: Callable[[Task], bool], part: str) -> None:
        """Moves the training tasks for which `wanted` holds into another part, which neither training nor evaluation sees."""
        self._parts[part] = [*self.tasks(part), *(t for t in self._parts["train"] if wanted(t))]
        self._parts["train"] = [t for t in self._parts["train"] if not wanted(t)]
        self._order.cache_clear()

    def levels(self, kind: str) -> tuple[float, ...]:
        """The difficulties of the training tasks of this kind; none where all of them are set aside."""
        return tuple(sorted({t.difficulty for t in self._parts["train"] if t.kind == kind}))

    def tasks(self, part: str) -> list[Task]:
        """All tasks of the "train" or the "eval" part, or of one that was set apart, in the list's order."""
        return list(self._parts.get(part, ()))

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        """The first `n` training tasks of the seed's order, or fewer where there are fewer."""
        order = self._order(kind, self._level(kind, difficulty), "train", seed, 0)
        return list(order[:n])

    def numbered(
        self, kind: str | None, difficulty: float | None, purpose: str, index: int, attempt: int, seed: int
    ) -> Task | None:
        """Task number `index` of a part ("train" | "eval"): each epoch is a keyed permutation. `kind` None:
        any. None where the part has no such task."""
        level = self._level(kind, difficulty)
        size = len(self._order(kind, level, purpose, seed, 0))
        if not size:
            return None
        epoch, place = divmod(index + attempt, size)
        return self._order(kind, level, purpose, seed, epoch)[place]

    def describe(self) -> Info:
        """For the catalogue."""
        if self._info is not None:
            return self._info
        carries = [
            w
            for w in ("reference", "hints", "environment")
            if any(getattr(t, w) for t in self.tasks("train"))
        ]
        levels = {kind: self.levels(kind) for kind in self.kinds}
        line = f"{len(self._parts['train'])} training and {len(self._parts['eval'])} evaluation tasks"
        return Info(self.name, "file", line, (), levels, tuple(carries))

    def fingerprint(self) -> str:
        """Changes with the questions, or with the split."""
        return digest([self.name, [[p, sorted(t.key for t in ts)] for p, ts in sorted(self._parts.items())]])

    def contents(self) -> dict[str, str]:
        """Hashes of everything that the tasks hold, by what it is."""
        return contents(task for tasks in self._parts.values() for task in tasks)

    def _level(self, kind: str | None, difficulty: float | None) -> float | None:
        if difficulty is not None and kind is not None:
            check_level(kind, difficulty, self.levels(kind))
        return difficulty

    def _ordered(
        self, kind: str | None, level: float | None, part: str, seed: int, epoch: int
    ) -> tuple[Task, ...]:
        chosen = [
            task
            for task in self._parts[part]
            if (kind is None or task.kind == kind) and (level is None or task.difficulty == level)
        ]
        chosen.sort(key=lambda task: task.key)  # so that the order of the list does not matter
        random.Random(item_seed("epoch", self.name, kind, level, part, seed, epoch)).shuffle(chosen)
        return tuple(chosen)


COLUMNS = ("prompt", "answer", "kind", "reference", "difficulty")  # fields whose column a user may name
PARAMS = (
    Param("eval_share", float, 0.2, "share of the tasks set aside for evaluation"),
    Param("eval", str, "", "a second file, or another split, whose tasks are the evaluation set"),
    Param("split", str, "", "which split of a folder or data set"),
    Param("config", str, "", "which configuration of a data set"),
    *(Param(f"columns.{n}", str, "", f"the column that holds the {n}") for n in COLUMNS),
    Param(
        "check",
        str,
        "auto",
        "how answers are compared where a line does not say: auto (by the kind of the gold), exact, number, math, program, "
        "tests, output, sql, json_schema, regex, choice, yes_or_no, date, time, digits, list, set, tuple, text; none: not at "
        "all, what is sampled has a reward of its own; pairs: not either, each line prefers one answer to another",
    ),
    Param(
        "extract",
        str,
        "auto",
        "where the answer stands: auto, last_number, first_number, tag, boxed, line, whole",
    ),
    Param("feedback", str, "unary", "what a wrong answer is told: none, unary, hint, full"),
)


def _set_aside(tasks: list[Task], share: float) -> set[str]:
    """What the evaluation part asks: about `share` of the tasks, those first by hash. Tasks that ask the same (in other
    case or spacing, under another kind or gold) go the same way; at least one task is left to train on."""
    same: dict[str, list[int]] = {}
    for task in tasks:
        same.setdefault(asked(task), []).append(item_seed("split", task.key))
    cut = min(len(tasks) - 1, max(1, round(share * len(tasks)))) if share > 0 else 0
    chosen: set[str] = set()
    for text, ranks in sorted(same.items(), key=lambda pair: min(pair[1])):
        if cut <= 0 or len(chosen) == len(same) - 1:
            break
        chosen.add(text)
        cut -= len(ranks)
    return chosen


def _unique(tasks: Iterable[Task]) -> tuple[list[Task], int]:
    found: dict[str, Task] = {}
    dropped = 0
    for task in tasks:
        dropped += task.key in found
        found.setdefault(task.key, task)
    return list(found.values()), dropped
