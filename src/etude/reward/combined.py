"""The reward of several parts: each is asked, transformed, weighed and recorded by its name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from etude.errors import UserError
from etude.reward.function import from_function
from etude.reward.parts import Part, pieces
from etude.reward.scores import Scores
from etude.stages import Context
from etude.tasks.isolate import Pool
from etude.types import Episode, Group, Signal

PARTIAL = "partial rewards"
"""Note: [character of the last reply at which a piece of it ends, what that piece is worth] for every piece that was judged."""
WATCHED = "watched/"
"""Before the name of a score that takes no part in the reward."""


class Combined:
    """r = sum_k w_k T_k(v_k) over the parts up to the first gate that is not passed. Every value v_k is a score under the
    part's name, as its source gave it; `reward` is the sum.

    T_k: v - centre, then log sigmoid of it (`log_sigmoid`, arXiv 2402.00742), or minus the mean and over the standard deviation
    of this part's values in earlier steps (`normalise`), then clipped to [low, high]. What a source raises fails the episode."""

    def __init__(self, parts: Sequence[Part], pool: Pool | None = None) -> None:
        self.parts = tuple(parts)
        self._calls = {p.name: from_function(p.score, None, pool) for p in self.parts if p.user}
        self._moments = {p.name: [0.0, 0.0, 0.0] for p in self.parts if p.options.transform == "normalise"}
        # number of values, their mean, and the sum of squared distances from it

    @property
    def reads(self) -> frozenset[str]:
        """Auxiliary models that a part asks."""
        return frozenset(name for p in self.parts for name in getattr(p.score, "reads", ()))

    @property
    def policies(self) -> list[Any]:
        """Models of the parts' own, whose work counts as the run's."""
        return [m for p in self.parts for m in getattr(p.score, "policies", ())]

    def load(self, **settings: Any) -> None:
        """Loads the models of parts that have one; `settings`: precision and device."""
        for part in self.parts:
            if hasattr(part.score, "load"):
                part.score.load(**settings)

    def bind(self, generators: Mapping[str, Any]) -> None:
        """Gives the parts that ask models of the run their generators."""
        for part in self.parts:
            if hasattr(part.score, "bind"):
                part.score.bind(generators)

    async def __call__(self, episode: Episode) -> Scores:
        total, found, notes = 0.0, dict[str, float](), dict[str, Any]()
        for part in self.parts:
            if getattr(part.score, "of_groups", False):
                continue
            if part.options.by == "answer":
                value = await self._value(part, episode, found, notes)
                worth = part.options.factor * self.transformed(part, value)
            else:
                value, worth = await self._piece_by_piece(part, episode, notes)
            found[_label(part)] = value
            if part.options.factor:
                total += worth
            if part.options.gate is not None and value < part.options.gate:
                break
        return Scores({**found, "reward": total}, notes)

    async def score_group(self, episodes: Sequence[Episode]) -> list[Scores]:
        """What the parts that judge a group's answers against each other add to the episodes' scores, one mapping each; of
        episodes that passed every gate."""
        gates = [(_label(p), p.options.gate) for p in self.parts if p.options.gate is not None]
        open_ = [i for i, e in enumerate(episodes) if all(e.scores.get(n, g - 1) >= g for n, g in gates)]
        added: list[Scores] = [Scores({}) for _ in episodes]
        for part in (p for p in self.parts if getattr(p.score, "of_groups", False) and open_):
            given = await part.score.score_group([episodes[i] for i in open_])
            for i, scores in zip(open_, given, strict=True):
                total = added[i].get("reward", episodes[i].scores["reward"])
                value = scores["reward"]
                added[i][_label(part)] = value
                added[i]["reward"] = total + part.options.factor * self.transformed(part, value)
                added[i].notes[part.name] = scores.notes
        return added

    async def _piece_by_piece(
        self, part: Part, episode: Episode, notes: dict[str, Any]
    ) -> tuple[float, float]:
        """The sum of the values of the answer's pieces, and of what they are worth; `notes` keeps each where it ends."""
        value, worth = 0.0, 0.0
        for text, end in pieces(episode.text, part.options.by):
            given = await self._value(part, replace(episode, text=text), {}, {})
            value, earned = value + given, part.options.factor * self.transformed(part, given)
            worth += earned
            if part.options.factor:
                notes.setdefault(PARTIAL, []).append([end, earned])
        return value, worth

    async def _value(
        self, part: Part, episode: Episode, found: dict[str, float], notes: dict[str, Any]
    ) -> float:
        call = self._calls.get(part.name, getattr(part.score, "score_episode", part.score))
        given: Any = call(episode)
        if inspect.isawaitable(given):
            given = await given
        if said := getattr(given, "notes", None):
            notes[part.name] = said
        if isinstance(given, Mapping):
            found |= {f"{part.name}/{n}": float(v) for n, v in given.items() if n != "reward"}
            given = given["reward"]
        value = float(given)
        if not math.isfinite(value):
            raise ValueError(f"the reward '{part.name}' is {value}; it must be finite")
        return value

    def transformed(self, part: Part, value: float) -> float:
        """T_k(v_k)."""
        options = part.options
        x = value - options.centre
        if options.transform == "log_sigmoid":
            x = -float(np.logaddexp(0.0, -x))
        elif options.transform == "normalise":
            count, mean, squares = self._moments[part.name]
            if count > 1:
                x = (x - (mean - options.centre)) / (math.sqrt(squares / count) + 1e-6)
        return min(max(x, options.low), options.high)

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """The step's values join the running statistics: one step is scored by those of the steps before it, so that the order
        in which its episodes end changes nothing."""
        for name, moments in self._moments.items():
            values = np.array([e.scores[name] for g in groups for e in g.episodes if name in e.scores])
            if not len(values):
                continue
            count, mean, squares = moments
            both = count + len(values)
            apart = values.mean() - mean
            moments[0] = both
            moments[1] = mean + apart * len(values) / both
            moments[2] = (
                squares + float(((values - values.mean()) ** 2).sum()) + apart**2 * count * len(values) / both
            )

    def state_dict(self) -> dict[str, Any]:
        return {"moments": {name: list(m) for name, m in self._moments.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, moments in state["moments"].items():
            self._moments[name] = list(moments)


def _label(part: Part) -> str:
    """The name of the part's score; a part that takes no part in the reward is a second opinion."""
    return part.name if part.options.factor or part.options.gate is not None else f"{WATCHED}{part.name}"


def reward_of(parts: Sequence[Part], pool: Pool | None, weights: Mapping[str, float] | None = None) -> Any:
    """The reward stage of the parts; of one function of the user's alone, `from_function` with `weights` of its parts."""
    if len(parts) == 1 and parts[0].user and (weights or parts[0].options.factor == 1) and _plain(parts[0]):
        return from_function(parts[0].score, weights, pool)
    if weights:
        raise UserError("weights of parts go with one function; with several rewards say weight=... of each")
    return Combined(parts, pool)


def _plain(part: Part) -> bool:
    """Whether the part is the function and nothing else."""
    return "," not in part.text
