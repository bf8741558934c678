"""Which recipes a test over the catalogue needs, where recipes that share a stage are one to it."""

from collections.abc import Sequence
from typing import Any

import pytest

from etude.assembly import resolved_stages
from etude.methods import catalogue


def apart(*stages: str, always: Sequence[str] = ()) -> list[Any]:
    """All recipes, as parameters: the first one (and those of `always`) for each different choice of `stages` in every run of the
    tests, the others with `pytest -m long`."""
    seen, made = set[tuple[object, ...]](), []
    for name, recipe in catalogue().items():
        built = resolved_stages(recipe)
        kind = tuple(built[s].factory if s in built else None for s in stages)
        late = kind in seen and name not in always
        made.append(pytest.param(name, marks=[pytest.mark.long] if late else []))
        seen.add(kind)
    return made
