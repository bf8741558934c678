"""How well a scorer tells better answers from worse ones, on pairs with known labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from etude.errors import UserError
from etude.evaluate.intervals import Interval, clustered
from etude.tasks.pairs import CHOSEN, ITEM, REJECTED
from etude.types import Array, Message, Task

Asked = Sequence[tuple[Sequence[Message], str]]
Scorer = Callable[[Asked], Array]
"""(prompt, reply) pairs -> f64[n], or f64[n, K] of the K members of an ensemble; larger is better."""
BINS = 10  # of the calibration


@dataclass(frozen=True)
class PreferenceResult:
    """Of `rows` rows, each right where the chosen answer has a larger number than every rejected one; a tie is half right."""

    pairs: int
    accuracy: Interval
    by_kind: dict[str, Interval]
    shorter: Interval | None  # accuracy where the chosen answer is the shorter one
    longer: Interval | None
    length_correlation: float  # Spearman's rank correlation of number and length, over all answers
    length_alone: float  # accuracy of preferring the longer answer
    nats: float | None  # mean -log sigmoid(margin); None where margins are no log-odds
    calibration_error: float | None  # |said - true| of the pairs by what is said, weighed by their number
    calibration: list[tuple[float, float, int]]  # (mean sigmoid(|margin|) said, share right, pairs) by bin
    agreement: float | None  # share of the members of an ensemble that agree with most of them

    @property
    def chance(self) -> bool:
        """Whether the interval does not exclude a scorer that guesses."""
        return self.accuracy.low <= 0.5

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "no_better_than_chance": self.chance}

    @property
    def screen(self) -> str:
        """For people."""
        lines = [f"accuracy  {self.accuracy}"]
        if len(self.by_kind) > 1:
            lines += [f"  {kind}: {interval}" for kind, interval in self.by_kind.items()]
        lines.append(
            f"length    preferring the longer answer alone is right in {100 * self.length_alone:.0f} %; "
            f"rank correlation of number and length {self.length_correlation:.2f}"
        )
        for what, interval in (("shorter", self.shorter), ("longer", self.longer)):
            if interval is not None:
                lines.append(f"  where the chosen answer is {what}: {interval}")
        if self.nats is not None and self.calibration_error is not None:
            lines.append(
                f"calibration  {self.nats:.3f} nats a pair (guessing: 0.693); "
                f"what is said is off by {100 * self.calibration_error:.1f} % on average"
            )
        if self.agreement is not None:
            lines.append(f"ensemble  {100 * self.agreement:.0f} % of the members agree with most of them")
        if self.chance:
            lines.append("no better than chance: the interval reaches down to 50 %")
        return "\n".join(lines)


def measured(tasks: Sequence[Task], scorer: Scorer, log_odds: bool = True) -> PreferenceResult:
    """The scorer on the pairs of `tasks`. `log_odds`: whether differences of its numbers are meant as log-odds. Raises UserError
    where no task brings a pair."""
    paired = [t for t in tasks if t.meta.get(CHOSEN) and t.meta.get(REJECTED)]
    if not paired:
        raise UserError("there are no pairs: rows with 'chosen' and 'rejected' (docs/preferences.md)")
    asked = [(t.prompt, str(t.meta[side])) for t in paired for side in (CHOSEN, REJECTED)]
    members = np.asarray(scorer(asked), float)
    members = members.reshape(len(asked), -1)
    numbers = members.mean(axis=1)
    chosen, rejected = numbers[0::2], numbers[1::2]
    size = np.array([len(text) for _, text in asked], float)
    won = 0.5 + 0.5 * np.sign(chosen - rejected)
    rows: dict[str, list[int]] = {}
    for i, task in enumerate(paired):
        rows.setdefault(str(task.meta.get(ITEM, task.key)), []).append(i)
    right = np.array([won[mine].min() for mine in rows.values()])
    kinds = np.array([paired[mine[0]].kind for mine in rows.values()])
    more = np.sign(size[0::2] - size[1::2])
    margin = chosen - rejected
    nats, off, bins = _calibration(margin, won) if log_odds else (None, None, [])
    return PreferenceResult(
        len(paired),
        clustered(right),
        {kind: clustered(right[kinds == kind]) for kind in sorted(set(kinds.tolist()))},
        clustered(won[more < 0]) if (more < 0).any() else None,
        clustered(won[more > 0]) if (more > 0).any() else None,
        _ranks_correlate(numbers, size),
        float((0.5 + 0.5 * more).mean()),
        nats,
        off,
        bins,
        _agreement(members[0::2] - members[1::2]),
    )


def _calibration(margin: Array, won: Array) -> tuple[float, float, list[tuple[float, float, int]]]:
    """Of what is said with confidence p = sigmoid(|margin|) a share p should be right."""
    nats = float(np.logaddexp(0, -margin).mean())
    said = 1 / (1 + np.exp(-np.abs(margin)))
    place = np.minimum(((said - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins = [
        (float(said[place == b].mean()), float(won[place == b].mean()), int((place == b).sum()))
        for b in sorted(set(place.tolist()))
    ]
    off = sum(abs(p - share) * n for p, share, n in bins) / len(said)
    return nats, off, bins


def _agreement(margins: Array) -> float | None:
    if margins.shape[1] < 2:
        return None
    signs = np.sign(margins)
    most = np.sign(signs.sum(axis=1, keepdims=True))
    return float((signs == most).mean())


def _ranks_correlate(a: Array, b: Array) -> float:
    from scipy import stats  # half a second that a model in use does not wait for

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(stats.spearmanr(a, b).statistic)
