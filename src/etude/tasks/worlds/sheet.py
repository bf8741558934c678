"""Tables in SQLite and a question about them: look at them with SQL, then answer."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.tasks.extract import value
from etude.tasks.kind import Kind, Made, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import forms_of
from etude.tasks.worlds.play import COMMON, Rules, World, limited, words_of

SHOWN = 8  # rows of a result that are shown
WIDEST = 60  # characters of a value
STEPS = 2_000_000  # of SQLite's machine, for one query: about a fifth of a second
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}

ITEMS = ("pen", "lamp", "chair", "desk", "clock", "vase", "mirror")
CITIES = ("Oslo", "Lima", "Cairo", "Quito", "Delhi")
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ina", "Jon")

Table = tuple[str, tuple[str, ...], tuple[tuple[Any, ...], ...]]  # name, columns, rows
Question = Callable[[random.Random, dict[str, list[tuple[Any, ...]]]], tuple[str, str]]


@dataclass(frozen=True)
class Sheet:
    """Makes a fresh attempt. `query`: SQL that gives the `answer`."""

    tables: tuple[Table, ...]
    question: str
    query: str
    answer: Any
    rules: Rules

    def __call__(self, seed: int = 0) -> SheetWorld:
        """A new attempt; nothing in it is left to chance."""
        return SheetWorld(self)


class Commands:
    """What can be done with the tables."""

    @staticmethod
    def answer(value: str) -> str:
        """Answer the question. You can answer once."""
        return f"answer {value}"

    @staticmethod
    def query(sql: str) -> str:
        """The result of an SQL query (SELECT ...)."""
        return sql


class SheetWorld(World):
    """One attempt. Commands: SELECT ..., answer VALUE. Answering ends it. The database is this attempt's own, in memory, and
    can only be read."""

    failed = "That is not the right answer."
    code = True
    forms = forms_of(Commands)

    def __init__(self, plan: Sheet) -> None:
        super().__init__(plan)
        self._sheet = plan
        self._database: sqlite3.Connection | None = None
        self.given: str | None = None
        self.seen: list[str] = []  # values that results have shown
        self.worked = False  # whether a query was carried out

    def look(self) -> str:
        return ""

    def actions(self) -> list[str]:
        """Queries that count, add up or show a column, and answers that results have shown."""
        found = []
        for name, columns, rows in self._sheet.tables:
            found += [f"SELECT * FROM {name} LIMIT {SHOWN}", f"SELECT COUNT(*) FROM {name}"]
            for i, column in enumerate(columns):
                if isinstance(rows[0][i], int):
                    found += [f"SELECT {f}({column}) FROM {name}" for f in ("SUM", "MAX", "MIN")]
                else:
                    values = dict.fromkeys(
                        v for v in (row[i] for row in rows) if v.lower() in words_of(self._sheet.question)
                    )
                    found += [f"SELECT COUNT(*) FROM {name} WHERE {column} = '{v}'" for v in values]
        return [*found, *(f"answer {v}" for v in self.seen)]

    def offered(self) -> list[str]:
        return ["SELECT ...", "answer VALUE"]

    def do(self, command: str) -> str | None:
        command = re.sub(r"^sql:?\s+", "", command, flags=re.IGNORECASE)
        verb, _, rest = command.partition(" ")
        if verb.lower() == "answer" and rest:
            self.given = rest
            return ""
        if verb.lower() not in ("select", "with"):
            return None
        self._database = self._database or database(self._sheet.tables)
        try:
            columns, rows = query(self._database, command.rstrip(";"))
        except (sqlite3.Error, sqlite3.Warning) as error:
            return f"Error: {str(error)[:200]}."
        self.worked = True
        lines = [" | ".join(columns), *(" | ".join(map(_said, row)) for row in rows[:SHOWN])]
        for v in (_said(v) for row in rows[:SHOWN] for v in row):
            self.seen += [v] if v not in self.seen else []
        return "\n".join([*lines, *(["..."] if len(rows) > SHOWN else [])])

    def milestones(self) -> Sequence[tuple[str, bool]]:
        right = self.given is not None and _same(self.given, self._sheet.answer)
        return [("a query that works", self.worked or right), ("the right answer", right)]

    def lost(self) -> bool:
        return self.given is not None

    def expert(self) -> str:
        answer = _said(self._sheet.answer)
        return f"answer {answer}" if answer in self.seen else self._sheet.query

    def solve(self) -> list[str]:
        """The expert's two commands."""
        return [self._sheet.query, f"answer {_said(self._sheet.answer)}"]


def database(tables: Sequence[Table]) -> sqlite3.Connection:
    """A database in memory that can only be read, in which no query runs or grows without end."""
    made = sqlite3.connect(":memory:", check_same_thread=False)
    made.execute("PRAGMA temp_store = MEMORY")
    for name, columns, rows in tables:
        made.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
        made.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows)
    made.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
    made.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 4_000)
    made.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
    return made


