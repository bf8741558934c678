"""All generators of reasoning-gym as task sources: `chain_sum:max_terms=2,max_digits=2,style=short`."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import threading
import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from etude.errors import UserError, nearest
from etude.tasks.extract import RULES, value
from etude.tasks.gym_check import Gym, scorer
from etude.tasks.gym_facts import (
    EXCLUDED,
    GOLD_IN_METADATA,
    NO_TEXT_FORM,
    ONLY,
    REBUILT,
    SLOW_LEVELS,
    UNSTABLE,
)
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import Param, typed
from etude.types import Message, Task

# The wording of "short" was chosen by trying nine on SmolLM2-135M-Instruct (48 sums of two numbers, greedy):
# this one 19 right, the bare question 13, "Answer briefly." 9. The model writes sentences under all of them.
STYLES = {
    "plain": "{question}",
    "short": "{question}\nAnswer with just the result.",
    "tag": "{question}\nWrite the final answer as <answer>...</answer>.",
}

OWN = (
    Param("level", list[int], [], "curriculum level, or several: [0;2]; none: the generator's own settings"),
    Param("style", typing.Literal["plain", "short", "tag"], "short", "how the prompt asks for the answer"),
    Param("extract", str, "auto", "where the answer stands: auto, " + ", ".join(RULES)),
    Param(
        "feedback", typing.Literal["none", "unary", "hint", "full"], "unary", "what a wrong answer is told"
    ),
    Param("partial", bool, False, "keep the generator's rewards between 0 and 1"),
)


_ONE_AT_A_TIME = threading.Lock()  # generators are shared, and some use the global random state


def names() -> list[str]:
    """The generators that can be used."""
    return [name for name in _registry()[0] if name not in EXCLUDED]


class GymSource:
    """One generator. `given`: its parameters, as text or typed, and those of `OWN`.

    Kind: `called` or the generator's name. Difficulty: the level of the generator's curriculum, all
    attributes raised together; parameters that were given stay as given at every level. Without a level the
    generator's own settings hold, and the task's difficulty reads 0. Raises UserError for an unknown
    generator or parameter and for values that the generator refuses.
    """

    def __init__(self, name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> None:
        datasets, _ = _registry()
        if name in EXCLUDED:
            raise UserError(f"task '{name}' cannot be used: {EXCLUDED[name]}")
        if name not in datasets:
            raise UserError(f"there is no task '{name}'{nearest(name, names())}")
        if name in UNSTABLE and not os.environ.get("PYTHONHASHSEED", "").isdigit():
            raise UserError(
                f"task '{name}' gives other items in every process unless Python's hashing is fixed; "
                "set the environment variable PYTHONHASHSEED=0"
            )
        where = f"task '{name}'"
        values = typed(where, given or {}, params_of(name))
        own = {p.name: values.pop(p.name, p.default) for p in OWN}
        self.generator, self.name, self.params = name, called or name, values
        self.kinds: tuple[str, ...] = (self.name,)
        self.style: str = own["style"]
        self.feedback: str = own["feedback"]
        self.partial: bool = own["partial"]
        self.extract: str = own["extract"]
        if self.extract != "auto" and self.extract not in RULES:
            raise UserError(
                f"{where}: extract='{self.extract}' is no rule{nearest(self.extract, (*RULES, 'auto'))}"
            )
        self._config(None)  # refuses bad values now
        self._levels: tuple[float, ...] | None = None
        self.level = tuple(check_level(self.name, float(v), self.levels(self.name)) for v in own["level"])
        self._levels = tuple(sorted(set(self.level))) or self._levels
        self._own = own

    def levels(self, kind: str) -> tuple[float, ...]:
        """The curriculum levels whose configuration the generator accepts, (0.0,) where it has none; those that the
        source was fixed to."""
        if self._levels is None:
            self._levels = self._find_levels()
        return self._levels

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        """`n` tasks; see `etude.tasks.source.Source`. Raises UserError for an unknown level."""
        if difficulty is not None:
            check_level(self.name, difficulty, self.levels(kind))
        return [self._item(difficulty, item_seed("gym", self.generator, seed, i)) for i in range(n)]

    def describe(self) -> Info:
        """For the catalogue."""
        return info(self.generator, {self.name: self.levels(self.name)})

    def fingerprint(self) -> str:
        """Changes with the generator, the parameters and the library's version."""
        from importlib.metadata import version

        return digest([self.name, self.generator, self.params, self._own, version("reasoning-gym")])

    def _item(self, difficulty: float | None, seed: int) -> Task:
        if difficulty is None and self.level:
            difficulty = self.level[item_seed("level", seed) % len(self.level)]
        params = tuple(sorted(self._config(difficulty).items()))
        entry, gold = self._solvable(params, seed)
        rule = self._rule(gold)
        check = Gym(
            gold=gold,
            extract=rule,
            feedback=self.feedback,
            name=self.generator,
            params=params,
            entry=entry,
            partial=self.partial,
        )
        prompt = STYLES[self.style].format(question=entry["question"])
        return Task(
            prompt=(Message("user", prompt),),
            check=check,
            kind=self.name,
            difficulty=difficulty or 0.0,
            answer=gold,
            meta={"source": self.name, "feedback": self.feedback},
        )

    def _solvable(self, params: tuple[tuple[str, Any], ...], seed: int) -> tuple[dict[str, Any], str]:
        """An item and its gold answer; items that have no solution (jugs) are drawn again."""
        for attempt in range(32):
            entry = _entry(self.generator, params, item_seed("item", seed, attempt) % 2**31)
            gold = entry["answer"]
            if gold is None:
                gold = entry["metadata"].get(GOLD_IN_METADATA.get(self.generator, ""))
            if isinstance(gold, dict):
                gold = json.dumps(gold)  # what the prompt asks for
            if gold is not None and str(gold) and "No solution" not in str(gold):
                return entry, str(gold)
        raise UserError(f"task '{self.name}': 32 items in a row had no solution; choose easier settings")

    def _rule(self, gold: str) -> str:
        """Where the answer is looked for. A small model wraps its answer in a sentence, however it is
        asked ("The answer is 72."), so numbers are taken from anywhere and words from the last line."""
        if self.extract != "auto":
            return self.extract
        if self.style == "tag":
            return "tag"
        if value(gold) is not None and re.fullmatch(r"[-\d.,/]+", gold):
            return "last_number"
        return "whole" if "\n" in gold else "line"

    def _config(self, level: float | None) -> dict[str, Any]:
        """The generator's configuration at a level. Raises UserError naming parameter and value."""
        config = _configuration(self.generator, level, self.params)
        if self.generator in ONLY:
            name, wanted, why = ONLY[self.generator]
            if config.get(name, wanted) != wanted:
                raise UserError(f"task '{self.name}' needs {name}={wanted}, not {config[name]}: {why}")
        try:
            built = _registry()[0][self.generator][1](**config)
            if hasattr(built, "validate"):
                built.validate()
        except (AssertionError, ValueError, TypeError) as error:
            given = ", ".join(f"{k}={v}" for k, v in self.params.items()) or "its own settings"
            at = "" if level is None else f" at level {level:g}"
            why = str(error).rstrip(".") or "the values do not go together"
            raise UserError(f"task '{self.name}'{at} refuses {given}: {why}") from error
        return config

    def _find_levels(self) -> tuple[float, ...]:
        _, curricula = _registry()
        if self.generator not in curricula:
            return (0.0,)
        attributes = curricula[self.generator]().attributes.values()
        top = max((len(a.levels) for a in attributes), default=1)
        good: list[float] = []
        seen: list[Any] = []
        for level in range(top):
            if level in SLOW_LEVELS.get(self.generator, ()):
                continue
            try:
                config = self._config(float(level))
            except UserError:
                continue  # some curricula hold levels that their own generator refuses
            if config not in seen:
                good.append(float(level))
                seen.append(config)
        return tuple(good) or (0.0,)


