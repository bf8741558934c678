"""The plan of a run: what the user asked for, resolved, checked, and written to config.json."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etude.errors import UserError, nearest
from etude.parsing import escaped
from etude.recipe import Recipe
from etude.report.json_files import plain

UNITS = ("steps", "seconds", "tokens", "flops")
AMOUNT = re.compile(r"(?P<n>[0-9.]+(?:e[0-9]+)?)(?P<k>[kKM]?)(?P<u>s|m|h|-tokens|-flops|-steps)")


@dataclass(frozen=True)
class Budget:
    """When a run ends: after `amount` of one currency. Progress is the share spent."""

    amount: float
    unit: str  # one of UNITS

    def __post_init__(self) -> None:
        number: Any = self.amount
        if self.unit not in UNITS:
            raise UserError(
                f"Budget.unit is {self.unit!r}; it must be one of {', '.join(UNITS)}{_close(self.unit)}"
            )
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"Budget.amount is {number!r}; it must be a number, as in Budget(100, 'steps')")
        if not (math.isfinite(number) and number > 0):
            raise UserError(f"Budget.amount is {number}; it must be a finite number above 0")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`10m`, `90s`, `2h`, `500k-tokens`, `2e14-flops`, `100-steps`."""
        match = AMOUNT.fullmatch(text.strip())
        amount = 0.0
        if match:
            try:
                amount = float(match["n"]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6}[match["k"]]
            except ValueError:
                amount = 0.0
        if not match or not 0 < amount < math.inf:
            raise UserError(
                f"a budget looks like 10m, 90s, 2h, 500k-tokens, 2e14-flops or 100-steps; got '{text}'"
            )
        seconds = {"s": 1, "m": 60, "h": 3600}.get(match["u"])
        return cls(amount * seconds, "seconds") if seconds else cls(amount, match["u"][1:])

    @classmethod
    def of(cls, given: Budget | str | int) -> Budget:
        """A budget, its text, or a number of steps."""
        if isinstance(given, Budget):
            return given
        if isinstance(given, str):
            return cls.parse(given)
        return cls(given, "steps")

    @classmethod
    def further(cls, text: str, used: Mapping[str, float]) -> Budget:
        """The budget of a run that goes on after it has `used` so much: `+10m` is so much more, `10m` so much in all."""
        asked = cls.parse(text.strip().removeprefix("+"))
        amount = asked.amount + (used[asked.unit] if text.strip().startswith("+") else 0.0)
        if amount <= used[asked.unit]:
            spent = cls(used[asked.unit], asked.unit)
            raise UserError(
                f"the run has spent {spent} already; a budget of {asked} ends it: name more, or +{text}"
            )
        return cls(amount, asked.unit)

    @property
    def steps(self) -> int | None:
        """The number of steps, where that is what is counted."""
        return int(self.amount) if self.unit == "steps" else None

    def progress(self, used: Mapping[str, float]) -> float:
        """The share that is spent, of amounts by unit."""
        return min(1.0, used[self.unit] / self.amount)

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


@dataclass(frozen=True)
class Plan:
    """What defines a run. Two runs with equal plans on one machine have equal bits."""

    recipe: str | Recipe  # a name, a composition, a file, "package.module:NAME", or the recipe itself
    model: str
    tasks: str
    budget: Budget
    seed: int = 0
    changes: Mapping[str, str] = field(default_factory=dict)  # --set stage.field=value
    rewards: tuple[str, ...] = ()  # --reward SOURCE,option=value (`reward.parts`); empty: the recipe's own

    def __post_init__(self) -> None:
        for name, kinds, wanted in (
            ("recipe", (str, Recipe), "the name of a recipe, or a Recipe"),
            ("model", (str,), "smollm2, a model directory or a hub name"),
            (
                "tasks",
                (str,),
                "text such as 'chain_sum:max_terms=2' (a TaskSet is given to start(plan, out, tasks))",
            ),
            ("budget", (Budget, str), "a Budget such as Budget(100, 'steps'), or text such as '5m'"),
            ("seed", (int,), "an integer"),
            ("changes", (Mapping,), "a mapping such as {'update.lr': 1e-5}"),
            ("rewards", (tuple,), "a tuple of texts such as 'model:DIRECTORY,weight=1'"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise UserError(f"Plan.{name} is {value!r:.60}; it must be {wanted}")
        object.__setattr__(self, "budget", Budget.of(self.budget))
        object.__setattr__(self, "changes", {k: as_text(v) for k, v in self.changes.items()})

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it. A recipe that was given as an object is named by where it can be found again."""
        recipe = self.recipe if isinstance(self.recipe, str) else origin(self.recipe)
        budget = {"amount": self.budget.amount, "unit": self.budget.unit}
        own = {"model": self.model, "tasks": self.tasks, "budget": budget, "seed": self.seed}
        rewards = {"rewards": list(self.rewards)} if self.rewards else {}
        return {"recipe": recipe, **own, "changes": dict(self.changes), **rewards}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        names = ("recipe", "model", "tasks", "budget", "seed", "changes")
        try:
            rewards = tuple(data.get("rewards", ()))
            return cls(
                **{n: data[n] for n in names} | {"budget": Budget(**data["budget"]), "rewards": rewards}
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"this is no plan of a run ({type(error).__name__}: {error})") from None

    def but(self, **changes: Any) -> Plan:
        return replace(self, **changes)


def sealed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config.json with a hash of itself: it is a record, in which an edit would change less than it says."""
    rest = {k: v for k, v in config.items() if k != "seal"}
    text = json.dumps(plain(rest), sort_keys=True)
    return {**rest, "seal": hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}


def origin(recipe: Recipe) -> str:
    """Where a recipe object can be found again: its name in the catalogue, "package.module:NAME", or "file.py:NAME" of
    a script; just its name where no module holds it (a notebook)."""
    for name, module in list(sys.modules.items()):
        held = [k for k, v in list(vars(module).items()) if v is recipe] if module is not None else []
        if not held or name.startswith("etude.methods."):
            continue
        if name != "__main__":
            return f"{name}:{held[0]}"
        if file := getattr(module, "__file__", None):
            return f"{Path(file).resolve()}:{held[0]}"
    return recipe.name


def as_text(value: Any) -> str:
    """The value of a setting as --set takes it."""
    if isinstance(value, list | tuple):
        return ";".join(escaped(v) if isinstance(v, str) else as_text(v) for v in value)
    return repr(value) if isinstance(value, float) else str(value)


def _close(name: Any) -> str:
    known = nearest(str(name), UNITS)
    return known if "did you mean" in known else ""


def parse_changes(pairs: list[str]) -> dict[str, str]:
    """`["update.lr=1e-5"]` -> {"update.lr": "1e-5"}. UserError on a pair without '='."""
    found = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals or "." not in path:
            raise UserError(f"--set takes stage.field=value; got '{pair}'")
        found[path.strip()] = value.strip(" ")
    return found
