"""Tools in OpenAI's form, which a client carries out itself: offered to the model through its own chat template, its calls read out of
its replies, and what they gave put back into the conversation."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from etude.serve.refused import BadRequest
from etude.serve.replies import Piece
from etude.text.chat_template import Renderer
from etude.text.tool_calls import TOOL, Call, Offer
from etude.types import Message

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
CALLED = "tool_calls"
CHOICES = ("auto", "none")  # of tool_choice: nothing forces a model to call, or to call a certain one


def offered(body: Mapping[str, Any], renderer: Renderer) -> Offer | None:
    """The tools of a request; without any where only earlier messages call (those are to be written as well), and None where
    nothing does. Raises BadRequest."""
    choice = body.get("tool_choice") or "auto"
    if choice not in CHOICES:
        raise BadRequest("'tool_choice' must be auto or none: no call can be forced here", "tool_choice")
    given = body.get("tools") or []
    if not isinstance(given, list):
        raise BadRequest(f"'tools' must be a list; got {given!r:.60}", "tools")
    schemas = [_schema(one, f"tools[{i}]") for i, one in enumerate(given)]
    if len({s["name"] for s in schemas}) < len(schemas):
        raise BadRequest("two of 'tools' have one name", "tools")
    earlier = any(isinstance(m, dict) and (m.get(CALLED) or m.get("role") == TOOL) for m in body["messages"])
    told = schemas if choice == "auto" else []
    return renderer.offer(told) if told or earlier else None


def _schema(one: Any, where: str) -> dict[str, Any]:
    function = one.get("function") if isinstance(one, dict) and one.get("type") == "function" else None
    if not isinstance(function, dict):
        raise BadRequest(f"{where} must be an object with the type function, and a function", "tools")
    name, parameters = (
        function.get("name"),
        function.get("parameters") or {"type": "object", "properties": {}},
    )
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadRequest(f"{where} needs a name of letters, digits, _ and -; got {name!r:.60}", "tools")
    if not isinstance(parameters, dict) or not isinstance(parameters.get("properties", {}), dict):
        raise BadRequest(f"{where}.function.parameters must be a JSON schema of an object", "tools")
    if function.get("strict"):
        raise BadRequest(
            f"{where}: 'strict' is not served: nothing forces arguments to fit a schema", "tools"
        )
    return {"name": name, "description": str(function.get("description") or ""), "parameters": parameters}


def conversation(
    messages: Sequence[Any], said: Sequence[Message], renderer: Renderer, offer: Offer
) -> list[Message]:
    """The messages of a request, of which `said` are the texts, with calls as the model would have written them, and results
    in the order of the calls. Raises BadRequest."""
    found: list[Message] = []
    ids: list[str] = []
    waiting: list[tuple[int, Message]] = []
    for place, (given, message) in enumerate(zip(messages, said, strict=True)):
        where = f"messages[{place}]"
        if message.role == TOOL:
            known = given.get("tool_call_id")
            if known not in ids:
                raise BadRequest(
                    f"{where}.tool_call_id is that of no earlier call; got {known!r:.60}", "messages"
                )
            waiting.append((ids.index(known), message))
            continue
        found += [m for _, m in sorted(waiting, key=lambda one: one[0])]
        waiting = []
        if message.role == "assistant" and given.get(CALLED):
            calls = [_call(one, f"{where}.{CALLED}[{i}]", ids) for i, one in enumerate(given[CALLED])]
            message = Message("assistant", renderer.calling(found, message.content, calls, offer))
        found.append(message)
    return [*found, *(m for _, m in sorted(waiting, key=lambda one: one[0]))]


def _call(one: Any, where: str, ids: list[str]) -> Call:
    """A call of an earlier message, whose id joins `ids`."""
    function: Any = one.get("function") if isinstance(one, dict) else None
    try:
        arguments: Any = json.loads(function["arguments"]) if isinstance(function["arguments"], str) else None
        call = Call(function["name"], dict(arguments))
        ids.append(one["id"])
    except (TypeError, KeyError, ValueError):
        raise BadRequest(
            f"{where} needs an id, and a function with name and arguments, a JSON object as text", "messages"
        ) from None
    return call


async def held(
    pieces: AsyncGenerator[Piece, None], offer: Offer, renderer: Renderer, several: bool
) -> AsyncGenerator[Piece, None]:
    """The pieces of a reply that may call tools: its text and its calls come with the last one, when it is known which is which.
    `several` False: only its first call. What cannot be read as a call stays text."""
    said = ""
    async for piece in pieces:
        said += piece.text
        if piece.finish is None:
            yield replace(piece, text="")
            continue
        whole = renderer.decode(piece.sample.tokens) if piece.sample else said
        said += next((end for end in offer.ends if whole.startswith(said + end)), "")
        text, calls = offer.split(said)
        finish = CALLED if calls else piece.finish
        yield replace(piece, text=text, calls=tuple(calls if several else calls[:1]), finish=finish)


def written(calls: Sequence[Call], numbered: bool = False) -> list[dict[str, Any]]:
    """Calls as OpenAI's answers hold them; `numbered`: those of a chunk."""
    return [
        {
            **({"index": i} if numbered else {}),
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": c.name, "arguments": json.dumps(dict(c.arguments), ensure_ascii=False)},
        }
        for i, c in enumerate(calls)
    ]
