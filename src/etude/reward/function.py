"""A user's plain function as a reward stage."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from etude.errors import UserError
from etude.stages import Reward
from etude.tasks.isolate import Pool
from etude.tasks.user_code import late, name_of
from etude.types import Episode


def from_function(
    function: Callable[[Episode], Any], weights: Mapping[str, float] | None = None, pool: Pool | None = None
) -> Reward:
    """`function(episode)` returns a bool, a number, or named parts such as {"format": 0.2, "accuracy": 1}; it may be
    async. It may read `episode.text` (the last reply), `episode.verdict`, and `episode.task.meta` (every further
    column of the task). Parts without one called "reward" are summed, each times its entry in `weights` (1 where it
    has none), and recorded beside the sum. It is called where `pool` calls the code of users (default: here).
    Raises UserError for what is not a function, or weights that are not finite."""
    if not callable(function):
        raise UserError(f"the reward is {function!r:.60}; it must be a function of an episode")
    known = dict(weights or {})
    for name, weight in known.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise UserError(
                f"the weight of the reward's part '{name}' is {weight!r}; it must be a finite number"
            )

    scored = Scored(function, known)

    async def reward(episode: Episode) -> dict[str, float]:
        found: Any = scored(episode) if pool is None else pool.reward(scored, episode)
        if not inspect.isawaitable(found):
            return dict(found)
        try:
            return await asyncio.wait_for(found, pool.seconds if pool else None)
        except TimeoutError:
            raise late("reward", f"the reward '{name_of(function)}'", pool.seconds if pool else 0) from None

    return reward


@dataclass(frozen=True)
class Scored:
    """A reward function whose result is read as named numbers."""

    call: Callable[[Episode], Any]
    weights: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, episode: Episode) -> dict[str, float] | Awaitable[dict[str, float]]:
        given = self.call(episode)
        return self._awaited(given) if inspect.isawaitable(given) else scores(given, self.weights)

    async def _awaited(self, given: Awaitable[Any]) -> dict[str, float]:
        return scores(await given, self.weights)


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
