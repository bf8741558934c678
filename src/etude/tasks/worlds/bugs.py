"""A repository of small Python files, one or two of which have a bug: read, test, edit, submit. Programs run in the sandbox."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from etude.tasks import outcomes, sandbox
from etude.tasks.kind import Kind, Made, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.tasks.worlds.bug_catalogue import BUGS, Bug
from etude.tasks.worlds.commands import forms_of
from etude.tasks.worlds.play import COMMON, Rules, World, limited

_EDIT = re.compile(r"edit (\S+) (?:line )?(\d+) ?: ?(.*)", re.IGNORECASE)
_MAIN = "report"
# What a player who does not understand a line might change in it.
_SWAPS = (
    (" > ", " >= "),
    (" >= ", " > "),
    (" > ", " < "),
    (" < ", " > "),
    ("min(", "max("),
    ("max(", "min("),
    (" + 1", ""),
    (" - 1", ""),
    (", n)", ", n + 1)"),
    ("[:-1]", "[::-1]"),
    (" // ", " % "),
)
_LOAD = """
import sys, types
for _name, _text in {files!r}:
    _module = sys.modules[_name] = types.ModuleType(_name)
    exec(compile(_text, _name + ".py", "exec"), vars(_module))
def run(name, function, *arguments):
    return getattr(sys.modules[name], function)(*arguments)
