"""The tools of a run, and the session of them that every episode has: calls are read, carried out within budgets and answered.

Nothing that a call does ends a run: what cannot be read, what fails and what is over budget is answered by a message.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol

from etude.errors import UserError
from etude.text.tool_calls import ERROR, TOOL, Call, Offer, Unreadable
from etude.tools.tool import LONGEST, Tool, ToolError, shown, tool
from etude.types import Message, Task

THREADS = 16  # slow calls under way at once; more wait
NOTED = 500  # characters of a result in an episode's notes

CALLS = "tools"
"""Note: what was called, in order: {"name", "arguments", "result", "failed", "price"}; [] where nothing was."""


class ToolSource(Protocol):
    """Where tools come from. `opened` gives those of one episode, whose state begins anew; `close` ends what it holds."""

    name: str

    def opened(self, task: Task, seed: int) -> Sequence[Tool]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Budgets:
    """What one episode may spend. `turns`: replies of one answer, those that call included; `calls`, `seconds` and `money`: of
    all its calls."""

    turns: int = 8
    calls: int = 16
    seconds: float = 60.0
    money: float = inf
    longest: int = LONGEST  # characters of a result


class Kit:
    """The tools of a run. `syntax`: how they are called, as `Renderer.offer` takes it. `docs`: descriptions by name, in the place
    of the tools' own."""

    def __init__(
        self,
        sources: Sequence[ToolSource] = (),
        budgets: Budgets | None = None,
        syntax: str = "auto",
        docs: Mapping[str, str] | None = None,
    ) -> None:
        self.sources, self.budgets, self.syntax = list(sources), budgets or Budgets(), syntax
        self.docs = dict(docs or {})
        self._threads: ThreadPoolExecutor | None = None

    @property
    def threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="etude-tool")
        return self._threads

    def session(self, task: Task, seed: int, environment: Any = None) -> ToolSession | None:
        """The tools of an episode, an environment's own among them; None where there are none. UserError where two have
        one name."""
        own = tools_of(environment)
        return ToolSession(self, task, seed, own, environment) if self.sources or own else None

    def close(self) -> None:
        """Ends what the sources hold. May be called twice."""
        for source in self.sources:
            source.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def tools_of(environment: Any) -> list[Tool]:
    """What an environment offers in `tools`: Tools, or typed functions, which keep its state, and wait in threads where it says
    that it is `blocking`."""
    found = getattr(environment, "tools", None) or ()
    slow = bool(getattr(environment, "blocking", False))
    return [one if isinstance(one, Tool) else tool(one, keeps=True, slow=slow) for one in found]


@dataclass
class Used:
    calls: int = 0
    seconds: float = 0.0
    money: float = 0.0


