"""A user's own Python, beside the run: rewards, checks and environments in a process forked from the run as it was when it
began, so that closures and what stands in a notebook need not be packed up.

One worker calls the functions one after another, as the run itself would, and keeps what they keep; so a call costs about
a fifth of a millisecond. One that runs out of time or ends its process loses the worker, its own episode and nothing
else: the next call meets a new worker, in which the environments of other episodes are played again up to where they were.
This is for code that is trusted in its intent (`tasks.sandbox` is for code that is not).

Where processes cannot be forked, and for what says `in_process = True`, is asynchronous, or can neither be packed nor was
there when the run began, the functions are called in the run's own process.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from etude.printable import say
from etude.tasks import _forked
from etude.tasks.check import CheckError, TooLate, verdict_of
from etude.tasks.forks import LATE, ForkServer, WorkerLost, can_fork
from etude.types import Check, Environment, Verdict

PATIENCE = 3  # calls in a row that may run out of time before a function is not called any more


def foreign(thing: Any) -> bool:
    """Whether this is a user's code that is called beside the run: it is neither asynchronous nor an environment that waits
    (`blocking`), for then many calls wait at once, nor asks to be called in the run's process (`in_process = True`)."""
    inner = _inner(thing)
    module = getattr(inner, "__module__", None) or type(inner).__module__
    own = module.partition(".")[0] == "etude" or getattr(inner, "in_process", False)
    called = getattr(type(inner), "__call__", None)  # noqa: B004 - that of an object
    waits = isinstance(inner, type) and getattr(inner, "blocking", False)
    acts = getattr(inner, "act", None) if isinstance(inner, type) else None
    return not own and not waits and not any(map(inspect.iscoroutinefunction, (inner, called, acts)))


def name_of(thing: Any) -> str:
    """What a user calls it."""
    inner = _inner(thing)
    return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__).replace("<locals>.", "")


def _inner(thing: Any) -> Any:
    """What stands in a wrapping of ours or of functools."""
    while True:
        if isinstance(thing, functools.partial):
            thing = thing.func
        elif type(thing).__module__.startswith("etude.") and hasattr(thing, "call"):
            thing = thing.call
        else:
            return thing


def judge(check: Check, answer: str) -> Verdict:
    """What a check says of `answer`, be it a verdict, a number or a bool."""
    return verdict_of(check(answer), name_of(check))


def late(where: str, what: str, seconds: float, said: str = "") -> TooLate:
    """The error of a function that ran out of time."""
    return TooLate(f"{what} took longer than its deadline ({seconds:g} s, run.check_seconds)", said, where)


def here(where: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in this process. What it raises, an exit too, becomes a CheckError."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise CheckError(
            f"{what} raised {type(error).__name__}: {error}", traceback.format_exc(), where
        ) from error


class UserCode:
    """Where a user's functions are called. `known`: those that are there already: they need not be picklable. Safe to use
    from many threads; what is called waits for its turn."""

    def __init__(self, known: Iterable[Any], seconds: float) -> None:
        self._known = [inner for thing in known for inner in (thing, getattr(thing, "call", None)) if inner]
        self._number = {id(thing): number for number, thing in enumerate(self._known)}
        self._seconds = seconds
        self._late: Counter[str] = Counter()  # calls in a row that ran out of time, by function
        self._environments = 0
        self._dropped: deque[int] = deque()  # environments that nobody holds any more
        self._lock = threading.Lock()
        self._server = ForkServer(self._known) if can_fork() else None
        self.generation = 0  # of the worker

    def call(self, where: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function` returns. Raises CheckError, with `what` it was, for whatever else comes of it."""
        try:
            request = self._pack("call", function, *arguments)
        except Exception:
            request = None
        if request is None or self._server is None:
            return here(where, what, function, *arguments)
        return self._ask(where, what, request)

    def environment(self, make: Callable[..., Environment], seed: int) -> Environment:
        """A new environment in the worker. Raises CheckError."""
        try:
            self._pack(make)
        except Exception:
            return make(seed)
        if self._server is None:
            return make(seed)
        self._environments += 1
        return _Distant(self, self._environments, make, seed)

    def close(self) -> None:
        """Ends the processes. May be called twice."""
        with self._lock:
            if self._server is not None:
                self._server.close()

    def _pack(self, *request: Any) -> bytes:
        file = BytesIO()
        _Pickler(file, self._number).dump(request)
        return file.getvalue()

    def _ask(self, where: str, what: str, request: bytes) -> Any:
        assert self._server is not None
        if self._late[what] >= PATIENCE:
            raise CheckError(
                f"{what} ran out of time {PATIENCE} times in a row ({self._seconds:g} s each) and is not called any more; "
                "mend it, or raise run.check_seconds",
                where=where,
            )
        with self._lock:
            try:
                while self._dropped:
                    self._server.ask(self._pack("drop", self._dropped.pop()), self._seconds)
                kind, value, said = self._server.ask(request, self._seconds)
            except WorkerLost as lost:
                self.generation += 1
                self._late[what] += lost.cause == LATE
                if lost.cause == LATE:
                    raise late(where, what, self._seconds, lost.said) from None
                raise CheckError(f"{what} {lost.cause.format(lost.code)}", lost.said, where) from None
        self._late.pop(what, None)
        if said:
            say(said, err=True)
        if kind == "error":
            raise CheckError(f"{what} raised {value[0]}", value[1], where)
        return _forked.decode(value)


class _Distant:
    """An environment in the worker. Where the worker was lost to another episode, it is made and played again."""

    blocking = False  # calls are answered in turn, so a thread for each would gain nothing

    def __init__(self, code: UserCode, number: int, make: Callable[..., Environment], seed: int) -> None:
        self._code, self._number, self._make, self._seed = code, number, make, seed
        self._what = f"the environment '{name_of(make)}'"
        self._played: list[tuple[str, tuple[Any, ...]]] = []
        self._generation = -1
        self._begin()

    def observe(self) -> str:
        return self._do("observe")

    def act(self, text: str) -> tuple[str, Verdict | None]:
        observation, verdict = self._do("act", text)
        return observation, verdict

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"an environment has no attribute '{name}' here")
        self._up_to_date()
        if not self._ask("has", self._number, name):
            raise AttributeError(f"{self._what} has no attribute '{name}'")
        return functools.partial(self._do, name)

    def _do(self, name: str, *arguments: Any) -> Any:
        self._up_to_date()
        found = self._ask("do", self._number, name, *arguments)
        self._played.append((name, arguments))
        return found

    def _up_to_date(self) -> None:
        """Made and played again where the worker that held it was lost."""
        if self._generation != self._code.generation:
            self._begin()

    def _begin(self) -> None:
        self._generation = self._code.generation
        self._ask("make", self._number, self._make, self._seed)
        for name, arguments in self._played:
            self._ask("do", self._number, name, *arguments)

    def _ask(self, *request: Any) -> Any:
        return self._code._ask("environment", self._what, self._code._pack(*request))

    def __del__(self) -> None:
        self._code._dropped.append(self._number)


class _Pickler(pickle.Pickler):
    """Names what was there when the run began by its number."""

    def __init__(self, file: BytesIO, numbers: dict[int, int]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._numbers = numbers

    def persistent_id(self, thing: Any) -> int | None:
        return self._numbers.get(id(thing))
