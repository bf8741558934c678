"""Abstention: a third outcome beside right and wrong, and how far a model's confidence tells its right answers from its wrong ones.

A reply abstains where its last line holds one of `run.abstain`, or names the choice that says so; a right answer never abstains. A
problem has no answer where its gold answer abstains, or its row says `unanswerable`. Of all samples (Do LLMs Know When to NOT Answer?,
arXiv 2407.16221):

    answerable accuracy    = right / samples of problems with an answer
    unanswerable accuracy  = abstained / samples of problems without one
    abstention rate        = abstained / all samples
    selective accuracy     = right / answered

The risk-coverage curve (El-Yaniv & Wiener 2010; Geifman & El-Yaniv, arXiv 1705.08500) answers only where the confidence is at least t:
coverage is the share of all samples that is answered then, risk the share of wrong answers among these; abstentions are never
covered. With one point for each different confidence,

    AURC = sum_i (c_i - c_{i-1}) risk_i / c_last         AP = sum_i (R_i - R_{i-1}) (1 - risk_i),   R_i the recall of right answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude.evaluate.intervals import Interval, clustered
from etude.types import Array, Episode, Group, Task

CONFIDENCE = "confidence"
"""Note of an episode: how sure its method is of the answer, in [0, 1]. It goes before what `run.confidence` names."""
MEASURES = ("likelihood", "agreement", "stated")
POINTS = 64  # of a curve that is kept
LEAST_SURE = 0.0

_CHOICE = re.compile(r"^\s*\(?([A-J])[.):]\s*(.+?)\s*$", re.MULTILINE)
_STATED = re.compile(r"confiden\w*\D{0,24}?(\d+(?:\.\d+)?|\.\d+)\s*(%?)", re.IGNORECASE)


@dataclass(frozen=True)
class Abstaining:
    """Which words abstain, and what confidence is: the mean probability of the reply's tokens, geometrically ("likelihood"); the
    share of the problem's other samples with the same answer ("agreement"); or the last number that the reply calls its confidence
    ("stated", 0 where there is none). `answer`: what an episode answered, as its checker reads it."""

    words: tuple[str, ...]
    measure: str = "likelihood"
    answer: Callable[[Episode], Hashable | None] | None = None

    def said(self, text: str) -> bool:
        """Whether the text abstains by its words."""
        lines = [line for line in text.rpartition("</think>")[2].splitlines() if line.strip()]
        return bool(lines) and any(w.casefold() in lines[-1].casefold() for w in self.words)

    def choice(self, task: Task) -> str | None:
        """The letter of the choice that says one of the words; None where no choice does."""
        prompt = task.prompt[-1].content if task.prompt else ""
        return next((letter for letter, text in _CHOICE.findall(prompt) if self.said(text)), None)

    def unanswerable(self, task: Task) -> bool:
        """Whether abstaining is what the problem asks for."""
        if task.meta.get("unanswerable"):
            return True
        gold = (task.answer or "").strip()
        return self.said(gold) or (bool(gold) and gold == self.choice(task))

    def abstains(self, episode: Episode) -> bool:
        """Whether an episode abstained. A right answer to a problem that has one did not."""
        if episode.correct and not self.unanswerable(episode.task):
            return False
        if self.said(episode.text):
            return True
        letter = self.choice(episode.task)
        found = self.answer(episode) if letter and self.answer else None
        return found is not None and str(found).strip().upper() == letter


def abstention(groups: Sequence[Group], how: Abstaining, level: float = 0.95) -> dict[str, Any]:
    """The shares of the module's first lines, each as {mean, low, high} or None where nothing is counted in it, and the
    risk-coverage curve: {"shares", "curve", "aurc", "ap", "confidence", "answered"}. Samples without a verdict count nowhere."""
    rows = [
        (how.unanswerable(g.task), [e for e in g.episodes if e.failure is None and e.verdicts])
        for g in groups
    ]
    rows = [(none, mine) for none, mine in rows if mine]
    left = [np.array([how.abstains(e) for e in mine]) for _, mine in rows]
    right = [
        np.array([e.correct and not none for e in mine]) & ~out
        for (none, mine), out in zip(rows, left, strict=True)
    ]
    has = [i for i, (none, _) in enumerate(rows) if not none]
    without = [i for i, (none, _) in enumerate(rows) if none]
    answered = [i for i, out in enumerate(left) if not out.all()]
    shares = {
        "answerable": _mean([right[i] for i in has], level),
        "unanswerable": _mean([left[i] for i in without], level),
        "abstained": _mean(left, level),
        "selective": _mean([right[i][~left[i]] for i in answered], level, by_samples=True),
    }
    sure = [_confidences(mine, how) for _, mine in rows]
    flat = [
        (float(c), bool(r))
        for cs, rs, outs in zip(sure, right, left, strict=True)
        for c, r, out in zip(cs, rs, outs, strict=True)
        if not out
    ]
    total = sum(len(mine) for _, mine in rows)
    return {
        "shares": {name: found and _facts(found) for name, found in shares.items()},
        "words": list(how.words),
        "confidence": _named(rows, how),
        "answered": len(flat),
        **risk_coverage([c for c, _ in flat], [r for _, r in flat], total),
    }


def risk_coverage(
    confidence: Sequence[float], right: Sequence[bool], total: int | None = None
) -> dict[str, Any]:
    """{"curve": [[coverage, risk, least confidence]], "aurc", "ap"} of n answers among `total` samples (default: n); AURC is None
    without any answer, AP without a right one. The curve has at most `POINTS` points, the last one among them."""
    if not len(confidence):
        return {"curve": [], "aurc": None, "ap": None}
    c, r = np.asarray(confidence, float), np.asarray(right, bool)
    order = np.argsort(-c, kind="stable")
    c, r = c[order], r[order]
    last = np.append(np.flatnonzero(np.diff(c)), len(c) - 1)  # the last answer of each different confidence
    covered, hits = last + 1, np.cumsum(r)[last]
    risk = 1 - hits / covered
    aurc = float(np.diff(covered, prepend=0) @ risk / len(c))
    ap = float(np.diff(hits, prepend=0) @ (1 - risk) / hits[-1]) if hits[-1] else None
    kept = np.unique(np.linspace(0, len(last) - 1, min(POINTS, len(last))).round().astype(int))
    share = covered / (total or len(c))
    curve = [[float(share[i]), float(risk[i]), float(c[last[i]])] for i in kept]
    return {"curve": curve, "aurc": aurc, "ap": ap}


def stated(text: str) -> float:
    """The confidence that a text states last, in [0, 1]; 0 where it states none."""
    found = _STATED.findall(text)
    if not found:
        return LEAST_SURE
    value = float(found[-1][0])
    return min(1.0, value / 100 if found[-1][1] or value > 1 else value)


def likelihood(episode: Episode) -> float:
    """exp(mean log-probability) of the tokens sampled last, in [0, 1]; 0 where nothing was sampled."""
    known = [s.logp for s in episode.spans if s.sampled and s.logp is not None and len(s)]
    return float(np.exp(np.mean(known[-1], dtype=float))) if known else LEAST_SURE


def _confidences(mine: Sequence[Episode], how: Abstaining) -> Array:
    """f64[n]: of the n episodes of one problem."""
    if how.measure == "agreement" and how.answer is not None:
        said = [how.answer(e) for e in mine]
        others = max(1, len(said) - 1)
        found = [0.0 if a is None else (said.count(a) - 1) / others for a in said]
    elif how.measure == "stated":
        found = [stated(e.text) for e in mine]
    else:
        found = [likelihood(e) for e in mine]
    return np.array([float(e.notes.get(CONFIDENCE, f)) for e, f in zip(mine, found, strict=True)])


def _named(rows: Sequence[tuple[bool, Sequence[Episode]]], how: Abstaining) -> str:
    own = all(CONFIDENCE in e.notes for _, mine in rows for e in mine)
    return "the method's own" if rows and own else how.measure


def _mean(per_problem: Sequence[Array], level: float, by_samples: bool = False) -> Interval | None:
    """Of the shares of each problem, each problem alike; with `by_samples`, each sample alike."""
    if not per_problem:
        return None
    sizes = np.array([len(x) for x in per_problem])
    weights = sizes if by_samples else None
    return clustered([x.mean() for x in per_problem], sizes, weights=weights, level=level)


def _facts(found: Interval) -> Mapping[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high, "problems": found.problems}
