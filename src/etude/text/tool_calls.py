"""How a model is told of tools, how it calls them, and how it is given their results.

A chat template that knows tools says so itself, and its own syntax holds: JSON between <tool_call> tags (Hermes, Qwen), or a
reply that is one JSON object (Llama). Any other model is told in plain words, and a call is the tool's name as a tag:
<calculator>3 * 4</calculator>.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.types import Message

Schema = Mapping[str, Any]
"""{"name", "description", "parameters"}: a function as OpenAI's interface describes it; parameters are a JSON schema."""

THOUGHT = "</think>"  # what stands before it is no call
RESULT = "Result: "
ERROR = "Error: "
TOOL = "tool"
"""The role of a result."""


@dataclass(frozen=True)
class Call:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Unreadable:
    """Something that was meant to be a call. `why`: a sentence for the model."""

    why: str
    name: str = ""


Found = list[Call | Unreadable]


@dataclass(frozen=True)
class Syntax:
    """`find(text, tools)`: the calls of a reply. `write(calls, tools)`: a reply that makes them. `tell(tools)`: what a model is told whose template does not tell it.
    `begins(tools)`: texts with which a call begins; none: a reply is a call from its beginning, or none. `ends(tools)`: texts at
    which a reply pauses, for a call ends there; none: a reply may hold several calls."""

    name: str
    find: Callable[[str, Sequence[Schema]], Found]
    write: Callable[[Sequence[Call], Sequence[Schema]], str]
    tell: Callable[[Sequence[Schema]], str]
    begins: Callable[[Sequence[Schema]], tuple[str, ...]] = lambda tools: ()
    ends: Callable[[Sequence[Schema]], tuple[str, ...]] = lambda tools: ()


