"""The arms of a comparison: which recipe, under which name, with which settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.errors import UserError
from etude.methods import find, outside
from etude.train.config import parse_changes

UNTRAINED = "untrained"
LONGEST = 100  # characters of an arm's name
LABEL = re.compile(r"(?:(?P<label>[\w.-]+)=)?(?P<recipe>[^=]+?)(?::(?P<settings>[\w-]+\..*)?)?")
SEPARATOR = re.compile(r",(?=[\w-]+\.[\w-]+=)")  # a value may hold commas of its own


@dataclass(frozen=True)
class Arm:
    name: str
    recipe: str
    changes: Mapping[str, str] = field(default_factory=dict)


def parse_arms(words: Sequence[str]) -> list[Arm]:
    """`grpo`, `grpo+sec`, `slow=grpo:update.lr=5e-6,credit.std=false`. UserError on what cannot be read, or on
    two arms of one name."""
    arms = [_arm(word) for word in words]
    if len(arms) < 1:
        raise UserError("a comparison needs at least one recipe; the untrained model is always an arm")
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two arms are called '{name}'; give one a name of its own, as in b={name}")
        if name == UNTRAINED:
            raise UserError(f"'{UNTRAINED}' is the name of the model before training; choose another")
        if not name.strip(".") or len(name) > LONGEST:  # it names a folder of the comparison
            raise UserError(
                f"'{name}' is no name for an arm; choose one with a letter, of at most {LONGEST} signs"
            )
    return arms


def _arm(word: str) -> Arm:
    match = LABEL.fullmatch(word)
    if not match:
        raise UserError(
            f"an arm looks like RECIPE, NAME=RECIPE or NAME=RECIPE:stage.field=value; got '{word}'"
        )
    changes = parse_changes(SEPARATOR.split(match["settings"])) if match["settings"] else {}
    recipe = outside.absolute(match["recipe"])
    name = match["label"] or (find(recipe).name if outside.is_outside(recipe) else recipe)
    return Arm(name, recipe, changes)


def differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of {arm: {setting: value}}, per arm only the settings in which the arms differ."""
    names = {name for values in settings.values() for name in values}
    unlike = {n for n in names if len({repr(values.get(n)) for values in settings.values()}) > 1}
    return {arm: {n: values.get(n) for n in sorted(unlike)} for arm, values in settings.items()}
