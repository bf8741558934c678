"""What a kind of task made here is: its parameters, its levels, and how one item of it is made."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from etude.tasks.spec import Param
from etude.types import Check, Environment

FEEDBACK = Param(
    "feedback", typing.Literal["none", "unary", "hint", "full"], "unary", "what a failed attempt is told"
)
LEVEL = Param("level", int, 0, "level of difficulty; what is given besides holds at every level")


@dataclass(frozen=True)
class Made:
    """One item. Either `environment` (with its `content`, which names it) or `check` and `answer`."""

    prompt: str
    environment: Callable[..., Environment] | None = None
    content: Any = None
    check: Check | None = None
    answer: str | None = None
    reference: str | None = None
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    line: str
    params: tuple[Param, ...]
    levels: tuple[Mapping[str, Any], ...]  # what each level sets
    refuse: Callable[[dict[str, Any]], str]  # why the settings cannot be used, or ""
    make: Callable[[dict[str, Any], int], Made]  # (settings, seed) -> one item
    form: str = "environment"  # "environment" | "generator"


def out_of_range(settings: Mapping[str, Any], **bounds: tuple[float, float]) -> str:
    """A sentence about the first setting that lies outside its bounds, or ""."""
    for name, (low, high) in bounds.items():
        if not low <= settings[name] <= high:
            return f"{name}={settings[name]:g} is out of range; it must be from {low:g} to {high:g}"
    return ""


def feedback_text(feedback: str, unary: str, hint: str, full: str) -> str:
    """The feedback on a failed attempt: `feedback` chooses among "", `unary`, `hint` and `full`."""
    return {"none": "", "unary": unary, "hint": hint, "full": full}[feedback]
