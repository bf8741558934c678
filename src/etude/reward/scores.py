"""What a reward says of an episode, where it says more than numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Scores(dict[str, float]):
    """Named numbers, and `notes` that are kept with the episode (what a judge said)."""

    def __init__(self, numbers: Mapping[str, float], notes: Mapping[str, Any] | None = None) -> None:
        super().__init__(numbers)
        self.notes = dict(notes or {})
