"""What a task asks, as text that can be compared: the one definition by which training and evaluation are kept apart."""

from __future__ import annotations

import re
import unicodedata

from etude.types import Task

_BLANK = re.compile(r"\s+")
_LOOSE = re.compile(r"(?<=[^\w\s]) | (?=[^\w\s])")


def normalised(task: Task) -> str:
    """What the task asks, as comparable text: the user's messages, compatibility forms of characters made
    one, case folded, blanks collapsed, and dropped beside signs ("3 + 4" is "3+4", "1 2" is not "12")."""
    said = "\n".join(m.content for m in task.prompt if m.role == "user")
    text = _BLANK.sub(" ", unicodedata.normalize("NFKC", said).casefold()).strip()
    return _LOOSE.sub("", text)


def asked(task: Task) -> str:
    """The same for tasks of every sort: kind, gold answer and system prompt left out. A task that plays a world is what
    its world is, because its prompt need not name the world."""
    return task.key if task.environment is not None else f"asks {normalised(task)}"