def query(made: sqlite3.Connection, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of columns and at most `SHOWN` + 1 rows. Raises sqlite3.Error, for a query without end too."""
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1000
        return steps > STEPS

    made.set_progress_handler(count, 1000)
    cursor = made.execute(text)
    return [c[0] for c in cursor.description or ()], cursor.fetchmany(SHOWN + 1)


def _said(v: Any) -> str:
    text = f"{v:.6g}" if isinstance(v, float) else str(v)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _same(given: str, gold: Any) -> bool:
    number = value(given) if isinstance(gold, (int, float)) else None
    return number == gold if number is not None else words_of(given) == words_of(str(gold))


# ---- questions -----------------------------------------------------------------------------------------------------------


def _one_table(draw: random.Random, rows: dict[str, list[tuple[Any, ...]]]) -> tuple[str, str]:
    _, item, number, price = draw.choice(rows["orders"])
    return draw.choice(
        [
            (
                f"How many orders are for a {item}?",
                f"SELECT COUNT(*) FROM orders WHERE item = '{item}'",
            ),
            (
                f"How many pieces of the item {item} were ordered in all?",
                f"SELECT SUM(number) FROM orders WHERE item = '{item}'",
            ),
            (
                f"How many orders have a price of more than {price - 1}?",
                f"SELECT COUNT(*) FROM orders WHERE price > {price - 1}",
            ),
            (
                f"What is the highest price among the orders of {number} pieces?",
                f"SELECT MAX(price) FROM orders WHERE number = {number}",
            ),
        ]
    )


def _grouped(draw: random.Random, rows: dict[str, list[tuple[Any, ...]]]) -> tuple[str, str]:
    _, item, _, _ = draw.choice(rows["orders"])
    return draw.choice(
        [
            (
                "Which item was ordered in the most pieces in all?",
                "SELECT item FROM orders GROUP BY item ORDER BY SUM(number) DESC, item LIMIT 1",
            ),
            (
                f"What do all orders for a {item} cost together, number times price?",
                f"SELECT SUM(number * price) FROM orders WHERE item = '{item}'",
            ),
            (
                "Of how many different items is there an order?",
                "SELECT COUNT(DISTINCT item) FROM orders",
            ),
            (
                "How many items have at least 2 orders?",
                "SELECT COUNT(*) FROM (SELECT item FROM orders GROUP BY item HAVING COUNT(*) >= 2)",
            ),
        ]
    )


def _joined(draw: random.Random, rows: dict[str, list[tuple[Any, ...]]]) -> tuple[str, str]:
    _, item, _, _ = draw.choice(rows["orders"])
    _, city = draw.choice(rows["customers"])
    both = "orders JOIN customers ON orders.customer = customers.name"
    return draw.choice(
        [
            (
                f"How many pieces did customers in {city} order in all?",
                f"SELECT COALESCE(SUM(number), 0) FROM {both} WHERE city = '{city}'",
            ),
            (
                f"How many different customers in {city} ordered something?",
                f"SELECT COUNT(DISTINCT customer) FROM {both} WHERE city = '{city}'",
            ),
            (
                f"From how many different cities is there an order for a {item}?",
                f"SELECT COUNT(DISTINCT city) FROM {both} WHERE item = '{item}'",
            ),
            (
                "Customers of which city spent the most, number times price?",
                f"SELECT city FROM {both} GROUP BY city ORDER BY SUM(number * price) DESC, city LIMIT 1",
            ),
        ]
    )


QUESTIONS: dict[int, Question] = {1: _one_table, 2: _grouped, 3: _joined}


def _make(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("sheet", seed))
    names = draw.sample(NAMES, 6)
    customers = [(n, draw.choice(CITIES)) for n in names]
    items = draw.sample(ITEMS, 4)
    orders = [
        (draw.choice(names), draw.choice(items), draw.randint(1, 6), draw.randint(2, 60))
        for _ in range(s["rows"])
    ]
    question, sql = QUESTIONS[s["question"]](draw, {"orders": orders, "customers": customers})
    tables: list[Table] = [("orders", ("customer", "item", "number", "price"), tuple(orders))]
    if s["question"] == 3:
        tables.append(("customers", ("name", "city"), tuple(customers)))
    answer = query(database(tables), sql)[1][0][0]
    sheet = limited(Sheet(tuple(tables), question, sql, answer, Rules.of(s)), s)
    told = "; ".join(f"{name}({', '.join(columns)})" for name, columns, _ in tables)
    how = sheet.rules.ask("one line: an SQL query (SELECT ...), or answer VALUE")
    prompt = f"Tables of an SQLite database: {told}. {question} {how} You can answer once."
    return Made(prompt, sheet, [tables, question, sheet.rules.turns])


KIND = Kind(
    "Tables in SQLite and a question about them, answered by SQL",
    (
        Param("rows", int, 12, "orders in the table, 1 to 1000"),
        Param("question", int, 1, "1: of one table; 2: grouped; 3: of two tables"),
        *COMMON,
    ),
    (
        {"rows": 12, "question": 1, "longest": 6},
        {"rows": 30, "question": 2, "longest": 8},
        {"rows": 60, "question": 3, "longest": 10},
    ),
    lambda s: out_of_range(s, rows=(1, 1000), question=(1, 3), turns=(0, 1000)),
    _make,
)
