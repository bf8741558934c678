"""Where problems come from, and how their answers are judged.

`load("chain_sum:max_terms=2,gcd")` or `load("mine.jsonl")` gives the task set of a run; `TaskSet.of([...])`
takes your own tasks. Libraries that make tasks are imported when first needed: this package opens quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks.selftest import self_test
from etude.tasks.source import Info, Source, TaskSet, check_disjoint
from etude.tasks.spec import Param, convert, parse

__all__ = ["Info", "Source", "TaskSet", "catalogue", "check_disjoint", "load", "self_test", "source"]

_COMMON = {
    "as": Param("as", str, "", "another name for the source and its kind"),
    "weight": Param("weight", float, 1.0, "share of the source in the mixture"),
}


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


def source(name: str, params: Mapping[str, Any] | None = None, called: str | None = None) -> Source:
    """One source by name: the lab, a world, a file ending in .jsonl, or a reasoning-gym generator. Parameters may be
    text or typed. Raises UserError for an unknown name."""
    if name.endswith((".jsonl", ".json")) or "/" in name:
        from etude.tasks import jsonl

        return jsonl.source(name, params, called)
    if name == "lab":
        from etude.lab.tasks import LabSource

        return LabSource(name, params, called)
    from etude.tasks import environments

    if name in environments.KINDS:
        return environments.EnvironmentSource(name, params, called)
    from etude.tasks import gym

    if name not in (*gym.names(), *gym.EXCLUDED):
        raise UserError(
            f"there is no task '{name}'{nearest(name, [*gym.names(), *environments.KINDS, 'lab'])}"
        )
    return gym.GymSource(name, params, called)


def catalogue(name: str | None = None) -> list[Info]:
    """Every task source, or the one called `name`: form, parameters, levels, and what its tasks carry.
    Sources that cannot be used say why in `fault`. Raises UserError for an unknown name."""
    from etude.lab import tasks as lab
    from etude.tasks import environments, files, gym

    file = Info(
        "FILE.jsonl",
        "file",
        "Your own tasks, one JSON object a line: prompt, answer, kind, difficulty, reference, hints, check",
        files.PARAMS,
        {},
        ("reference", "hints", "feedback"),
    )
    everything = [*gym.names(), *gym.EXCLUDED, *environments.KINDS, "lab", file.name]
    if name is not None and name not in everything:
        raise UserError(f"there is no task '{name}'{nearest(name, everything)}")
    wanted = sorted(everything) if name is None else [name]
    found = []
    for each in wanted:
        if each == file.name:
            found.append(file)
        elif each == "lab":
            found.append(lab.info())
        else:
            found.append(environments.info(each) if each in environments.KINDS else gym.info(each))
    return found
