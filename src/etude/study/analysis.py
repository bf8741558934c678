"""From measured tables to verdicts, with the statistics of comparisons (`compare.variance`) and the labels of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from etude.claims.gates import Gate
from etude.claims.verdict import HELD, LEVEL, NO_TEST, NOT_HELD, OPEN, POWER, Difference, label
from etude.compare.variance import Contrast, contrast, holm
from etude.study.declare import POINTS, SAME, Hypothesis, Study, Term
from etude.types import Array

Facts = Mapping[str, Sequence[Mapping[str, Any]]]  # {arm: facts, seed by seed}


def judged(study: Study, facts: Facts) -> list[dict[str, Any]]:
    """One result for every hypothesis: its requirements, its difference with 95 % interval, and its label. p-values are
    adjusted by Holm over the study's hypotheses that were tested."""
    results = [_hypothesis(study, hypothesis, facts) for hypothesis in study.hypotheses]
    tested = [r for r in results if "p" in r]
    for result, adjusted in zip(tested, holm([r["p"] for r in tested]) if tested else (), strict=True):
        result["p_holm"] = float(adjusted)
    return results


def _hypothesis(study: Study, hypothesis: Hypothesis, facts: Facts) -> dict[str, Any]:
    unit = study.measure(hypothesis.contrast[0][2]).unit
    about: dict[str, Any] = {
        "name": hypothesis.name,
        "says": hypothesis.says,
        "unit": unit,
        "least": hypothesis.least,
        "better": hypothesis.better,
    }
    gates = []
    for required in hypothesis.requires:
        scale = _scale(study, required.contrast)
        try:
            found: float | None = scale * effect(blocks_of(study, required.contrast, facts)[0])
        except ValueError:
            found = None
        gates.append(Gate(hypothesis.name, required.says, found, required.at_least, required.at_most))
    about["requires"] = [g.to_dict() for g in gates]
    if shut := [g.sentence for g in gates if not g.passed]:
        return {**about, "label": NO_TEST, "why": "; ".join(shut)}
    try:
        blocks, fixed = blocks_of(study, hypothesis.contrast, facts)
        difference, p = of_blocks(blocks, fixed)
    except ValueError as error:
        return {**about, "label": NO_TEST, "why": str(error)}
    difference = difference.scaled(_scale(study, hypothesis.contrast))
    least = hypothesis.least
    said = (
        same(difference, least) if hypothesis.better == SAME else label(difference, least, hypothesis.better)
    )
    return {**about, "label": said, **difference.to_dict(), "p": p}


def same(found: Difference, least: float) -> str:
    """The label of a claim that there is no difference: held where the whole interval is smaller than what counts, not held
    where the interval leaves out zero and the effect counts."""
    if -least < found.low and found.high < least:
        return HELD
    apart = found.low > 0 or found.high < 0
    return NOT_HELD if apart and abs(found.effect) >= least else OPEN


def _scale(study: Study, terms: Sequence[Term]) -> float:
    return 100.0 if study.measure(terms[0][2]).unit == POINTS else 1.0


def blocks_of(study: Study, terms: Sequence[Term], facts: Facts) -> tuple[list[Array], bool]:
    """The weighted sum of tables as arrays: float[S, P] for terms that share problems, one array for each set of problems
    that has none in common with the others; float[S] of numbers. And whether no arm was trained: the rows are then repeated
    looks at the same models. ValueError where something was not measured."""
    found: list[tuple[float, list[Any]]] = []
    for weight, arm, measure in terms:
        rows = [f["measured"].get(measure) for f in facts[arm]]
        if not rows or any(row is None or row == {} for row in rows):
            raise ValueError(f"{measure} of {arm} could not be measured")
        found.append((weight, rows))
    if not isinstance(found[0][1][0], Mapping):
        total = sum(weight * np.array(rows, float) for weight, rows in found)
        return [np.asarray(total)], False
    groups: list[tuple[set[str], list[tuple[float, list[Any]]]]] = []
    for weight, rows in found:
        keys = set.intersection(*(set(row) for row in rows))
        for place, (known, members) in enumerate(groups):
            if known & keys:
                groups[place] = (known & keys, [*members, (weight, rows)])
                break
        else:
            groups.append((keys, [(weight, rows)]))
    blocks = []
    for keys, members in groups:
        if len(keys) < 2:
            raise ValueError("fewer than two problems were measured in all arms")
        ordered = sorted(keys)
        blocks.append(
            np.asarray(sum(w * np.array([[row[k] for k in ordered] for row in rows]) for w, rows in members))
        )
    return blocks, not any(study.arm(arm).training for _, arm, _ in terms)


def effect(blocks: Sequence[Array]) -> float:
    return float(sum(block.mean() for block in blocks))


def of_blocks(blocks: Sequence[Array], fixed: bool) -> tuple[Difference, float]:
    """The difference with its 95 % interval, and the two-sided p-value of no difference. Tables: `compare.variance.contrast`
    of each block against nothing; the spread between seeds is that of the blocks' sum, the doubts about problems add up.
    Numbers: Student's t over the seeds. ValueError for a single seed where seeds decide."""
    if blocks[0].ndim == 1:
        values = blocks[0]
        if len(values) < 2:
            raise ValueError("the spread between seeds needs two seeds at least")
        error, degrees = float(values.std(ddof=1)) / len(values) ** 0.5, float(len(values) - 1)
        return _difference(float(values.mean()), error, degrees)
    parts = [contrast(b, np.zeros((1, b.shape[1])), fixed=(fixed, True)) for b in blocks]
    seeds: tuple[Array, ...] = ()
    if not fixed:
        rows = np.sum([b.mean(1) for b in blocks], 0)
        seeds = (np.asarray(rows.var(ddof=1) / len(rows)),)
    problems = np.asarray(sum(c.problems for c in parts))
    whole = Contrast(
        np.asarray(effect(blocks)),
        seeds,
        (len(blocks[0]),) * len(seeds),
        problems,
        min(c.size for c in parts),
    )
    return _difference(float(whole.effect), float(whole.error), float(whole.degrees))


def _difference(found: float, error: float, degrees: float) -> tuple[Difference, float]:
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    visible = reach + error * float(stats.t.ppf(POWER, degrees))
    p = float(2 * stats.t.sf(abs(found) / error, degrees)) if error > 0 else float(found == 0)
    return Difference(found, found - reach, found + reach, visible), p


def means(study: Study, facts: Facts) -> dict[str, dict[str, float]]:
    """{arm: {measure: mean over problems and seeds}}, in the measures' units."""
    found: dict[str, dict[str, float]] = {}
    for arm in study.arms:
        for measure in study.measured_of(arm):
            rows = [f["measured"].get(measure.name) for f in facts.get(arm.name, ())]
            values = [mean_of(row) for row in rows if row is not None and row != {}]
            if values:
                scale = 100.0 if measure.unit == POINTS else 1.0
                found.setdefault(arm.name, {})[measure.name] = scale * float(np.mean(values))
    return found


def mean_of(row: Any) -> float:
    return float(np.mean(list(row.values()))) if isinstance(row, Mapping) else float(row)