@dataclass
class ToolSession:
    """The tools of one episode."""

    kit: Kit
    task: Task
    seed: int
    own: Sequence[Tool] = ()  # the environment's
    environment: Any = None
    spent: Used = field(default_factory=Used)
    record: list[dict[str, Any]] = field(default_factory=list)
    kept: list[Call] = field(default_factory=list)  # what made the state of the tools that have one
    _tools: dict[str, Tool] | None = None
    _behind: bool = False  # the state is to be made again before the next call

    @property
    def tools(self) -> dict[str, Tool]:
        if self._tools is None:
            opened = [t for source in self.kit.sources for t in source.opened(self.task, self.seed)]
            found = [*opened, *self.own]
            twice = sorted({t.name for t in found if [u.name for u in found].count(t.name) > 1})
            if twice:
                raise UserError(f"two tools are called '{twice[0]}'; leave one out")
            docs = self.kit.docs
            self._tools = {
                t.name: replace(t, description=docs[t.name]) if t.name in docs else t for t in found
            }
        return self._tools

    def offer(self, renderer: Any) -> Offer:
        """How the model is told of them."""
        made: Offer = renderer.offer([t.schema for t in self.tools.values()], self.kit.syntax)
        return made

    @property
    def budgets(self) -> Budgets:
        """Those of the kit, and the calls that the environment itself allows (`longest`) on top of them."""
        own, longest = self.kit.budgets, int(getattr(self.environment, "longest", 0))
        return replace(own, turns=own.turns + longest, calls=own.calls + longest) if longest else own

    @property
    def over(self) -> bool:
        """Whether a call has ended the environment's episode."""
        return bool(getattr(self.environment, "over", False))

    def fork(self) -> ToolSession:
        """The same for a branch: tools with a state are opened anew and brought to where they were. An environment is not
        copied."""
        spent = Used(self.spent.calls, self.spent.seconds, self.spent.money)
        record, kept = list(self.record), list(self.kept)
        return ToolSession(
            self.kit, self.task, self.seed, self.own, self.environment, spent, record, kept, None, bool(kept)
        )

    async def answer(self, calls: Sequence[Call | Unreadable], last: bool) -> list[Message]:
        """A message for every call, in order; those without a state run at once. `last`: the reply that follows is the
        last one."""
        if self._behind:
            self._behind = False
            for earlier in self.kept:
                await self._result(self.tools[earlier.name], earlier)
        planned = [self._plan(call) for call in calls]
        results: list[tuple[str, bool]] = [("", True)] * len(calls)

        async def one(i: int) -> None:
            results[i] = await self._answered(calls[i], planned[i])

        async def in_order(those: Sequence[int]) -> None:
            for i in those:
                await one(i)

        keeping = [i for i, p in enumerate(planned) if isinstance(p, Tool) and p.keeps]
        await asyncio.gather(in_order(keeping), *(one(i) for i in range(len(calls)) if i not in keeping))
        for call, plan, (text, failed) in zip(calls, planned, results, strict=True):
            price = plan.price if isinstance(plan, Tool) else 0.0
            self.record.append(_noted(call, text, failed, price))
        messages = [Message(TOOL, f"{ERROR}{text}" if failed else text) for text, failed in results]
        if last and messages:
            messages[-1] = Message(TOOL, f"{messages[-1].content}\n(No calls are left: answer now.)")
        return messages

    def leave(self, calls: Sequence[Call | Unreadable]) -> None:
        """Records calls of the last reply, which nobody carries out."""
        for call in calls:
            why = call.why if isinstance(call, Unreadable) else "no replies were left"
            self.record.append(_noted(call, why, True, 0.0))

    def _plan(self, call: Call | Unreadable) -> Tool | str:
        """The tool that is called, whose call is paid for; or why there is none."""
        if isinstance(call, Unreadable):
            self.spent.calls += 1
            return call.why
        budgets, found = self.budgets, self.tools.get(call.name)
        if self.spent.calls >= budgets.calls:
            return f"no calls are left ({budgets.calls} an episode); answer now"
        self.spent.calls += 1
        if found is None:
            return f"there is no tool '{call.name}'; there are {', '.join(self.tools)}"
        if self.spent.seconds >= budgets.seconds:
            return f"no time is left for calls ({budgets.seconds:g} s an episode); answer now"
        if self.spent.money + found.price > budgets.money:
            return f"{found.name} costs {found.price:g}, more than is left of {budgets.money:g}; answer without it"
        self.spent.money += found.price
        return found

    async def _answered(self, call: Call | Unreadable, plan: Tool | str) -> tuple[str, bool]:
        """What the policy hears, and whether the call failed."""
        if isinstance(plan, str):
            return plan, True
        assert isinstance(call, Call)
        begin = time.monotonic()
        try:
            found = await self._result(plan, call)
            return shown(found, self.kit.budgets.longest), False
        except TimeoutError:
            return f"{plan.name} took longer than the time that was left", True
        except ToolError as error:
            return shown(str(error), self.kit.budgets.longest), True
        except (Exception, SystemExit) as error:
            return f"{plan.name} failed: {type(error).__name__}: {shown(str(error), 300)}", True
        finally:
            self.spent.seconds += time.monotonic() - begin
            if plan.keeps:
                self.kept.append(call)

    async def _result(self, found: Tool, call: Call) -> Any:
        left = max(0.01, self.kit.budgets.seconds - self.spent.seconds)
        if not found.slow:
            result = found.run(call.arguments)
            return await asyncio.wait_for(result, left) if inspect.isawaitable(result) else result
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(self.kit.threads, found.run, call.arguments), left)


def _noted(call: Call | Unreadable, text: str, failed: bool, price: float) -> dict[str, Any]:
    arguments = dict(call.arguments) if isinstance(call, Call) else {}
    return {
        "name": call.name,
        "arguments": arguments,
        "result": text[:NOTED],
        "failed": failed,
        "read": isinstance(call, Call),
        "price": price,
    }


def use_of(records: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Of the notes `CALLS` of episodes: calls an episode, how many of them failed and could not be read, the share of
    episodes that called, and the price of an episode. {} where no episode had tools."""
    if not records:
        return {}
    calls = [call for record in records for call in record]
    each = max(1, len(calls))
    return {
        "calls": len(calls) / len(records),
        "called": sum(bool(record) for record in records) / len(records),
        "failed": sum(bool(c["failed"]) for c in calls) / each,
        "unreadable": sum(not c["read"] for c in calls) / each,
        "price": sum(float(c["price"]) for c in calls) / len(records),
    }
