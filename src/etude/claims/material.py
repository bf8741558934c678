"""Task files that some claims need, written anew where they are missing, and the names that stand for them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import platformdirs

from etude.claims import running_text
from etude.files import write_atomically
from etude.lab.tasks import LabSource

FEW, HELD_OUT = 40, 400  # solutions of the tasks "few", and the problems that they are examined on


def source(tasks: str) -> str:
    """A task source: one of the two files that are made here, or what `etude` itself knows by that name."""
    return FILES[tasks]() if tasks in FILES else tasks


def _place(name: str) -> Path:
    return platformdirs.user_cache_path("etude", ensure_exists=True) / "claims" / name


def text() -> str:
    """A file of running text, a third of it to be examined on."""
    place = _place("passages.jsonl")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, running_text.lines())
    return f"{place}:check=exact,eval_share=0.33"


def few() -> str:
    """A file of few problems of the laboratory with their solutions, and 400 to be examined on."""
    lab = LabSource("lab", {"kind": "sum+sort"})
    (first,) = lab.draw("sum", 0.0, 1, 0)
    place = _place(f"few-{first.key[:12]}.jsonl")  # of these tasks, and no earlier version of them
    if not place.exists():
        arms = [(kind, level) for kind in lab.kinds for level in lab.levels(kind)]
        rows: dict[str, str] = {}
        for i in itertools.count():
            (task,) = lab.draw(*arms[i % len(arms)], 1, i)
            row = {"prompt": task.prompt[0].content, "answer": task.answer, "reference": task.reference}
            rows[task.key] = json.dumps({**row, "kind": task.kind, "difficulty": task.difficulty})
            if len(rows) == FEW + HELD_OUT:
                break
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, "\n".join(rows.values()))
    return f"{place}:extract=tag,check=exact,eval_share={HELD_OUT / (HELD_OUT + FEW):.6f}"


FILES: dict[str, Callable[[], str]] = {"few": few, "text": text}