"""

Call = tuple[str, str, tuple[Any, ...], Any]  # module, function, arguments, result


@dataclass(frozen=True)
class Repository:
    """Makes a fresh attempt. `files`: (module, text), imports first; `repairs`: (module, number of the line from 1, the right
    line); `calls`: the first `shown` are the tests, all of them judge what is submitted."""

    files: tuple[tuple[str, str], ...]
    repairs: tuple[tuple[str, int, str], ...]
    calls: tuple[Call, ...]
    shown: int
    rules: Rules
    runs_programs: ClassVar[bool] = True

    def __call__(self, seed: int = 0) -> RepositoryWorld:
        """A new attempt; nothing in it is left to chance."""
        return RepositoryWorld(self)


class Commands:
    """What can be done with a repository."""

    @staticmethod
    def read(file: str) -> str:
        """The lines of a file, with their numbers."""
        return f"read {file}"

    @staticmethod
    def test() -> str:
        """Run the tests: the first that fails."""
        return "test"

    @staticmethod
    def edit(file: str, line: int, text: str) -> str:
        """Put another text in the place of a line of a file; its indentation stays."""
        return f"edit {file} {line}: {text}"

    @staticmethod
    def submit() -> str:
        """Submit the files as they are. You can submit once."""
        return "submit"


class RepositoryWorld(World):
    """One attempt. Commands: read FILE, test, edit FILE LINE: NEW LINE, submit. Submitting ends it."""

    failed = "Not all tests pass."
    code = True
    forms = forms_of(Commands)
    blocking = True  # a test waits for a process

    def __init__(self, plan: Repository) -> None:
        super().__init__(plan)
        self._repository = plan
        self.files = {name: text.split("\n") for name, text in plan.files}
        self.read: list[str] = []
        self.submitted = False
        self._passed = False

    def look(self) -> str:
        return "" if self.taken else f"Files: {', '.join(f'{name}.py' for name in self.files)}."

    def actions(self) -> list[str]:
        found = [f"read {name}.py" for name in self.files] + ["test", "submit"]
        for name in self.read:
            for number, line in enumerate(self.files[name], 1):
                changed = {line.replace(a, b, 1).strip() for a, b in _SWAPS if a in line}
                found += [f"edit {name}.py {number}: {new}" for new in sorted(changed)]
        return found

    def offered(self) -> list[str]:
        return ["read FILE", "test", "edit FILE LINE: NEW LINE", "submit"]

    def do(self, command: str) -> str | None:
        verb, _, rest = command.partition(" ")
        verb = verb.lower()
        if verb == "test" and not rest:
            return self._run(self._repository.calls[: self._repository.shown]) or "All tests pass."
        if verb == "submit" and not rest:
            self.submitted = True
            fault = self._run(self._repository.calls)
            self._passed = not fault
            return fault
        if verb == "read" and self._file(rest):
            self.read += [self._file(rest)] if self._file(rest) not in self.read else []
            return "\n".join(f"{i}: {line}" for i, line in enumerate(self.files[self._file(rest)], 1))
        if edit := _EDIT.fullmatch(command):
            return self._edit(self._file(edit[1]), int(edit[2]), edit[3])
        return "There is no such file." if verb == "read" else None

    def milestones(self) -> Sequence[tuple[str, bool]]:
        wrong = dict.fromkeys(name for name, _, _ in self._repository.repairs)
        return [
            *((f"{name}.py read", name in self.read or self._passed) for name in wrong),
            ("all tests pass", self._passed),
        ]

    def lost(self) -> bool:
        return self.submitted

    def expert(self) -> str:
        several = len(self.files) > 1
        if several and "test" not in self.commands:
            return "test"
        todo = [r for r in self._repository.repairs if self.files[r[0]][r[1] - 1].strip() != r[2].strip()]
        if not todo:
            return "submit"
        name, number, line = todo[0]
        unread = [n for n in (_MAIN, name) if n in self.files and n not in self.read]
        return f"read {unread[0]}.py" if unread else f"edit {name}.py {number}: {line.strip()}"

    def solve(self) -> list[str]:
        """The expert's commands from the beginning, found without running a program."""
        again, replies = RepositoryWorld(self._repository), [""]
        while replies[-1] != "submit":
            replies.append(again.expert())
            again.commands.append(replies[-1])
            if replies[-1] not in ("test", "submit"):
                again.do(replies[-1])
        return replies[1:]

    def _file(self, name: str) -> str:
        name = name.strip().removesuffix(".py")
        return name if name in self.files else ""

    def _edit(self, name: str, number: int, line: str) -> str:
        if not name or not 1 <= number <= len(self.files[name]):
            return "There is no such line." if name else "There is no such file."
        old = self.files[name][number - 1]
        self.files[name][number - 1] = " " * (len(old) - len(old.lstrip())) + line
        return f"{number}: {self.files[name][number - 1]}"

    def _run(self, calls: Sequence[Call]) -> str:
        """A sentence about the first test that fails, or ""."""
        files = [(name, "\n".join(lines)) for name, lines in self.files.items()]
        with sandbox.shared().program() as program:
            fault = program.load(_LOAD.format(files=files))
            if fault is not None:
                return f"The files cannot be loaded: {_why(fault)}."
            for module, function, arguments, result in calls:
                said = f"{module}.{function}({', '.join(map(repr, arguments))})"
                match program.call("run", [module, function, *arguments]):
                    case outcomes.Returned(found) if type(found) is type(result) and found == result:
                        pass
                    case outcomes.Returned(found):
                        return f"{said} returned {str(found)[:80]}; it should return {result!r}."
                    case stopped:
                        return f"{said} {_why(stopped)}; it should return {result!r}."
        return ""


def _why(stopped: Any) -> str:
    if isinstance(stopped, outcomes.NotPython):
        return f"line {stopped.line} cannot be read, {stopped.message}"
    return str(stopped)


