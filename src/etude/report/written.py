"""Tasks that a model wrote, as lines of `written.jsonl` and as the page lists them: who wrote each, from what, who solved it, when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from etude.curriculum.written import News

LONGEST = 4000  # characters kept of a question, an answer, or what the writer read

Row = dict[str, Any]


def lines(step: int, news: Iterable[News], episodes: pa.Table) -> list[Row]:
    """The lines of a step. `episodes`: the step's own (`rows.SCHEMA`), in which writers and attempts are found."""
    columns = ("id", "origin", "task_key", "index", "player", "policy_version", "correct")
    mine: dict[str, list[Row]] = {}
    for row in episodes.select(columns).to_pylist():
        if row["origin"] == "group":
            mine.setdefault(row["task_key"], []).append(row)
    found = []
    for one in news:
        line: Row = {"step": step, "what": one.what, "key": one.key}
        if one.written is not None:
            task, new = one.written.task, one.written
            writing = [r["id"] for r in mine.get(new.parent, []) if r["index"] == new.index]
            line |= {
                "kind": task.kind,
                "difficulty": float(task.difficulty),
                "prompt": [{"role": m.role, "content": m.content[:LONGEST]} for m in task.prompt],
                "answer": None if task.answer is None else task.answer[:LONGEST],
                "writer": new.writer,
                "parent": new.parent,
                "asked": new.asked[:LONGEST],
                "probed": new.probed,
                "episode": writing[0] if writing else None,
            }
        elif one.what == "tried":
            line["attempts"] = [
                {"id": r["id"], "by": f"{r['player']} {r['policy_version']}", "correct": bool(r["correct"])}
                for r in mine.get(one.key, [])
            ]
        found.append(line)
    return found


def listed(told: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each written task, the newest first, from the lines of a run. Lines that lack what they need are passed over."""
    rows: dict[str, Row] = {}
    for line in told:
        what, key, step = line.get("what"), line.get("key"), line.get("step")
        if what == "written" and isinstance(line.get("prompt"), list):
            before = rows.pop(str(key), None)  # written again after it had left
            own = {name: value for name, value in line.items() if name != "what"}
            rows[str(key)] = {**own, "left": None, "attempts": before["attempts"] if before else []}
        elif (row := rows.get(str(key))) and what == "tried":
            row["attempts"] += [{**a, "step": step} for a in line.get("attempts") or []]
        elif row and what == "left":
            row["left"] = step
    for row in rows.values():
        row["tried"] = len(row["attempts"])
        row["solved"] = sum(bool(a.get("correct")) for a in row["attempts"])
    return list(reversed(rows.values()))


def within(rows: Sequence[Row], budget: int) -> list[Row]:
    """The first of `rows` that fit into about `budget` bytes of JSON."""
    kept = []
    for row in rows:
        words = sum(len(m["content"]) for m in row["prompt"]) + len(row["answer"] or "") + len(row["asked"])
        budget -= 300 + words + 60 * row["tried"]
        if budget < 0:
            break
        kept.append(row)
    return kept
