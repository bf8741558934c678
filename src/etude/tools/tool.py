"""What a tool is: a typed Python function, its name, what its docstring says, and a JSON schema of its parameters."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from etude.errors import UserError
from etude.text.tool_calls import Schema

LONGEST = 2000  # characters of a result that the policy is given


class ToolError(Exception):
    """A call that fails. Its text is what the policy hears."""


@dataclass(frozen=True)
class Tool:
    """`run(arguments)` gives the result, perhaps awaitable, and may raise anything: the policy hears of it. `slow`: it runs in a
    thread, and nothing waits for it but its own episode. `keeps`: it has a state of its episode's, so calls of one reply run
    one after another. `price`: of a call, in the unit of run.tool_money."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[[Mapping[str, Any]], Any]
    slow: bool = False
    keeps: bool = False
    price: float = 0.0

    @property
    def schema(self) -> Schema:
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


def tool(
    function: Callable[..., Any], name: str = "", slow: bool = False, keeps: bool = False, run: Any = None
) -> Tool:
    """A function as a tool. Its parameters need type hints; its docstring says what it does, and, in the style of Google,
    NumPy or Sphinx, what they mean. `price` may stand as an attribute of the function. `run(arguments)` is called in its
    place. UserError for a function that cannot be described."""
    about = described(inspect.unwrap(getattr(function, "__func__", function)))

    def call(arguments: Mapping[str, Any]) -> Any:
        return function(**arguments)

    return Tool(
        name or about.name,
        about.description,
        about.parameters,
        lambda arguments: (run or call)(about.read(arguments)),
        slow,
        keeps,
        float(getattr(function, "price", 0.0)),
    )


@dataclass(frozen=True)
class Described:
    name: str
    description: str
    parameters: Mapping[str, Any]
    model: Any  # a pydantic model of the parameters

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function takes them. ToolError where they do not fit the parameters."""
        from pydantic import ValidationError

        try:
            made = self.model.model_validate(dict(arguments))
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ToolError(f"{self.name} was called with what it does not take: {said}") from None
        return {name: getattr(made, name) for name in made.model_fields_set}


@cache
def described(function: Callable[..., Any]) -> Described:
    """What is known of a function without calling it."""
    try:
        from docstring_parser import parse
        from pydantic import ConfigDict, Field, create_model
    except ImportError:
        raise UserError("tools need pydantic and docstring-parser; pip install 'etude[tools]'") from None
    name = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, ValueError) as error:
        raise UserError(f"the tool '{name}' cannot be described: {error}") from None
    doc = parse(inspect.getdoc(function) or "")
    meant = {p.arg_name: (p.description or "").strip() for p in doc.params}
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UserError(f"the tool '{name}' takes {parameter}; every parameter needs a name of its own")
        if parameter.annotation is parameter.empty:
            raise UserError(
                f"the tool '{name}' does not say of what type '{parameter.name}' is; write {parameter.name}: str"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (
            parameter.annotation,
            Field(default, description=meant.get(parameter.name) or None),
        )
    try:
        model = create_model(
            name, __config__=ConfigDict(extra="forbid", coerce_numbers_to_str=True), **fields
        )
        schema = _plain(model.model_json_schema())
    except Exception as error:
        raise UserError(f"the tool '{name}' cannot be described: {error}") from None
    text = " ".join(part.strip() for part in (doc.short_description, doc.long_description) if part)
    schema.pop("additionalProperties", None)
    return Described(name, " ".join(text.split()), {"type": "object", "properties": {}, **schema}, model)


def _plain(schema: Any, inside: str = "") -> Any:
    """A schema without the titles that say names once more."""
    if isinstance(schema, dict):
        return {k: _plain(v, k) for k, v in schema.items() if k != "title" or inside == "properties"}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def shown(value: Any, longest: int = LONGEST) -> str:
    """A result as the policy reads it: text as it is, anything else as JSON, both up to `longest` characters."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (TypeError, ValueError):
            text = str(value)
    text = text.strip() or "(nothing)"
    return text if len(text) <= longest else f"{text[:longest]} [and {len(text) - longest} characters more]"
