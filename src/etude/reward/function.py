"""A user's plain function as a reward stage."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from etude.errors import UserError
from etude.stages import Reward
from etude.types import Episode


def from_function(function: Callable[[Episode], Any], weights: Mapping[str, float] | None = None) -> Reward:
    """`function(episode)` returns a bool, a number, or named parts such as {"format": 0.2, "accuracy": 1}; it may be
    async. It may read `episode.text` (the last reply), `episode.verdict`, and `episode.task.meta` (every further
    column of the task). Parts without one called "reward" are summed, each times its entry in `weights` (1 where it
    has none), and recorded beside the sum. Raises UserError for what is not a function, or weights that are not
    finite."""
    if not callable(function):
        raise UserError(f"the reward is {function!r:.60}; it must be a function of an episode")
    known = dict(weights or {})
    for name, weight in known.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise UserError(
                f"the weight of the reward's part '{name}' is {weight!r}; it must be a finite number"
            )

    async def reward(episode: Episode) -> dict[str, float]:
        given = function(episode)
        return scores(await given if inspect.isawaitable(given) else given, known)

    return reward


def scores(given: Any, weights: Mapping[str, float]) -> dict[str, float]:
    """What a reward function returned, as named numbers with the total as "reward". Raises TypeError or ValueError."""
    if not isinstance(given, Mapping):
        return {"reward": _number(given)}
    parts = {str(name): _number(value) for name, value in given.items()}
    if unknown := sorted(weights.keys() - parts.keys()):
        raise ValueError(
            f"there is a weight for '{unknown[0]}', but the reward's parts are {', '.join(parts)}"
        )
    if "reward" in parts and not weights:
        return parts
    if not parts:
        raise ValueError("the reward function returned no part at all")
    summed = [name for name in parts if name != "reward"]
    return {**parts, "reward": sum(weights.get(name, 1.0) * parts[name] for name in summed)}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"the reward function returned {value!r:.60}; it must return a bool, a number, or a dictionary of numbers"
        ) from None
