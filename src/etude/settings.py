"""Settings that explain themselves. A setting is a parameter annotated with `Setting`; its meaning, unit,
range and default stand once, in the signature, and the command line, the docs and the report read them there.

    def clip(low: Annotated[float, Setting("how far the ratio may fall", low=0, high=1)] = 0.2): ...
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from etude.errors import UserError, nearest
from etude.parsing import parse_value, type_name

LARGEST = {True: 2**31 - 1, False: 1e30}  # integers, and other numbers, without a bound of their own


@dataclass(frozen=True)
class Setting:
    meaning: str
    unit: str = ""
    low: float | None = (
        None  # inclusive, as `high`; without one any number that is finite, or that an integer may have
    )
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        if self.choices:
            return " | ".join(self.choices)
        if self.low is None and self.high is None:
            return ""
        low = "(-inf" if self.low is None else f"[{self.low:g}"
        high = "inf)" if self.high is None else f"{self.high:g}]"
        return f"{low}, {high}"


@dataclass(frozen=True)
class Parameter:
    """One setting of one factory, as found in its signature."""

    name: str
    kind: Any
    default: Any
    setting: Setting

    def read(self, value: Any, where: str) -> Any:
        """`value` as this parameter's type, checked against its range. Text is parsed. Raises UserError."""
        try:
            value = parse_value(self.kind, value)
        except ValueError:
            raise UserError(
                f"{where}.{self.name} is '{value}'; it must be of type {type_name(self.kind)}"
            ) from None
        if value is None:
            return None
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and not text.isascii() and text != text.encode(errors="ignore").decode():
                raise UserError(
                    f"{where}.{self.name} is {text!r}, which holds half a character; it must be UTF-8 text"
                )
        known = self.setting
        if known.choices and value not in known.choices:
            raise UserError(f"{where}.{self.name} is '{value}'; it must be one of {', '.join(known.choices)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            most = LARGEST[isinstance(value, int)]
            low, high = (
                bound if own is None else own for bound, own in ((-most, known.low), (most, known.high))
            )
            if not low <= value <= high:
                much = f" and be at most {most:g}" if known.high is None and value > most else ""
                raise UserError(
                    f"{where}.{self.name} is {value}; it must lie in {known.range or '(-inf, inf)'}{much}"
                )
        return value


def parameters(factory: Callable[..., Any]) -> dict[str, Parameter]:
    """The settings of `factory`, in order. Every parameter must be annotated with a `Setting`."""
    hints = _hints(factory)
    found = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        kind = hints.get(name)
        if typing.get_origin(kind) is not typing.Annotated:
            raise TypeError(f"{factory.__qualname__}: parameter '{name}' carries no Setting")
        base, *notes = typing.get_args(kind)
        setting = next(n for n in notes if isinstance(n, Setting))
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        found[name] = Parameter(name, base, default, setting)
    return found


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters. What a function returns is left alone: it may name types that are imported for
    annotations only."""
    if dataclasses.is_dataclass(factory):
        return typing.get_type_hints(factory, include_extras=True)
    made: Any = factory.__init__ if inspect.isclass(factory) else factory
    if not inspect.isfunction(made):  # a class without parameters
        return {}
    named = {name: kind for name, kind in made.__annotations__.items() if name != "return"}
    shown: Any = types.SimpleNamespace(__annotations__=named, __globals__=made.__globals__)
    return typing.get_type_hints(shown, include_extras=True)


@dataclass(frozen=True)
class Stage:
    """A factory with some of its settings fixed: a stage of a recipe before it is built."""

    factory: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, where: str) -> Any:
        """The stage itself. Raises UserError naming `where`, the setting and its range."""
        return self.factory(**self.checked(where))

    def checked(self, where: str) -> dict[str, Any]:
        known = parameters(self.factory)
        for name in self.settings:
            if name not in known:
                raise UserError(f"there is no setting '{where}.{name}'{nearest(name, known)}")
        return {n: p.read(self.settings.get(n, p.default), where) for n, p in known.items()}

    def but(self, **changes: Any) -> Stage:
        return Stage(self.factory, {**self.settings, **changes})

    def __iter__(self) -> Iterator[tuple[Parameter, Any]]:
        for name, parameter in parameters(self.factory).items():
            yield parameter, self.settings.get(name, parameter.default)


def stage(factory: Callable[..., Any], **settings: Any) -> Stage:
    return Stage(factory, settings)