def params_of(name: str) -> tuple[Param, ...]:
    """The parameters of a generator, its own first, then `OWN`."""
    config = _registry()[0][name][1]
    hints = typing.get_type_hints(config)
    own = {p.name for p in OWN}
    found = []
    for f in dataclasses.fields(config):
        if f.name in NO_TEXT_FORM or f.name in own:
            continue
        default = f.default if f.default is not dataclasses.MISSING else None
        if f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        found.append(Param(f.name, hints[f.name], default))
    return (*found, *OWN)


def info(name: str, levels: Mapping[str, tuple[float, ...]] | None = None) -> Info:
    """The catalogue's entry of a generator."""
    dataset = _registry()[0][name][0]
    line = next((s.strip() for s in (dataset.__doc__ or "").splitlines() if s.strip()), name)
    if levels is None:
        try:
            levels = {name: GymSource(name).levels(name)}
        except UserError:
            levels = {}
    fault = EXCLUDED.get(name, "")
    if name in UNSTABLE:
        fault = "needs PYTHONHASHSEED=0, without which its items differ between processes"
    return Info(name, "generator", line.rstrip("."), params_of(name), levels, ("feedback",), fault)


@lru_cache(maxsize=1)
def _registry() -> tuple[dict[str, Any], dict[str, Any]]:
    import reasoning_gym.factory

    return dict(sorted(reasoning_gym.factory.DATASETS.items())), dict(reasoning_gym.factory.CURRICULA)


def _configuration(name: str, level: float | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ from the generator's: the level's, then the given, then bounds put in order."""
    _, curricula = _registry()
    base: dict[str, Any] = {}
    if level is not None and name in curricula:
        curriculum = curricula[name]()
        curriculum.set_global_level(int(level))
        made = curriculum.generate_configuration()
        base = {
            f.name: getattr(made, f.name)
            for f in dataclasses.fields(made)
            if f.name not in NO_TEXT_FORM and f.init
        }
    config = {**base, **given}
    defaults = {p.name: p.default for p in params_of(name)}
    for low in [k for k in defaults if k.startswith("min_")]:
        high = "max_" + low[4:]
        if high not in defaults or (low in given) == (high in given):
            continue  # both were given, or none: what does not fit is the user's, or the level's, to mend
        small, large = config.get(low, defaults[low]), config.get(high, defaults[high])
        if isinstance(small, (int, float)) and isinstance(large, (int, float)) and small > large:
            config[low if high in given else high] = config[high if high in given else low]
    return config


def _entry(name: str, params: tuple[tuple[str, Any], ...], seed: int) -> dict[str, Any]:
    """One item. Global random states, which some generators touch, are left as they were."""
    with _ONE_AT_A_TIME:
        states = random.getstate(), np.random.get_state()
        try:
            return _make(name, params, seed)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _make(name: str, params: tuple[tuple[str, Any], ...], seed: int) -> dict[str, Any]:
    if name in REBUILT:
        import reasoning_gym

        return dict(reasoning_gym.create_dataset(name, size=1, seed=seed, **dict(params))[0])
    made = scorer(name, params)
    if isinstance(getattr(made, "letters", None), (set, frozenset)):
        made.letters = _Sorted(made.letters)
    made.seed = seed
    return dict(made[0])


class _Sorted(frozenset[str]):
    """A set of letters in alphabetical order, so that a draw from it is the same in every process."""

    def __iter__(self) -> Any:
        return iter(sorted(super().__iter__()))

    def __sub__(self, other: Iterable[Any]) -> _Sorted:
        return _Sorted(super().__sub__(frozenset(other)))
