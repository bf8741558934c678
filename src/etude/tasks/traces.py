"""Demonstrations that call tools, as rows of a file: messages with `tool_calls` and results of the role `tool`, in OpenAI's and TRL's
form, as `messages` or as `prompt` and `completion`, and a column `tools` with what may be called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import UserError
from etude.text.tool_calls import TOOL, Call, Schema

TRACE = "trace"
"""In `Task.meta`: the `Trace` that a demonstration lays out behind the prompt."""

CALLED = "tool_calls"
ROLES = ("system", "user", "assistant", TOOL)


@dataclass(frozen=True)
class Turn:
    """What somebody says, and, of the assistant, what it calls then."""

    role: str
    text: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Trace:
    """The turns that follow a prompt, and the tools that they were made with."""

    turns: tuple[Turn, ...]
    tools: tuple[Schema, ...] = ()

    @property
    def calls(self) -> list[dict[str, Any]]:
        """All calls in order, as the column `calls` holds them."""
        return [{"name": c.name, "arguments": dict(c.arguments)} for turn in self.turns for c in turn.calls]


def traced(row: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Trace | None]:
    """The row as one of a question and an answer, with the trace between them: the prompt goes up to the last message of the user
    before the first call, the answer is what the assistant says last. None, and the row as it is, where nothing is called. A row
    that ends with a call has no answer, and is not checked. UserError for a trace that cannot be read."""
    said = _messages(row)
    first = next((i for i, m in enumerate(said) if isinstance(m, dict) and _tells(m)), None)
    if first is None:
        return dict(row), None
    turns = [_turn(m, f"{where}, message {i + 1}") for i, m in enumerate(said)]
    asked = max((i for i, t in enumerate(turns[:first]) if t.role == "user"), default=None)
    if asked is None:
        raise UserError(f"{where}: no message of the user stands before the first call")
    trace = Trace(tuple(turns[asked + 1 :]), _schemas(row.get("tools"), where))
    known = {schema["name"] for schema in trace.tools}
    if known and (unknown := sorted({c["name"] for c in trace.calls} - known)):
        raise UserError(f"{where}: '{unknown[0]}' is called, which 'tools' does not describe")
    rest = {n: v for n, v in row.items() if n not in ("messages", "prompt", "completion", "tools")}
    last = trace.turns[-1]
    ended = last.role == "assistant" and not last.calls
    answered: dict[str, Any] = {"answer": last.text} if ended and "answer" not in rest else {}
    if not ended and "answer" not in rest:
        answered = {"check": "none"}
    return {"prompt": said[: asked + 1], **rest, **answered}, trace


def _messages(row: Mapping[str, Any]) -> list[Any]:
    parts = [row.get(name) for name in (("messages",) if "messages" in row else ("prompt", "completion"))]
    lists = [part for part in parts if isinstance(part, list)]
    return [m for part in lists for m in part] if len(lists) == len(parts) else []


def _tells(message: Mapping[str, Any]) -> bool:
    return bool(message.get(CALLED)) or message.get("role") == TOOL


def _turn(message: Any, where: str) -> Turn:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise UserError(f"{where}: the role must be system, user, assistant or tool, not {role!r:.40}")
    text = message.get("content") or ""
    if isinstance(text, list):
        text = "".join(p.get("text", "") for p in text if isinstance(p, dict))
    if not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False)
    calls = tuple(_call(one, where) for one in message.get(CALLED) or ())
    if not (text or calls) and role != TOOL:
        raise UserError(f"{where}: it says nothing and calls nothing")
    return Turn(role, text, calls)


def _call(one: Any, where: str) -> Call:
    """OpenAI's {"function": {"name", "arguments"}}, or the inner object alone; arguments as an object, or as JSON text."""
    given = one.get("function", one) if isinstance(one, dict) else {}
    name, arguments = given.get("name"), given.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    elif isinstance(arguments, dict):  # tables fill in what another row's call has and this one has not
        arguments = {n: v for n, v in arguments.items() if v is not None}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise UserError(
            f"{where}: a call needs a name, and arguments as an object or as JSON text; got {one!r:.80}"
        )
    return Call(name, arguments)


def _schemas(given: Any, where: str) -> tuple[Schema, ...]:
    """OpenAI's {"type": "function", "function": {...}}, or the inner objects alone; the list itself may be JSON text."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise UserError(f"{where}: 'tools' is no JSON") from None
    found = []
    for one in given or ():
        function = one.get("function", one) if isinstance(one, dict) else {}
        if not isinstance(function.get("name"), str):
            raise UserError(f"{where}: 'tools' must be a list of functions with names; got {one!r:.60}")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        found.append(
            {
                "name": function["name"],
                "description": function.get("description") or "",
                "parameters": parameters,
            }
        )
    return tuple(found)


def needed(trace: Trace, offered: Sequence[str]) -> list[str]:
    """Tools that a trace calls and of which nobody tells the model."""
    known = {*offered, *(schema["name"] for schema in trace.tools)}
    return sorted({call["name"] for call in trace.calls} - known)
