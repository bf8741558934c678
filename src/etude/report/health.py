"""Thresholds on a run's metrics. The first crossing of each is a finding that names what happened, so that a
collapse can be told from its consequences: findings of one step come with causes before effects.

All state stands in the dataclass: a run that resumes keeps it, or replays its old metrics through `observe`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from etude.report.signs import AT_ONCE, BROKEN, BY_UPDATE, CHECKS, FAR, NOTABLE, SECOND, number


@dataclass(frozen=True)
class Finding:
    """One threshold, crossed. `step` is when it was established, `since` when the crossing began."""

    step: int
    name: str
    message: str
    value: float | None  # None: the number was not finite
    threshold: float
    since: int
    episodes: tuple[str, ...] = ()  # ids of the episodes that caused it

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Health:
    """Watches the metrics of one run. Thresholds are bounds on what is still healthy."""

    patience: int = 3
    """Readings in a row that must lie beyond a threshold before it counts (those in `AT_ONCE`: one). A step in which a metric
    is not measured is no reading of it."""
    baseline: int = 5
    """Steps whose mean says what entropy and length were at the start, and what share is right now."""
    signal_low: float = 0.05
    """Share of sampled tokens with non-zero credit (without it: of groups with mixed outcomes)."""
    entropy_low: float = 0.2
    """Entropy of the policy, as a share of what it was at the start; times the share of wrong answers that is left, because what
    is right every time is said every time (`entropy_floor`)."""
    entropy_high: float = 3.0
    """Entropy of the policy, as a multiple of what it was at the start (and at least 0.5 nats above)."""
    length_high: float = 2.5
    """Sampled tokens per episode, as a multiple of what they were at the start (and at least 16 more)."""
    truncated_high: float = 0.5
    """Share of episodes that were cut at the length limit."""
    drift_high: float = 0.5
    """Divergence from the starting weights, nats per token, where a reply has `drift_tokens` or more."""
    drift_tokens: int = 32
    """Replies that were shorter than this at the start may drift as many nats a reply as one of this length: to give up wrong
    answers costs nats per answer, however few tokens it has."""
    kl_high: float = 0.5
    """Divergence from the policy that sampled the batch, nats per token."""
    update_high: float = 2.0
    """Divergence of the policy after one step from that before, nats per token."""
    gap_high: float = 0.05
    """Mean |log p sampler - log p trainer|, nats per token."""
    clip_high: float = 0.4
    """Share of tokens whose ratio was clipped."""
    errors_high: float = 0.0
    """Share of episodes whose answer could not be judged."""
    correct_low: float = 0.1
    """Share of right answers, as a share of the most that it was (which must be at least `NOTABLE`)."""

    last_good: int = 0
    """The last step that a sound policy played: at least half as many answers were right as at its best, and nothing of
    `BROKEN` was under way. Step s is played by the policy of checkpoint s - 1."""
    best: float = 0.0
    """The greatest share of right answers, as a mean over `baseline` steps."""
    agreement_rise: float = 0.1
    """Of a run without labels: how much more answers agree with each other than at its first evaluation, while accuracy
    falls."""
    accuracy_fall: float = 0.05
    """Held-out accuracy below the best that was measured, while agreement rises."""
    _examined: list[tuple[float, float]] = field(default_factory=list, repr=False)  # agreement and accuracy
    _recent: list[float] = field(default_factory=list, repr=False)  # shares of right answers
    _first: dict[str, float] = field(default_factory=dict, repr=False)  # metrics of the first step
    _seen: set[str] = field(default_factory=set, repr=False)
    _streak: dict[str, int] = field(default_factory=dict, repr=False)  # name -> step at which it began
    _count: dict[str, int] = field(default_factory=dict, repr=False)
    _start: dict[str, list[float]] = field(default_factory=dict, repr=False)
    labelled: bool = True
    """Whether `correct` is what the check says; else it is agreement with the policy's own votes."""
    windows: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict, repr=False)
    """Of the reward and of every second opinion: the first and the last `2 x baseline` readings."""
    first: Finding | None = None
    """The first finding of the run: its cause, as far as metrics can tell."""

    def observe(self, step: int, metrics: Mapping[str, Any], labelled: bool = True) -> list[Finding]:
        """The findings that step `step` establishes, each once per run, causes before effects. Metrics that
        are missing are not judged. `labelled`: whether `correct` is the check's word, not that of the policy's own votes."""
        found = []
        self.labelled = labelled
        self._note(metrics)
        for name, reads, judge in CHECKS:
            if reads and all(number(metrics, metric) is None for metric in reads):
                continue
            bad = judge(self, metrics)
            if bad is None:
                self._streak.pop(name, None)
                self._count[name] = 0
                continue
            self._streak.setdefault(name, step)
            self._count[name] = self._count.get(name, 0) + 1
            needed = 1 if name in AT_ONCE else self.patience
            if self._count[name] >= needed and name not in self._seen:
                self._seen.add(name)
                value, threshold, message = bad
                finite = value if math.isfinite(value) else None
                found.append(Finding(step, name, message, finite, threshold, self._streak[name]))
        for name in ("entropy", "length", "correct"):
            start, now = self._start.setdefault(name, []), number(metrics, name)
            if now is not None and math.isfinite(now) and len(start) < self.baseline:
                start.append(now)
        if found and self.first is None:
            self.first = found[0]
        if self._sound(step, metrics):
            self.last_good = step
        return found

    def examined(self, step: int, accuracy: float) -> Finding | None:
        """The finding that a held-out accuracy, measured after `step`, establishes in a run whose labels are its own votes:
        that it learns to agree with itself and not to be right. Once per run."""
        if not self._recent:
            return None
        agrees, name = self.correct, "false agreement"
        first, best = (
            (self._examined[0][0], max(a for _, a in self._examined)) if self._examined else (1.0, 0.0)
        )
        self._examined.append((agrees, accuracy))
        if name in self._seen or agrees < first + self.agreement_rise or accuracy > best - self.accuracy_fall:
            return None
        self._seen.add(name)
        text = (
            f"{100 * agrees:.0f}% of the answers agree with the vote, {100 * first:.0f}% did at first; but held-out accuracy fell "
            f"from {100 * best:.1f}% to {100 * accuracy:.1f}%: the votes teach an error; stop earlier, or give labels"
        )
        found = Finding(step, name, text, accuracy, best - self.accuracy_fall, step)
        self.first = self.first or found
        return found

    def _sound(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Whether the policy that played this step did at least half of what it could, and nothing of `BROKEN` is under way:
        what an update did shows in the next step."""
        right = number(metrics, "correct")
        enough = 0.5 * self.best if self.best >= NOTABLE else 0.0
        well = right is None or min(right, self.correct) >= enough
        broken = [n for n in BROKEN & self._streak.keys() if n not in BY_UPDATE or self._streak[n] < step]
        return well and not broken

    def _note(self, metrics: Mapping[str, Any]) -> None:
        for name in ("correct", "truncated", "entropy"):
            if (value := number(metrics, name)) is not None:
                self._first.setdefault(name, value)
        self.__dict__.setdefault("windows", {})  # that of a run of an earlier version lacks them
        for name in ("reward", *(n for n in metrics if n.startswith(SECOND))):
            if (value := number(metrics, name)) is not None and math.isfinite(value):
                begin, end = self.windows.setdefault(name, ([], []))
                size = 2 * self.baseline
                window = begin if len(begin) < size else end
                window.append(value)
                del window[:-size]
        if (right := number(metrics, "correct")) is not None:
            self._recent = [*self._recent, right][-self.baseline :]
            self.best = max(self.best, self.correct)

    @property
    def correct(self) -> float:
        """The share of right answers, as a mean over the last `baseline` steps."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    def degenerated(self, metrics: Mapping[str, Any]) -> str:
        """In words, what became worse since the start, for a step without signal; empty for a policy that still does at least
        half of what it could, or whose only fault is that it never could."""
        right = number(metrics, "correct") or 0.0
        notable = self.best >= NOTABLE
        if right >= 0.5 * self.best if notable else right > self._first.get("correct", 0.0):
            return ""
        said = []
        cut, was_cut = number(metrics, "truncated"), self._first.get("truncated")
        if cut is not None and was_cut is not None and cut > was_cut + 0.4:
            said.append(f"{100 * was_cut:.0f}% were cut off at step 1, {100 * cut:.0f}% are now")
        entropy, was = number(metrics, "entropy"), self._first.get("entropy")
        if (
            entropy is not None
            and was is not None
            and not self.entropy_low * was <= entropy <= self.entropy_bound(was)
        ):
            said.append(f"entropy was {was:.2g} nats, it is {entropy:.2g}")
        far = number(metrics, "kl_start")
        if far is not None and far > FAR:
            said.append(f"it is {far:.2g} nats per token away from where it began")
        if notable and (said or right < self.correct_low * self.best):
            said.insert(
                0, f"{100 * self.best:.2g}% of the answers were right at its best, {100 * right:.2g}% are now"
            )
        return "; ".join(said)

    def entropy_bound(self, was: float) -> float:
        return max(self.entropy_high * was, was + 0.5)

    def entropy_floor(self, was: float) -> float:
        """`entropy_low` of what it was, less what learning explains: the share of wrong answers now, of that at the start."""
        right = self.was("correct")
        if not self.labelled or right is None or right >= 1:
            return self.entropy_low * was
        return self.entropy_low * was * min(1.0, (1 - self.correct) / (1 - right))

    @property
    def drift_bound(self) -> float:
        """`drift_high` nats per token; for short replies as many nats a reply as one of `drift_tokens` may have."""
        length = self.was("length") or self.drift_tokens
        return self.drift_high * max(1.0, self.drift_tokens / length)

    def was(self, name: str) -> float | None:
        """What a metric was over the first `baseline` steps; None until they are over."""
        start = self._start.get(name, [])
        return sum(start) / len(start) if len(start) >= self.baseline else None
