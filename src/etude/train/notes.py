"""What a user should know of a plan before it runs: settings that do nothing here, and a reward that decides less than one
may think."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

from etude.assembly import resolved_stages
from etude.curriculum.filter import everything
from etude.objective.terms import Objective
from etude.recipe import Recipe


def idle(recipe: Recipe, stages: Mapping[str, Any], changes: Mapping[str, str]) -> list[str]:
    """A sentence for each setting that was given and that nothing of this recipe reads."""
    read = {name for part in stages.values() for name in getattr(part, "reads", ())}
    teachers = {name for name, own in recipe.all_auxiliary.items() if own.source == "teacher"}
    heads = trains_heads(recipe, stages["objective"])
    unread = {
        "update.head_lr": not heads and "it trains no auxiliary heads",
        "run.oversample": resolved_stages(recipe)["filter"].factory is everything
        and "it drops no group of attempts",
        "run.teacher": not (
            {"teacher"} & {*read, *recipe.all_needs, changes.get("run.summariser")} or teachers
        )
        and "it asks no second model",
    }
    return [
        f"note: {name} does nothing with {recipe.name}: {why}"
        for name, why in unread.items()
        if why and name in changes
    ]


def trains_heads(recipe: Recipe, objective: Objective) -> bool:
    """Whether any auxiliary head is trained, which is what `update.head_lr` is for."""
    return bool(objective.heads) or any(own.heads for own in recipe.all_auxiliary.values())


def undecided(recipe: Recipe) -> list[str]:
    """A sentence where stages ask the tasks' own check whether an attempt is right, so that a user's reward does not
    decide it."""
    asking = [
        name
        for name, part in resolved_stages(recipe).items()
        if name != "reward" and any("correct" in code.co_names for code in _codes(part.factory, name))
    ]
    if not asking:
        return []
    return [
        f"note: {recipe.name} asks the tasks' own check which attempts are right (in its {' and '.join(asking)}); the reward "
        "function does not change that"
    ]


def _codes(factory: Callable[..., Any], stage: str) -> Iterator[CodeType]:
    """All code of a factory that may decide something; what a class observes for its report does not."""
    if inspect.isclass(factory):
        told = () if stage == "curriculum" else ("observe", "report")
        methods = {
            n: m for c in reversed(factory.__mro__) for n, m in vars(c).items() if inspect.isfunction(m)
        }
        waiting = [method.__code__ for name, method in methods.items() if name not in told]
    else:
        waiting = [factory.__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