def _make(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("bugs", seed))
    chosen = draw.sample(BUGS, max(s["files"] - s["callers"], 1))
    files, repairs, calls, inner = [], [], [], []
    for i, bug in enumerate(chosen):
        module, function, k = *draw.choice(bug.names), draw.randint(2, 9)
        lines = [line.format(f=function, k=k) for line in bug.lines]
        right = list(lines)
        if i < s["bugs"]:
            number = next(n for n, line in enumerate(bug.lines) if line.strip() == bug.right)
            indent = len(lines[number]) - len(lines[number].lstrip())
            lines[number] = " " * indent + bug.wrong.format(f=function, k=k)
            repairs.append((module, number + 1, right[number].strip()))
        files.append((module, "\n".join(lines)))
        cases = _cases(bug, right, lines, function, draw)
        calls += [(module, function, a, r) for a, r in cases]
        inner.append((module, function, cases))
    if s["callers"]:  # the tests call these functions through one that calls them all
        imports = [f"from {module} import {function}" for module, function, _ in inner]
        body = ", ".join(f"{function}(*given[{i}])" for i, (_, function, _) in enumerate(inner))
        files.append((_MAIN, "\n".join([*imports, "", "def report(given):", f"    return [{body}]"])))
        rows = zip(*(cases for _, _, cases in inner), strict=True)
        calls = [(_MAIN, "report", ([list(a) for a, _ in row],), [r for _, r in row]) for row in rows]
    order = [f for f in files if f[0] != _MAIN]
    draw.shuffle(order)
    draw.shuffle(calls)
    listed = (*order, *(f for f in files if f[0] == _MAIN))
    # The tests that are shown hold one that each bug fails, as the first.
    failing = [c for c in calls if _fails(listed, c)]
    calls = [*failing[:2], *(c for c in calls if c not in failing[:2])]
    repository = limited(
        Repository(listed, tuple(repairs), tuple(calls), max(2, len(calls) // 2), Rules.of(s)), s
    )
    how = repository.rules.ask("one command: read FILE, test, edit FILE LINE: NEW LINE, submit")
    prompt = (
        f"A Python repository has {len(repairs)} wrong {'line' if len(repairs) == 1 else 'lines'}. Repair it. {how} "
        "You can submit once."
    )
    return Made(prompt, repository, [listed, repr(calls), repository.rules.turns])


def _fails(files: Sequence[tuple[str, str]], call: Call) -> bool:
    """Whether these files, all of them this module's own, fail a test."""
    modules: dict[str, dict[str, Any]] = {}
    for name, text in files:
        body = re.sub(r"^from \w+ import \w+$", "", text, flags=re.MULTILINE)
        place = {k: v for m in modules.values() for k, v in m.items() if k != "__builtins__"}
        exec(body, place)
        modules[name] = place
    module, function, arguments, result = call
    try:
        return bool(modules[module][function](*arguments) != result)
    except Exception:
        return True


def _cases(
    bug: Bug, right: Sequence[str], wrong: Sequence[str], function: str, draw: random.Random
) -> list[tuple[tuple[Any, ...], Any]]:
    """Six sets of arguments with what the right function returns; where the bug is in, one of them at least shows it."""
    good, bad = ({}, {})  # type: tuple[dict[str, Any], dict[str, Any]]
    exec("\n".join(right), good)
    exec("\n".join(wrong), bad)
    while True:
        found = [bug.arguments(draw) for _ in range(6)]
        cases = [(a, good[function](*a)) for a in found]
        if list(right) == list(wrong) or any(_differs(bad[function], a, r) for a, r in cases):
            return cases


def _differs(function: Any, arguments: tuple[Any, ...], result: Any) -> bool:
    try:
        return bool(function(*arguments) != result)
    except Exception:
        return True


KIND = Kind(
    "A repository of small Python files with bugs: read, test, edit, submit (programs run in the sandbox)",
    (
        Param("files", int, 1, "1 to 10"),
        Param("bugs", int, 1, "files with a wrong line, 1 to 3"),
        Param("callers", int, 0, "1: the tests call one file, which calls the others"),
        *COMMON,
    ),
    (
        {"files": 1, "bugs": 1, "callers": 0, "longest": 6},
        {"files": 3, "bugs": 1, "callers": 0, "longest": 10},
        {"files": 6, "bugs": 2, "callers": 1, "longest": 16},
    ),
    lambda s: (
        out_of_range(s, files=(1, 10), bugs=(1, 3), callers=(0, 1), turns=(0, 1000))
        or (
            ""
            if s["bugs"] <= s["files"] - s["callers"]
            else f"bugs={s['bugs']} is out of range; there must be as many files besides the caller"
        )
    ),
    _make,
)
