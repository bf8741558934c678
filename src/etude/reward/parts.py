"""What a reward is made of: sources with weights, transforms and gates, as `--reward` and `reward=` name them.

    check                              the task's own verdict
    length                             tokens of the reply
    ./mine.py:brevity, pkg.mod:name    a function of an episode (`reward.function.from_function`)
    model:DIRECTORY                    a reward model (`reward.model`)
    judge:...                          a judge (`reward.judge`)

Behind a source stand options, as in `model:RM,weight=0.5,transform=log_sigmoid`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from etude import modules
from etude.errors import UserError, nearest
from etude.types import Episode

TRANSFORMS = ("none", "log_sigmoid", "normalise")
PIECES = {  # where a piece of an answer ends
    "answer": r"(?!)",  # nowhere
    "line": r"\n+",
    "sentence": r"[.!?]+(?=\s|$)|\n+",
    "clause": r"[.!?,;:]+(?=\s|$)|\n+",
}
_FUNCTION = re.compile(r"(?P<path>.*\.py):(?P<name>\w+)")
_NAMED = re.compile(r"(?P<module>[\w.]+):(?P<name>\w+)")


@dataclass(frozen=True)
class Options:
    """How a source enters the reward. Raises UserError for what is out of range."""

    name: str = ""  # of its score; default: the source's own
    weight: float | None = None  # in the sum; 0: only watched. Default 1, of a gate 0
    gate: float | None = None  # sources behind this one count only where its value is at least that
    transform: str = "none"
    centre: float = 0.0  # subtracted first
    low: float = -math.inf  # what is left is clipped to [low, high]
    high: float = math.inf
    by: str = "answer"  # what is judged at a time: the answer, or each of its pieces, whose values are added

    def __post_init__(self) -> None:
        if self.by not in PIECES:
            raise UserError(f"there is no piece '{self.by}'{nearest(self.by, PIECES)}")
        if self.by != "answer" and self.transform == "normalise":
            raise UserError("transform=normalise goes with whole answers, not with by=")
        if self.transform not in TRANSFORMS:
            raise UserError(f"there is no transform '{self.transform}'{nearest(self.transform, TRANSFORMS)}")
        if not self.low <= self.high:
            raise UserError(f"low={self.low:g} must not be above high={self.high:g}")

    @property
    def factor(self) -> float:
        """The weight in the sum."""
        return self.weight if self.weight is not None else 0.0 if self.gate is not None else 1.0


COMMON = {f.name for f in fields(Options)}


@dataclass(frozen=True)
class Part:
    """A source with its options. `score`: what `Combined` asks, of `(episode)`: a number, or a mapping with "reward", perhaps
    awaitable; a user's function; or an object with `score_episode` and, where it needs them, `load` and `bind`."""

    text: str
    score: Any
    options: Options = field(default_factory=Options)
    user: bool = False  # `score` is a user's function

    @property
    def name(self) -> str:
        return self.options.name


def pieces(text: str, by: str) -> list[tuple[str, int]]:
    """The pieces of a text, each with the character at which it ends; what is blank is none."""
    ends = [m.end() for m in re.finditer(PIECES[by], text)]
    cuts = [0, *(e for e in ends if e < len(text)), len(text)]
    found = [(text[a:b], b) for a, b in pairwise(cuts)]
    return [(piece.strip(), end) for piece, end in found if piece.strip()]


def length(episode: Episode) -> float:
    """How many tokens were sampled."""
    return float(episode.sampled.sum())


def checked(episode: Episode) -> float:
    """The reward of the task's own verdict. Raises ValueError where there is none."""
    if episode.verdict is None:
        raise ValueError(
            "the reward asks for the task's verdict ('check'), and the task has nothing to check"
        )
    return episode.verdict.reward


BUILT_IN: Mapping[str, Callable[[Episode], float]] = {"check": checked, "length": length}


def _model(place: str, options: Mapping[str, str]) -> Any:
    from etude.reward import model  # not loaded for rewards that have none

    return model.made(place, options)


def _judge(place: str, options: Mapping[str, str]) -> Any:
    from etude.reward import judge

    return judge.made(place, options)


MADE: Mapping[str, Callable[[str, Mapping[str, str]], Any]] = {"model": _model, "judge": _judge}
"""Sources by the word before their colon: (what follows, options of its own) -> a scorer."""


