"""An item of a data set: a row as `--tasks` reads it, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import parsed, write_atomically
from etude.tasks.rows import WRITTEN, rows
from etude.types import Message, Task

PROVENANCE = WRITTEN
"""The column that holds where an item comes from, an object."""


@dataclass(frozen=True)
class Item:
    """`row`: columns of a task file: prompt, answer, reference (a worked solution), kind, difficulty, and whatever else its check
    reads. `came`: recipe, writer, source, parent, and numbers such as difficulty or loss."""

    row: Mapping[str, Any]
    came: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """What the user says last."""
        said = self.row.get("prompt", "")
        return said if isinstance(said, str) else str(said[-1]["content"])

    @property
    def text(self) -> str:
        """What is imitated: the reference, or the answer."""
        return str(self.row.get("reference") or self.row.get("answer") or "")

    def but(self, **columns: Any) -> Item:
        return replace(self, row={**self.row, **columns})

    def noted(self, **facts: Any) -> Item:
        return replace(self, came={**self.came, **facts})


def of_task(task: Task, source: str) -> Item:
    """A task as an item. Its check is left to the file that it is written to, which compares by the gold answer; a task that
    plays a world, or has no gold answer, cannot be written."""
    if task.environment is not None or task.answer is None:
        raise UserError(f"a task of '{source}' has no gold answer to write down; choose tasks with answers")
    said: Any = [{"role": m.role, "content": m.content} for m in task.prompt]
    row: dict[str, Any] = {
        "prompt": said[0]["content"] if len(said) == 1 and said[0]["role"] == "user" else said
    }
    row |= {"answer": task.answer, "kind": task.kind, "difficulty": task.difficulty}
    if task.reference:
        row["reference"] = task.reference
    return Item(row, {"source": source, "parent": task.key})


def messages(item: Item) -> list[Message]:
    said = item.row["prompt"]
    if isinstance(said, str):
        return [Message("user", said)]
    return [Message(str(m["role"]), str(m["content"])) for m in said]


def read(path: str | Path) -> list[Item]:
    """The items of a file of tasks, of this package or of any that `--tasks` reads. UserError naming what cannot be read."""
    found = []
    for number, (where, row) in enumerate(rows(path), 1):
        came = row.get(PROVENANCE)
        if isinstance(came, str):  # Parquet
            came = parsed(came, f"{where}, column '{PROVENANCE}'")
        if not isinstance(came, Mapping):
            came = {"source": Path(path).name, "row": number}
        if "prompt" not in row:
            raise UserError(f"{where} has no prompt")
        found.append(Item({k: v for k, v in row.items() if k != PROVENANCE}, came))
    return found


def write(items: Sequence[Item], place: Path, name: str = "data") -> list[Path]:
    """`name`.jsonl and `name`.parquet; every item with its provenance (in Parquet as JSON text, since its facts differ from item
    to item). Lists are JSON text in Parquet too, since a column of it holds one type; `tasks.rows` reads them back."""
    import pyarrow
    import pyarrow.parquet

    place.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**item.row, PROVENANCE: item.came}, ensure_ascii=False) for item in items]
    jsonl, parquet = place / f"{name}.jsonl", place / f"{name}.parquet"
    write_atomically(jsonl, "".join(f"{line}\n" for line in lines))
    columns = {c: [_cell(i.row.get(c)) for i in items] for c in _columns(items)}
    columns[PROVENANCE] = [json.dumps(i.came, ensure_ascii=False) for i in items]
    beside = parquet.with_suffix(".tmp")
    pyarrow.parquet.write_table(pyarrow.table(columns), beside)
    beside.replace(parquet)
    return [jsonl, parquet]


def _columns(items: Iterable[Item]) -> list[str]:
    return list(dict.fromkeys(name for item in items for name in item.row))


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)
