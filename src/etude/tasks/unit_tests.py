"""Programs judged by unit tests, as HumanEval and MBPP bring them: `assert f(3) == 6`.

The tests know the results and are the user's; the program is the model's. They run in two processes: the tests in one that is
isolated like any check of a user, where the function's name stands for a call into the sandbox that holds the program
(`etude.tasks.sandbox`). Only arguments go in and only results come out, so a program can neither read nor change a test.
"""

from __future__ import annotations

import ast
import contextlib
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from etude.errors import UserError, nearest
from etude.tasks import outcomes, sandbox
from etude.tasks.check import FEEDBACK, UNARY
from etude.tasks.kind import feedback_text
from etude.types import Verdict

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
FILE = "tests"  # the name under which a traceback shows the tests


class _Stopped(Exception):
    """The program gave no result."""


@dataclass(frozen=True)
class UnitTests:
    """The answer (its last code block, or all of it) defines `name`, and `tests` pass with it.

    `tests`: Python source; where it defines `check`, that is called with the function. `before`: the code that the
    prompt gave, put before an answer that goes on from it or that leaves out its imports and helpers. A test that
    fails, and a program that raises, ends or is too slow, is a wrong answer; tests that cannot be read raise UserError."""

    name: str
    tests: str
    before: str = ""
    gold: str = ""
    feedback: str = "unary"
    strict: bool = False
    isolated: ClassVar[bool] = True
    runs_programs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.feedback not in FEEDBACK:
            raise UserError(f"unit tests: no feedback '{self.feedback}'{nearest(self.feedback, FEEDBACK)}")
        try:
            tree = ast.parse(self.tests)
        except SyntaxError as error:
            raise UserError(f"unit tests: line {error.lineno} cannot be read: {error.msg}") from None
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            raise UserError("unit tests: there is no assert in them, so that every answer would pass")

    def __call__(self, answer: str) -> Verdict:
        """Judges the program in `answer`."""
        block = self.block(answer)
        fault = self.fault(self.program(answer if block is None else block))
        if not fault:
            return Verdict(1.0, True)
        full = f"{fault} A program that works:\n{self.gold}" if self.gold else fault
        return Verdict(0.0, False, feedback_text(self.feedback, UNARY, fault, full))

    def block(self, answer: str) -> str | None:
        """The last code block of an answer; None where there is none."""
        blocks = _BLOCK.findall(answer)
        return str(blocks[-1]) if blocks else None

    def program(self, code: str) -> str:
        """The whole program: what the prompt gave, and the answer, which may begin anew or go on."""
        if not re.search(rf"^\s*(?:async\s+)?def\s+{self.name}\b", code, re.MULTILINE):
            return self.before + code
        start = re.search(rf"^def\s+{self.name}\b", self.before, re.MULTILINE)
        return (self.before[: start.start()] if start else self.before) + code

    def fault(self, code: str) -> str:
        """A sentence about the first thing that is wrong, or ""."""
        process = sandbox.Process(sandbox.Limits())
        try:
            process.prepare()
            match process.load(code):
                case None:
                    pass
                case outcomes.NotPython(line, message):
                    return f"Line {line} of the program cannot be read: {message}."
                case stopped:
                    return f"The program cannot be loaded: {stopped}."
            return self._tested(process)
        finally:
            process.end()

    def _tested(self, process: sandbox.Process) -> str:
        def called(*arguments: Any, **keywords: Any) -> Any:
            match process.call(self.name, arguments, keywords):
                case outcomes.Returned(found):
                    return found
                case outcomes.Missing():
                    raise _Stopped(f"The program defines no function {self.name}.")
                case stopped:
                    raise _Stopped(f"{self.name}({_shown(arguments)}) {stopped}.")

        place: dict[str, Any] = {"__name__": FILE}
        with contextlib.suppress(
            Exception
        ):  # helpers of the prompt's that tests use; code that stops in the middle
            exec(compile(self.before, "before", "exec"), place)
        place |= {self.name: called, "candidate": called}
        try:
            exec(compile(self.tests, FILE, "exec"), place)
            if "check" in place:
                place["check"](called)
        except _Stopped as stopped:
            return str(stopped)
        except Exception as error:
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == FILE]
            line = self.tests.splitlines()[lines[-1] - 1].strip() if lines and lines[-1] else "a test"
            said = "" if isinstance(error, AssertionError) else f" ({type(error).__name__}: {error})"
            return f"This does not hold: {line[:200]}{said}"
        return ""


def _shown(arguments: tuple[Any, ...]) -> str:
    text = ", ".join(map(repr, arguments))
    return text if len(text) <= 120 else text[:117] + "..."


# ---- rows of other tools' files ------------------------------------------------------------------------------


def with_tests(row: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """A row of HumanEval (prompt, test, entry_point, canonical_solution) or MBPP (text or prompt, code, test_list) with the
    fields `prompt`, `answer`, `function`, `tests`, `before`; None for any other row."""
    if isinstance(row.get("test"), str) and isinstance(row.get("entry_point"), str):
        stub = str(row.get("prompt", ""))
        solution = stub + str(row.get("canonical_solution", ""))
        used = ("prompt", "test", "entry_point", "canonical_solution")
        return {
            **{name: value for name, value in row.items() if name not in used},
            "prompt": f"Complete this Python function.\n\n```python\n{stub.strip()}\n```",
            "answer": solution,
            "reference": f"```python\n{solution.strip()}\n```",
            "check": "tests",
            "function": row["entry_point"],
            "tests": row["test"],
            "before": stub,
        }
    tests = row.get("test_list")
    if isinstance(tests, list) and tests and isinstance(row.get("code"), str):
        setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or [])
        name = _tested_name(tests[0], row["code"], where)
        asked = row.get("text", row.get("prompt", ""))
        taken = ("text", "prompt", "code", "test_list", "test_setup_code", "test_imports")
        return {
            **{n: value for n, value in row.items() if n not in taken},
            "prompt": f"{asked}\n\nThe function is called {name}; for example, this must hold:\n{tests[0].strip()}",
            "answer": row["code"],
            "reference": f"```python\n{row['code'].strip()}\n```",
            "check": "tests",
            "function": name,
            "tests": "\n".join([setup, *tests]),
            "before": "",
        }
    return None


def _tested_name(test: str, code: str, where: str) -> str:
    """The function that a test calls: the first that the code defines."""
    try:
        defined = {n.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef)}
        called = [
            n.func.id
            for n in ast.walk(ast.parse(test.strip()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
    except SyntaxError as error:
        raise UserError(f"{where}: its code or tests are not Python: {error.msg}") from None
    name = next((n for n in called if n in defined), None)
    if name is None:
        raise UserError(f"{where}: its first test calls no function that its code defines")
    return name