def read(given: Any) -> list[Part]:
    """The parts that a text, a function, a Part, or a list of these stands for. Raises UserError."""
    items = list(given) if isinstance(given, list | tuple) else [given]
    parts = [_part(item) for item in items]
    names: dict[str, int] = {}
    done = []
    for part in parts:
        number = names[part.name] = names.get(part.name, 0) + 1
        if number > 1 and part.options.name == part.name and _explicit(part):
            raise UserError(f"two rewards are called '{part.name}'; give one another name (name=...)")
        done.append(part if number == 1 else _called(part, f"{part.name}{number}"))
    if parts and all(part.options.factor == 0 for part in parts):
        raise UserError("every reward has weight 0, so nothing would be learned; give one a weight")
    return done


def _explicit(part: Part) -> bool:
    return "name=" in part.text


def _called(part: Part, name: str) -> Part:
    return replace(part, options=replace(part.options, name=name))


def _part(item: Any) -> Part:
    if isinstance(item, Part):
        return item
    if isinstance(item, str):
        return parse(item)
    if callable(item):
        name = getattr(item, "__name__", type(item).__name__).strip("<>")
        return Part(name, item, Options(name), user=True)
    raise UserError(
        f"a reward is {item!r:.60}; it must be a function of an episode, or text such as model:DIRECTORY"
    )


def parse(text: str) -> Part:
    """`SOURCE[,option=value...]`. Raises UserError naming what cannot be read."""
    source, *pieces = (piece.strip() for piece in text.split(","))
    given: dict[str, str] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if not equals or not name.strip() or name.strip() in given:
            raise UserError(f"reward '{text}': '{piece}' must read option=value, each option once")
        given[name.strip()] = value.strip()
    own = {n: v for n, v in given.items() if n not in COMMON}
    try:
        options = Options(**{n: _value(n, v) for n, v in given.items() if n in COMMON})
    except UserError as error:
        raise UserError(f"reward '{text}': {error}") from None
    score, name, user = _source(source, own, text)
    options = options if options.name else replace(options, name=name)
    if options.by != "answer" and (source in BUILT_IN or getattr(score, "of_groups", False)):
        raise UserError(f"reward '{text}': by= goes with what judges one text, and this does not")
    if options.name == "reward" or not options.name:
        raise UserError(f"reward '{text}': a part cannot be called '{options.name}'")
    return Part(text, score, options, user)


def _value(name: str, value: str) -> Any:
    if name in ("name", "transform", "by"):
        return value
    try:
        number = float(value)
    except ValueError:
        raise UserError(f"{name} is '{value}'; it must be a number") from None
    if math.isnan(number) or (math.isinf(number) and name not in ("low", "high")):
        raise UserError(f"{name} is {value}; it must be a finite number")
    return number


def _source(source: str, own: Mapping[str, str], text: str) -> tuple[Any, str, bool]:
    word, _, rest = source.partition(":")
    if source in BUILT_IN:
        _nothing_else(own, text)
        return BUILT_IN[source], source, False
    if word in MADE and rest:
        try:
            return MADE[word](rest, own), word, False
        except UserError as error:
            raise UserError(f"reward '{text}': {error}") from None
    if found := _FUNCTION.fullmatch(source):
        _nothing_else(own, text)
        path = Path(found["path"]).expanduser().resolve()
        if not path.is_file():
            raise UserError(f"reward '{text}': there is no file '{found['path']}'")
        return _function(modules.load(path), found["name"], text), found["name"], True
    if found := _NAMED.fullmatch(source):
        _nothing_else(own, text)
        return _function(modules.imported(found["module"]), found["name"], text), found["name"], True
    known = [*BUILT_IN, *(f"{w}:..." for w in MADE), "./FILE.py:FUNCTION", "module:FUNCTION"]
    raise UserError(f"reward '{text}': there is no source '{source}'; known are {', '.join(known)}")


def _nothing_else(own: Mapping[str, str], text: str) -> None:
    if own:
        raise UserError(f"reward '{text}': there is no option '{min(own)}'{nearest(min(own), COMMON)}")


def _function(module: Any, name: str, text: str) -> Any:
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"reward '{text}': there is no function '{name}' in it")
    return function


def absolute(text: str) -> str:
    """The text with every path made absolute, as a run stores it: it is read alike from every directory."""
    source, comma, options = text.partition(",")
    word, _colon, rest = source.partition(":")
    if word == "model":
        source = f"model:{Path(rest).expanduser().resolve()}"
    elif found := _FUNCTION.fullmatch(source.strip()):
        source = f"{Path(found['path']).expanduser().resolve()}:{found['name']}"
    pieces = []
    for piece in options.split(","):
        name, equals, value = piece.partition("=")
        path = equals and name.strip() in ("rubric", "cache")
        pieces.append(f"{name}={Path(value.strip()).expanduser().resolve()}" if path else piece)
    return f"{source}{comma}{','.join(pieces)}"
