"""Where problems come from, and how their answers are judged.

`load("chain_sum:max_terms=2,gcd")` or `load("mine.jsonl")` gives the task set of a run; `TaskSet.of([...])`
takes your own tasks. Libraries that make tasks are imported when first needed: this package opens quickly.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from etude.errors import UserError, nearest
from etude.registry import Registry
from etude.tasks import environments, files, gym, locate, rows, task_file
from etude.tasks.gym_facts import EXCLUDED
from etude.tasks.selftest import self_test
from etude.tasks.source import Info, Source, check_disjoint
from etude.tasks.spec import Param, convert, parse, quoted
from etude.tasks.task_set import TaskSet

__all__ = ["Info", "Source", "TaskSet", "catalogue", "check_disjoint", "load", "self_test", "source"]

SOURCES = Registry(
    "etude.tasks",
    {
        "gymnasium": "etude.tasks.adapters.gymnasium:source",
        "lab": "etude.lab.tasks:LabSource",
        "miniwob": "etude.tasks.adapters.miniwob:source",
        "openenv": "etude.tasks.adapters.openenv:source",
        "textarena": "etude.tasks.textarena:source",
        "textworld": "etude.tasks.adapters.textworld:source",
        "triples": "etude.tasks.triples:TripleSource",
        "verifiers": "etude.tasks.adapters.verifiers:source",
    },
)
"""Further sources by name: callables (name, parameters as text or typed, called) -> Source, which must accept no
parameters: `describe()` of such a source is the catalogue's entry."""

_COMMON = {
    "as": Param("as", str, "", "another name for the source and its kind"),
    "weight": Param("weight", float, 1.0, "share of the source in the mixture"),
}
_FILE = Info(
    "FILE.jsonl",
    "file",
    "Your own tasks, also .ndjson, .json, .csv, .tsv, .parquet: prompt, answer, kind, difficulty, reference, hints, check",
    files.PARAMS,
    {},
    ("reference", "hints", "feedback"),
)


def load(spec: str) -> TaskSet:
    """The task set of `NAME[:param=value,...][,NAME...]|FILE.jsonl`.

    Every source also takes `as=NAME` and `weight=NUMBER` (its share in the mixture). Raises UserError with
    one sentence saying what in the spec is wrong.
    """
    sources, weights = [], []
    for part in parse(spec):
        params = dict(part.params)
        called = params.pop("as", None)
        weight = convert(f"task '{part.name}'", _COMMON["weight"], params.pop("weight", 1.0))
        if weight <= 0:
            raise UserError(f"task '{part.name}': weight={weight:g} must be more than 0")
        sources.append(source(part.name, params, called))
        weights.append(weight)
    return TaskSet(sources, weights)


def absolute(spec: str) -> str:
    """The spec with every path made absolute, as a run stores it: it is read alike from every directory."""

    def one(name: str) -> str:
        return os.path.abspath(locate.place(name)) if is_file(name) and not locate.on_hub(name) else name

    made = []
    for part in parse(spec):
        name = one(part.name)
        params = {k: one(v) if k == "eval" else v for k, v in part.params.items()}
        given = ",".join(f"{k}={quoted(v)}" for k, v in params.items())
        made.append(f"{quoted(name)}:{given}" if given else quoted(name))
    return ",".join(made)


def is_file(name: str) -> bool:
    """Whether a name means a file, a pattern, a folder or a data set; a folder that is called like a source is written ./NAME."""
    if name in SOURCES:
        return False
    return rows.names_file(name) or (
        locate.place(name).is_dir() and name not in (*environments.KINDS, *gym.names(), *EXCLUDED)
    )


def source(name: str, params: Mapping[str, Any] | None = None, called: str | None = None) -> Source:
    """One source by name: a file (`etude.tasks.rows`), one of `SOURCES`, an environment, or a reasoning-gym generator.
    Parameters may be text or typed. Raises UserError for an unknown name."""
    if is_file(name):
        return task_file.source(name, params, called)
    if name in SOURCES:
        made: Source = SOURCES[name](name, params, called)
        return made
    if name in environments.KINDS:
        return environments.EnvironmentSource(name, params, called)
    if name not in (*gym.names(), *EXCLUDED):
        raise UserError(
            f"there is no file, folder or task '{name}'{nearest(name, [*gym.names(), *environments.KINDS, *SOURCES])}"
        )
    return gym.GymSource(name, params, called)


def catalogue(name: str | None = None) -> list[Info]:
    """Every task source, or the one called `name`: form, parameters, levels, and what its tasks carry.
    Sources that cannot be used say why in `fault`. Raises UserError for an unknown name."""
    everything = [*gym.names(), *EXCLUDED, *environments.KINDS, *SOURCES, _FILE.name]
    if name is not None and name not in everything:
        raise UserError(f"there is no task '{name}'{nearest(name, everything)}")
    return [_info(each) for each in (sorted(everything) if name is None else [name])]


def _info(name: str) -> Info:
    if name == _FILE.name:
        return _FILE
    if name in SOURCES:
        found: Info = SOURCES[name](name).describe()
        return found
    return environments.info(name) if name in environments.KINDS else gym.info(name)