@dataclass(frozen=True)
class Offer:
    """The tools that a conversation has. `native`: the chat template tells of them and takes messages of the role `tool`."""

    tools: tuple[Schema, ...]
    syntax: Syntax
    native: bool = False

    @property
    def functions(self) -> list[dict[str, Any]]:
        """As chat templates take them."""
        return [{"type": "function", "function": dict(tool)} for tool in self.tools]

    def calls(self, text: str) -> Found:
        """The calls of a reply, in order."""
        return self.syntax.find(text.rpartition(THOUGHT)[2], self.tools) if self.tools else []

    def split(self, text: str) -> tuple[str, list[Call]]:
        """What a reply says before it calls, and its calls; all of it and none where a call cannot be read, or there is none."""
        found = self.calls(text)
        calls = [call for call in found if isinstance(call, Call)]
        if not calls or len(calls) < len(found):
            return text, []
        thought, mark, rest = text.rpartition(THOUGHT)
        first = min((at for b in self.syntax.begins(self.tools) if (at := rest.find(b)) >= 0), default=0)
        return f"{thought}{mark}{rest[:first]}".rstrip(), calls

    def write(self, said: str, calls: Sequence[Call]) -> str:
        """The text of a reply that says something and then makes calls."""
        made = self.syntax.write(calls, self.tools) if calls else ""
        return "\n".join(part for part in (said, made) if part)

    @property
    def ends(self) -> tuple[str, ...]:
        return self.syntax.ends(self.tools)

    def told(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation as a template without tools takes it: they are described below what comes before the first reply,
        and results are the user's words."""
        if self.native:
            return list(messages)
        first = next((i for i, m in enumerate(messages) if m.role == "assistant"), len(messages))
        said = [Message("user", f"{RESULT}{m.content}") if m.role == TOOL else m for m in messages]
        if first and self.tools:
            last = said[first - 1]
            said[first - 1] = Message(last.role, f"{last.content}\n\n{self.syntax.tell(self.tools)}")
        return _joined(said)


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Two turns of the user in a row are one: many templates refuse them."""
    said: list[Message] = []
    for message in messages:
        if said and message.role == said[-1].role == "user":
            said[-1] = Message("user", f"{said[-1].content}\n{message.content}")
        else:
            said.append(message)
    return said


# ---- a tool's name as a tag ----------------------------------------------------------------------------------------------


def _names(tool: Schema) -> list[str]:
    return list(tool["parameters"].get("properties", {}))


def _tag_form(tool: Schema) -> str:
    names = _names(tool)
    if len(names) == 1:
        inside = names[0]
    else:
        inside = "{" + ", ".join(f'"{name}": ...' for name in names) + "}" if names else ""
    return f"<{tool['name']}>{inside}</{tool['name']}>"


def _write_tags(calls: Sequence[Call], tools: Sequence[Schema]) -> str:
    return "\n".join(f"<{call.name}>{_inside_tag(call, tools)}</{call.name}>" for call in calls)


def _inside_tag(call: Call, tools: Sequence[Schema]) -> str:
    names = next((_names(tool) for tool in tools if tool["name"] == call.name), list(call.arguments))
    given = list(call.arguments.values())
    if len(names) == len(given) == 1 and not str(given[0]).lstrip().startswith("{"):
        return str(given[0])
    return json.dumps(dict(call.arguments), ensure_ascii=False) if given else ""


def _tell_tags(tools: Sequence[Schema]) -> str:
    if len(tools) == 1 and not tools[0]["description"]:
        return f"You may use a tool: write {_tag_form(tools[0])} and read its result."
    lines = [f"{_tag_form(tool)}: {tool['description']}".rstrip(": ") for tool in tools]
    what = "a tool: write the call" if len(tools) == 1 else "tools, one at a time: write a call"
    return f"You may use {what} and read its result.\n" + "\n".join(lines)


def _find_tags(text: str, tools: Sequence[Schema]) -> Found:
    found: Found = []
    known = {tool["name"]: tool for tool in tools}
    each = "|".join(re.escape(name) for name in known)
    for match in re.finditer(rf"<({each})>(.*?)(</\1>|\Z)", text, re.DOTALL):
        name, inside, closed = match.groups()
        found.append(_of_tag(known[name], inside.strip()) if closed else _open(name))
    return found


def _open(name: str) -> Unreadable:
    return Unreadable(f"the call <{name}> has no end; close it by </{name}>", name)


def _of_tag(tool: Schema, inside: str) -> Call | Unreadable:
    names = _names(tool)
    given = _json(inside) if inside.startswith("{") else None
    if isinstance(given, dict) and set(given) <= set(names):
        return Call(tool["name"], given)
    if len(names) == 1:
        return Call(tool["name"], {names[0]: inside})
    if not inside:
        return Call(tool["name"], {})
    return Unreadable(f"the call must read {_tag_form(tool)}", tool["name"])


# ---- JSON ----------------------------------------------------------------------------------------------------------------


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _of_json(given: Any, form: str) -> Call | Unreadable:
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str):
        return Unreadable(f"a call must read {form}")
    arguments = given.get("arguments", given.get("parameters", {}))
    if isinstance(arguments, str):  # JSON within JSON, as OpenAI's interface has it
        arguments = _json(arguments)
    if not isinstance(arguments, dict):
        return Unreadable(f"the arguments of {name} must be a JSON object", name)
    return Call(name, arguments)


HERMES_FORM = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'
LLAMA_FORM = '{"name": ..., "parameters": {...}}'


def _write_hermes(calls: Sequence[Call], tools: Sequence[Schema]) -> str:
    each = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    return "\n".join(f"<tool_call>\n{json.dumps(one, ensure_ascii=False)}\n</tool_call>" for one in each)


def _write_llama(calls: Sequence[Call], tools: Sequence[Schema]) -> str:
    each = [{"name": call.name, "parameters": dict(call.arguments)} for call in calls]
    return "; ".join(json.dumps(one, ensure_ascii=False) for one in each)


def _tell_json(form: str, how: str) -> Callable[[Sequence[Schema]], str]:
    def tell(tools: Sequence[Schema]) -> str:
        lines = "\n".join(json.dumps(dict(tool), ensure_ascii=False) for tool in tools)
        return f"You may call these tools:\n{lines}\nTo call {how} write {form} and read the result."

    return tell


def _find_hermes(text: str, tools: Sequence[Schema]) -> Found:
    found: Found = []
    for match in re.finditer(r"<tool_call>(.*?)(</tool_call>|\Z)", text, re.DOTALL):
        inside, closed = match[1].strip(), match[2]
        given = _json(inside)
        if given is None:
            end = "" if closed else " and has no </tool_call>"
            found.append(Unreadable(f"the call is no JSON{end}; it must read {HERMES_FORM}"))
        else:
            found.append(_of_json(given, HERMES_FORM))
    return found


def _find_llama(text: str, tools: Sequence[Schema]) -> Found:
    rest, found = text.strip().removeprefix("<|python_tag|>").strip(), Found()
    if not re.match(r"\{\s*\"(name|type|parameters|arguments)\"", rest):
        return []
    while rest.startswith("{"):
        try:
            given, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return [*found, Unreadable(f"the call is no JSON; it must read {LLAMA_FORM}")]
        found.append(_of_json(given, LLAMA_FORM))
        rest = rest[end:].lstrip(" \t\r\n;")
    return found


TAGS = Syntax(
    "tags",
    _find_tags,
    _write_tags,
    _tell_tags,
    lambda tools: tuple(f"<{tool['name']}>" for tool in tools),
    lambda tools: tuple(f"</{tool['name']}>" for tool in tools),
)
HERMES = Syntax(
    "hermes",
    _find_hermes,
    _write_hermes,
    _tell_json(HERMES_FORM, "one or several"),
    lambda tools: ("<tool_call>",),
)
LLAMA = Syntax("llama", _find_llama, _write_llama, _tell_json(LLAMA_FORM, "one"))
SYNTAXES = {syntax.name: syntax for syntax in (HERMES, LLAMA, TAGS)}


def syntax_of(template: str | None, native: bool) -> Syntax:
    """The syntax that a chat template teaches; `native`: whether it tells of tools at all."""
    if not native or template is None:
        return TAGS
    if "<tool_call>" in template:
        return HERMES
    return LLAMA if "ipython" in template or '"parameters"' in template else HERMES
