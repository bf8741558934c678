"""Languages in which a model may write programs that are run: arithmetic over one input, which is read and computed here, and
Python, which runs in the sandbox. A program maps an input to an output, all three as text."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from etude.tasks import outcomes, sandbox
from etude.tasks.arithmetic import evaluate

LARGEST = 10**9  # of a value in the arithmetic
LONGEST = 2000  # characters of a program, an input or an output


class Language(Protocol):
    """What programs are written in. Picklable, compared by value."""

    name: ClassVar[str]
    identity: ClassVar[str]  # the program that gives its input back
    runs_programs: ClassVar[bool]  # whether the sandbox is needed

    def run(self, program: str, given: str) -> str | None:
        """What the program makes of an input; None where it does not run, or does not give the same twice."""
        ...

    def size(self, program: str) -> int:
        """How much a program does: the operations in it."""
        ...

    def draw(self, rng: np.random.Generator, size: int) -> tuple[str, list[str]]:
        """A program of this size, and ten different inputs on which it runs."""
        ...


@dataclass(frozen=True)
class Arithmetic:
    """One expression in X of whole numbers, + - * and brackets: "X*2+3". Nothing is executed: it is read by a parser that
    knows nothing else, so that no program can do more than compute a number, or take longer than that."""

    name: ClassVar[str] = "arithmetic"
    identity: ClassVar[str] = "X"
    runs_programs: ClassVar[bool] = False

    def run(self, program: str, given: str) -> str | None:
        """A whole number in text; None for anything that is not such an expression, and beyond `LARGEST`."""
        if not re.fullmatch(r"[-+]?\d{1,9}", given.strip()) or not re.fullmatch(r"[X\d\s()+*-]+", program):
            return None
        found = evaluate(program.replace("X", f"({int(given)})"))
        if found is None or found.denominator != 1 or abs(found) > LARGEST:
            return None
        return str(int(found))

    def size(self, program: str) -> int:
        return len(re.findall(r"[-+*]", program))

    def draw(self, rng: np.random.Generator, size: int) -> tuple[str, list[str]]:
        program = "X"
        for _ in range(size):
            sign, number = "+-*"[int(rng.integers(3))], int(rng.integers(2, 10))
            program = (
                f"({program}){sign}{number}"
                if sign == "*" and len(program) > 1
                else f"{program}{sign}{number}"
            )
        return program, [str(int(i)) for i in rng.permutation(20)[:10]]


@dataclass(frozen=True)
class Python:
    """A function f, in a process of the sandbox for every program. An input is what stands between the brackets of a call, an
    output its `repr`; values without a literal, which cannot be compared, count as not running."""

    name: ClassVar[str] = "python"
    identity: ClassVar[str] = "def f(x):\n    return x"
    runs_programs: ClassVar[bool] = True

    def run(self, program: str, given: str) -> str | None:
        arguments = _arguments(given)
        if arguments is None or max(len(program), len(given)) > LONGEST:
            return None
        found = [self._once(program, arguments) for _ in range(2)]
        return found[0] if found[0] == found[1] else None

    def _once(self, program: str, arguments: tuple[Any, ...]) -> str | None:
        with sandbox.shared().program() as process:
            if process.load(program) is not None:
                return None
            match process.call("f", arguments):
                case outcomes.Returned(value) if not isinstance(value, outcomes.Other):
                    text = repr(value)
                    return text if len(text) <= LONGEST else None
        return None

    def size(self, program: str) -> int:
        try:
            tree = ast.parse(program)
        except (SyntaxError, ValueError, RecursionError):
            return 0
        counted = (
            ast.BinOp,
            ast.Call,
            ast.Compare,
            ast.BoolOp,
            ast.Subscript,
            ast.For,
            ast.While,
            ast.If,
            ast.comprehension,
        )
        return sum(isinstance(node, counted) for node in ast.walk(tree))

    def draw(self, rng: np.random.Generator, size: int) -> tuple[str, list[str]]:
        steps = (
            "x = [v + {k} for v in x]",
            "x = [v * {k} for v in x]",
            "x = x[::-1]",
            "x = sorted(x)",
            "x = x[{k}:] + x[:{k}]",
        )
        chosen = [
            steps[int(i)].format(k=int(rng.integers(1, 5))) for i in rng.integers(len(steps), size=size)
        ]
        body = "".join(f"    {step}\n" for step in chosen)
        inputs = [str([int(v) for v in rng.integers(0, 10, int(rng.integers(2, 6)))]) for _ in range(30)]
        return f"def f(x):\n{body}    return x", list(dict.fromkeys(inputs))[:10]


def _arguments(given: str) -> tuple[Any, ...] | None:
    try:
        return tuple(ast.literal_eval(f"({given.strip()},)"))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


def same(a: str | None, b: str | None) -> bool:
    """Whether two values in text are the same literal, or the same text."""
    if a is None or b is None:
        return False
    try:
        x, y = ast.literal_eval(a.strip()), ast.literal_eval(b.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return a.strip() == b.strip()
    return bool(type(x) is type(y) and x == y)


LANGUAGES: Mapping[str, Language] = {"arithmetic": Arithmetic(), "python": Python()}
