"""Whether tasks that a model was trained on stand in the suite that it is measured with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from etude.errors import Refused
from etude.tasks.asked import asked, normalised
from etude.types import Task

__all__ = ["Offender", "normalised", "offenders", "refuse"]


@dataclass(frozen=True)
class Offender:
    """A problem of the suite that was also trained on. `how`: "content" (the same task) or "text" (the same
    words up to case, width and spacing, under another kind, system prompt or gold answer)."""

    suite: Task
    trained: Task
    how: str


def offenders(trained: Iterable[Task], suite: Iterable[Task]) -> list[Offender]:
    """The problems of `suite` that occur among `trained`, each once, in the suite's order. Linear time.

    A task that plays a world is compared by its content alone, because its prompt need not name the world.
    """
    by_key: dict[str, Task] = {}
    by_text: dict[str, Task] = {}
    for task in trained:
        by_key.setdefault(task.key, task)
        by_text.setdefault(asked(task), task)
    found = []
    for task in suite:
        if task.key in by_key:
            found.append(Offender(task, by_key[task.key], "content"))
        elif (text := asked(task)) in by_text:
            found.append(Offender(task, by_text[text], "text"))
    return found


def refuse(trained: Iterable[Task], suite: Iterable[Task], name: str = "the suite") -> None:
    """Raises Refused, with the count and the first offender, where anything of `suite` was trained on."""
    found = offenders(trained, suite)
    if found:
        first = found[0].suite.prompt[-1].content[:60] if found[0].suite.prompt else found[0].suite.key
        raise Refused(
            f"{len(found)} problem(s) of {name} were trained on, the first asking '{first}'; train on other"
            " tasks, or measure on other problems"
        )
