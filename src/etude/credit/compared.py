"""Answers that a reward model compares: a signal acts on the one token at which an answer ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.pairs import Margin, Pairs, answer_of, given_pairs, sampled_pairs
from etude.objective.compared import MEMBERS, RATING, REWARD, STRENGTH
from etude.objective.preference import PAIR
from etude.stages import Context, Credit
from etude.tasks.pairs import RATINGS
from etude.types import Group, Signal

MOST_MEMBERS = 16  # of an ensemble: which of them see a pair stands in the bits of one float32


def at_end(signal: Signal, **extras: float) -> Signal:
    """The signal of a pair on its answer's last token alone, with these extras there."""
    row = np.zeros(len(signal.advantage), np.float32)
    row[np.flatnonzero(answer_of(signal.episode))[-1]] = 1
    sign = np.float32(np.sign(signal.advantage.sum()))
    laid = {name: np.where(row > 0, value, 0).astype(np.float32) for name, value in extras.items()}
    return Signal(signal.episode, sign * row, {REWARD: row}, {**laid, PAIR: signal.extras[PAIR]})


def drawn_members(context: Context, task: str, number: int) -> int:
    """Which members of an ensemble see a pair, as bits: each of them with probability 0.8, the same in every epoch."""
    draws = seeds.generator(context.seed, "members", task, number).random(MOST_MEMBERS)
    return int(sum(1 << k for k, u in enumerate(draws) if u < 0.8))


def compared(group: Group, context: Context, pairs: int, margin: float) -> Iterator[Signal]:
    """The signals of a group's pairs, with `STRENGTH`, `RATING` (NaN where there is none) and `MEMBERS`."""
    meta = group.task.meta
    for signal in given_pairs(group) or sampled_pairs(group, context, pairs, margin):
        number = int(signal.extras[PAIR].max())
        right = signal.advantage.sum() > 0
        rating = meta.get(RATINGS[0] if right else RATINGS[1])
        yield at_end(
            signal,
            **{
                STRENGTH: float(meta.get("strength", 1.0)),
                RATING: float("nan") if rating is None else float(rating),
                MEMBERS: drawn_members(context, group.task.key, number),
            },
        )


# ---- stages ------------------------------------------------------------------------------------------


@writes(REWARD, extras=(PAIR, STRENGTH, RATING, MEMBERS))
def compared_pairs(pairs: Pairs = 1, margin: Margin = 1e-6) -> Credit:
    """Pairs, given with the tasks or made of attempts by their reward, to be compared at their ends."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return [s for g in groups for s in compared(g, context, pairs, margin)]

    return credit
