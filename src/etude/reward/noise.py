"""Rounding is no signal: a baseline divided by a tiny spread would make it one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from etude.types import NOISE, Episode, Group


def without_noise(groups: Sequence[Group]) -> list[Group]:
    """Groups in which rewards that differ by no more than `NOISE`, within a group or over all of them, are equal."""
    if _level(e for g in groups for e in g.episodes) is not None:
        first = next(e.reward for g in groups for e in g.episodes)
        return [_levelled(g, first) for g in groups]
    return [g if (level := _level(g.episodes)) is None else _levelled(g, level) for g in groups]


def _level(episodes: Iterable[Episode]) -> float | None:
    """The first reward, where all are nearly but not quite the same."""
    rewards = [e.reward for e in episodes]
    spread = max(rewards, default=0.0) - min(rewards, default=0.0)
    return rewards[0] if 0 < spread <= NOISE else None


def _levelled(group: Group, reward: float) -> Group:
    return replace(group, episodes=tuple(e.with_scores({"reward": reward}) for e in group.episodes))
