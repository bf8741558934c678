"""The rows of a file of tasks, whatever its format: one object per row, with where it stands.

.jsonl and .ndjson: a JSON object a line; .json: an array of objects (or lines); .csv and .tsv: a header and text cells;
.parquet and .arrow: a table; text files also with .gz. Nothing is guessed: a row that cannot be read is named, and a key that stands twice is refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import parsed
from etude.tasks import locate
from etude.tasks.locate import readable

WIDEST = 1 << 28  # characters of one CSV cell
NAMES = {"bool": "true or false", "list": "a list", "dict": "an object", "str": "text", "NoneType": "null"}
NESTED = (
    "hints",
    "cases",
    "messages",
    "tools",
    "tests",
    "inputs",
    "outputs",
    "schema",
)  # columns of a text table whose cells are JSON

WRITTEN = "provenance"  # the column of data sets that `etude data` wrote (`data.items`)

Row = tuple[str, dict[str, Any]]  # where it stands ("FILE, line 3"), and its columns


def names_file(name: str) -> bool:
    """Whether a name in a task spec means a file, a folder or a data set rather than a source of the catalogue."""
    return bool(readable(name) or re.search(r"[/\\]|^~|^[A-Za-z]:", name)) or (
        bool(Path(name).suffix) and Path(name).exists()
    )


def rows(path: str | Path, split: str = "", config: str = "") -> list[Row]:
    """All rows of what `path` names (`etude.tasks.locate`). Raises UserError naming the file, and the line, row or item,
    that cannot be read."""
    found = locate.find(path, split, config)
    read = [
        row
        for file in found.files
        for row in _rows(file, path if len(found.files) == 1 and not found.splits else file)
    ]
    if not read:
        raise UserError(f"task file '{path}' is empty; each row must hold a prompt and an answer")
    return read


def _rows(file: Path, path: str | Path) -> Iterator[Row]:
    kind = locate.ending(file)
    if kind not in locate.ENDINGS:
        is_there = "" if file.exists() else " (there is no such file either)"
        raise UserError(f"task file '{path}' has {_ending(kind)}{is_there}; {locate.READ}")
    if kind in (".parquet", ".arrow"):
        return _table(file, path, kind)
    return _from_text(_text(file, path), kind, path)


def _ending(ending: str) -> str:
    return f"the ending '{ending}', which is not read" if ending else "no ending that says how to read it"


ASKED = {"prompt", "question", "problem", "instruction", "query", "messages", "chosen"}


def _text(file: Path, path: str | Path) -> str:
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix.lower() == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"task file '{path}' is not UTF-8 text (byte {error.start})") from None
    except (OSError, EOFError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"task file '{path}' cannot be read: {said}") from None
    except ValueError as error:  # a null character in the path
        raise UserError(f"task file '{path}' cannot be read: {error}") from None


def _from_text(text: str, ending: str, path: str | Path) -> Iterator[Row]:
    if ending in (".csv", ".tsv"):
        head = text.partition("\n")[0]
        comma = (
            ";" if ";" in head and "," not in head else ","
        )  # as spreadsheets write where the comma is a point
        yield from _cells(text, comma if ending == ".csv" else "\t", path)
    elif ending == ".json" and (items := _array(text, path)) is not None:
        for i, item in enumerate(items, 1):
            yield f"{path}, item {i}", _object(item, f"{path}, item {i}")
    else:
        # Only line feeds end a line: splitlines() would also cut at characters that JSON text may hold.
        for i, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path}, line {i}", _object(parsed(line, f"{path}, line {i}"), f"{path}, line {i}")


def _array(text: str, path: str | Path) -> list[Any] | None:
    """The rows of a JSON document: an array, or an object that holds one, such as {"data": [...]}; None for JSON lines."""
    if text.lstrip().startswith("["):
        found: list[Any] = parsed(text, f"task file '{path}'")
        return found
    try:
        whole = parsed(text, f"task file '{path}'")
    except UserError:
        return None
    if not isinstance(whole, dict):
        return None
    lists = {
        n: v for n, v in whole.items() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)
    }
    if not {n.casefold() for n in whole}.isdisjoint(ASKED):  # one row
        return None
    if len(lists) > 1:
        raise UserError(
            f"task file '{path}' holds several arrays ({', '.join(lists)}); give each a file of its own"
        )
    return next(iter(lists.values()), None)


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{where} must hold an object with prompt and answer, not {kind_name(row)}")
    return row


def _cells(text: str, separator: str, path: str | Path) -> Iterator[Row]:
    """Rows of a text table. An empty cell is a column that the row does not have."""
    before = csv.field_size_limit(WIDEST)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        head = [name.strip() for name in next(reader, [])]
        twice = next((name for i, name in enumerate(head) if name in head[:i]), None)
        if twice is not None:
            raise UserError(f"{path}, line 1: the column '{twice}' stands twice; leave one of them out")
        start = reader.line_num + 1
        for cells in reader:
            where, start = f"{path}, line {start}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(head):
                raise UserError(f"{where} has {len(cells)} cells where the header has {len(head)} columns")
            yield (
                where,
                {n: _cell(n, c, where) for n, c in zip(head, cells, strict=True) if c or n == "answer"},
            )
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} is not a row of a table: {error}") from None
    finally:
        csv.field_size_limit(before)


def _cell(column: str, text: str, where: str) -> Any:
    if column in NESTED or (column in ("prompt", "completion") and re.match(r'\s*\[\s*\{\s*"', text)):
        return parsed(text, f"{where}, column '{column}'")
    if column == "difficulty":
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _table(file: Path, path: str | Path, kind: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    if not file.exists():
        raise UserError(f"task file '{path}' cannot be read: No such file or directory")
    try:
        table = pyarrow.parquet.read_table(file) if kind == ".parquet" else _arrow(file)
    except OSError as error:
        reason = error.strerror or str(error).split(".")[0]
        raise UserError(f"task file '{path}' cannot be read: {reason}") from None
    except pyarrow.ArrowException as error:
        name = "Parquet" if kind == ".parquet" else "an Arrow file"
        raise UserError(f"task file '{path}' is not {name}: {str(error).split('.')[0]}") from None
    for i, row in enumerate(table.to_pylist(), 1):
        where = f"{path}, row {i}"
        found = {name: value for name, value in row.items() if value is not None}
        if WRITTEN in found:  # by `etude data`, whose lists are JSON text
            found = {n: _cell(n, v, where) if isinstance(v, str) else v for n, v in found.items()}
        yield where, found


def _arrow(file: Path) -> Any:
    """An Arrow table as a stream, as `datasets` writes it, or as a file."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        try:
            return pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(source).read_all()


def kind_name(value: Any) -> str:
    """What a value of JSON is, in words."""
    return NAMES.get(type(value).__name__, "a number")
