"""The curriculum that chooses nothing: the default, and the base of curricula that keep little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etude.stages import Context
from etude.types import Group, Request, Signal


class SourceMixture:
    """Leaves kind and level of every task to the task source's own mixture. Has no state and reports nothing."""

    def next(self, n: int, context: Context) -> list[Request]:
        return [Request() for _ in range(n)]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        return None

    def report(self) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None
