"""Preferences: given with the tasks, or made from the outcomes of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.group import constant
from etude.credit.imitate import IMITATION, tagged
from etude.objective.preference import PAIR
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.pairs import side_of
from etude.settings import Setting
from etude.stages import Context, Credit
from etude.tasks.pairs import CHOSEN
from etude.types import Array, Episode, Group, Signal

Pairs = Annotated[int, Setting("pairs per task", low=1, high=64)]
Margin = Annotated[float, Setting("least difference in reward within a pair", low=0, high=1)]


def answer_of(episode: Episode) -> Array:
    """bool[T]: the tokens that are compared: those of a given answer or of a solution, or what was sampled."""
    side = side_of(episode) or (DEMONSTRATED if episode.demonstration else "")
    return tagged(episode, side) if side else episode.sampled


def preferred(episode: Episode, sign: float, number: int = 1) -> Signal:
    """Advantage +1 (chosen) or -1 (rejected) on the tokens that are compared, and the number of their pair."""
    mask = answer_of(episode).astype(np.float32)
    mark = np.full(len(mask), number, np.float32)
    return Signal(episode, np.float32(sign) * mask, {"policy": mask}, {PAIR: mark})


def given_pairs(group: Group) -> list[Signal]:
    """The pair that the group's task brought, if any: chosen first."""
    return [preferred(e, 1.0 if s == CHOSEN else -1.0) for e in group.demonstrations if (s := side_of(e))]


def sampled_pairs(group: Group, context: Context, pairs: int, margin: float) -> list[Signal]:
    """Up to `pairs` times a better and a worse episode, best against worst first; ties are broken by a keyed draw."""
    rewards, signals = group.rewards, []
    draw = seeds.generator(context.seed, "pairs", context.step, group.task.key).random(len(rewards))
    order = np.lexsort((draw, rewards))
    for number in range(min(pairs, len(order) // 2)):
        worst, best = order[number], order[-1 - number]
        if rewards[best] - rewards[worst] < margin:
            break
        for index, sign in ((best, 1.0), (worst, -1.0)):
            signal = constant(group.episodes[index], sign)
            mark = np.full(len(signal.advantage), number + 1, np.float32)
            signals.append(Signal(signal.episode, signal.advantage, extras={PAIR: mark}))
    return signals


def imitating_chosen(signal: Signal) -> Signal:
    """A pair's signal whose chosen answer is imitated as well (the weight row `IMITATION`)."""
    on = np.where(signal.advantage > 0, signal.weights["policy"], 0).astype(np.float32)
    return replace(signal, weights={**signal.weights, IMITATION: on})


# ---- stages ------------------------------------------------------------------------------------------


@writes("policy", extras=(PAIR,))
def preference_pairs(pairs: Pairs = 1, margin: Margin = 1e-6) -> Credit:
    """The pair that a task brings; of a group of attempts that differ in reward, `pairs` times a better and a worse one.
    Chosen tokens have advantage +1, rejected -1. Extra `PAIR`."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return [s for g in groups for s in given_pairs(g) or sampled_pairs(g, context, pairs, margin)]

    return credit


@writes("policy", IMITATION, extras=(PAIR,))
def pairs_and_chosen(pairs: Pairs = 1, margin: Margin = 1e-6) -> Credit:
    """`preference_pairs`, whose chosen answers are imitated as well."""
    plain = preference_pairs(pairs, margin)

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return [imitating_chosen(s) for s in plain(groups, context)]

    return credit
