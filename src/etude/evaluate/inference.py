"""Methods of inference by name, `self_certainty:n=16,power=1`, and what their answers cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from etude.assembly import build
from etude.errors import UserError
from etude.methods import catalogue, find
from etude.recipe import Recipe
from etude.search.ledger import Limit
from etude.search.session import Answering, spent_of
from etude.types import Group

SETTING = re.compile(
    r"(?:^|,)(?=[\w.]+=)"
)  # before the name of a setting; a value may hold commas of its own


@dataclass(frozen=True)
class Played:
    """A method of inference with its settings. `name`: as a person would write it, "majority:n=16"."""

    name: str
    recipe: Recipe
    rollout: Answering
    settings: Mapping[str, str]

    @property
    def oracle(self) -> bool:
        return self.rollout.oracle

    @property
    def label(self) -> str:
        return f"{self.name} (oracle)" if self.oracle else self.name


def played(expression: str, limit: Limit | None = None) -> Played:
    """The method `NAME` or `NAME:setting=value,...`; a setting without a stage is one of its rollout. UserError for a recipe
    that does not say how an answer is produced."""
    found = grid(expression, limit)
    if len(found) > 1:
        raise UserError(f"'{expression}' names {len(found)} methods; give one value to each setting")
    return found[0]


def opponent(name: str, limit: Limit | None = None) -> Played | None:
    """The method of this name; None where no recipe is called so, and it must be a model."""
    return played(name, limit) if name.partition(":")[0] in catalogue() else None


def grid(expression: str, limit: Limit | None = None) -> list[Played]:
    """All methods of `NAME:n=4,8,16,by=logp`: one for every choice of the listed values."""
    name, _, rest = expression.partition(":")
    recipe = find(name)
    listed = [_setting(word, expression) for word in SETTING.split(rest) if word] if rest else []
    made = []
    for values in product(*(options for _, options in listed)):
        settings = dict(zip((setting for setting, _ in listed), values, strict=True))
        said = f"{name}:{','.join(f'{k}={v}' for k, v in settings.items())}" if settings else name
        made.append(_built(said, recipe, settings, limit or Limit()))
    return made


def _setting(word: str, expression: str) -> tuple[str, list[str]]:
    name, equals, values = word.partition("=")
    if not equals or not name or not values:
        raise UserError(f"a method looks like NAME or NAME:setting=value,...; got '{expression}'")
    return name, values.split(",")


def _built(name: str, recipe: Recipe, settings: Mapping[str, str], limit: Limit) -> Played:
    paths = {k if "." in k else f"rollout.{k}": v for k, v in settings.items()}
    recipe, stages = build(recipe, {**recipe.all_exam, **paths})
    rollout = stages["rollout"]
    if not isinstance(rollout, Answering):
        known = ", ".join(n for n, r in catalogue().items() if answers(r))
        raise UserError(f"{recipe.name} does not say how an answer is produced; methods that do: {known}")
    return Played(name, recipe, replace(rollout, limit=limit), dict(settings))


def answers(recipe: Recipe) -> bool:
    """Whether a recipe says how an answer is produced."""
    part = recipe.resolved().get("rollout")
    return part is not None and isinstance(part.build("rollout"), Answering)


def cost(method: Played, groups: Sequence[Group], measured: float) -> dict[str, Any]:
    """What the answers of evaluation groups cost, means over problems: charged FLOPs, tokens generated, calls, the share of
    prompt tokens that was shared and of problems whose budget ended first. `measured`: FLOPs that the models' own meters
    counted for all of it, a number that includes what problems share and what the sampler's cache lost."""
    rows, keys = [], []
    for group in groups:
        mine = [spent_of(e) for e in group.episodes]
        if mine:
            rows.append(mine)
            keys.append(group.task.key)
    every = [s for mine in rows for s in mine]
    models: dict[str, dict[str, float]] = {}
    for name in sorted({n for s in every for n in s["models"]}):
        parts = [s["models"].get(name, {}) for s in every]
        fields = ("prompt", "shared", "generated", "scored", "calls", "flops")
        models[name] = {f: float(np.mean([p.get(f, 0) for p in parts])) for f in fields}
    asked = sum(m["prompt"] + m["shared"] for m in models.values())
    return {
        "method": method.name,
        "oracle": method.oracle,
        "limit": str(method.rollout.limit),
        "flops": _mean([s["flops"] for s in every]),
        "tokens": _mean([s["tokens"] for s in every]),
        "calls": sum(m["calls"] for m in models.values()),
        "shared": sum(m["shared"] for m in models.values()) / asked if asked else 0.0,
        "exhausted": _mean([float(s["exhausted"]) for s in every]),
        "measured_flops": measured / max(1, len(every)),
        "models": models,
        "per_problem": [[k, _mean([s["flops"] for s in mine])] for k, mine in zip(keys, rows, strict=True)],
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
