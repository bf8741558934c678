"""The plainest curricula. A curriculum draws requests, sees what came of them, and keeps its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etude.types import Group, Request


class Uniform:
    """Whatever the task source's own mixture gives. Keeps nothing."""

    def next(self, n: int, context: Any) -> list[Request]:
        return [Request() for _ in range(n)]

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        return None

    def report(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None
