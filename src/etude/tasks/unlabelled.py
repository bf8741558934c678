"""Tasks without labels: what is asked, and how an answer to it is read, but nothing of what is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etude.errors import UserError
from etude.types import Task, Verdict


@dataclass(frozen=True)
class Unlabelled:
    """In the place of a check. `extract`: the rule by which an answer is read; `form`: a check that knows no gold (`blank()` of
    the task's own) and reads answers as that does."""

    extract: str | None = None
    form: Any = None

    def __call__(self, answer: str) -> Verdict:
        raise UserError("these tasks are unlabelled: their checker is there for evaluation alone")

    def __getattr__(self, name: str) -> Any:
        if name == "read" and self.__dict__.get("form") is not None:
            return self.form.read
        raise AttributeError(name)


def unlabelled(task: Task) -> Task:
    """The task without its answer, worked solution, hints, further columns and checker. Its kind and difficulty stay: a
    curriculum may choose by them."""
    rule = getattr(task.check, "extract", None)
    blank = getattr(task.check, "blank", None)
    form = None if blank is None else blank()
    known = Unlabelled(rule if isinstance(rule, str) else None, form)
    return Task(task.prompt, known, kind=task.kind, difficulty=task.difficulty, meta={"parent": task.key})
