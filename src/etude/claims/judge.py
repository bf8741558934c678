"""From the facts of a claim's runs to its result: gates first, then one verdict at equal updates and one at equal FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from etude.claims import AXES
from etude.claims.curves import Facts, ends, table_at, with_start
from etude.claims.gates import Gate, before_training, gates, of_base, of_steps
from etude.claims.settings import POINTS, Claim
from etude.claims.verdict import NO_TEST, OPEN, Difference, guarded, label, paired


def judged(
    claim: Claim, arm: Sequence[Facts], base: Sequence[Facts], able: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The result of a claim, as claims.json holds it: gates, and per axis a label with its difference. `arm`, `base`: facts
    seed by seed; `able`: what `bed.abilities` found of the model before training."""
    start = base[0]
    arm, base = with_start(arm, start), with_start(base, start)
    checked = gates(claim, arm, base, able or {})
    updates = [float(claim.updates)] * len(arm)
    # Where both curves reach: a dear arm meets a base that was trained on, a cheap one a base that had not come so far.
    flops = [min(a, b) for a, b in zip(ends(arm, "flops"), ends(base, "flops"), strict=True)]
    axes = (("updates", "step", updates), ("flops", "flops", flops))
    by_axis = {name: of_steps(claim, arm, base, axis, at) for name, axis, at in axes}
    result: dict[str, Any] = {
        "seeds": len(arm),
        "problems": len(arm[0]["curve"][-1]["per_problem"]),
        "samples": arm[0]["curve"][-1]["per_problem"][0][2],
        "gates": [g.to_dict() for g in (*checked, *by_axis["updates"])],
        "means": {side: means(claim, runs) for side, runs in (("arm", arm), ("base", base))},
    }
    for name, axis, at in axes:
        shut = [g for g in (*checked, *by_axis[name]) if not g.passed]
        result[name] = on_axis(claim, arm, base, axis, at, shut)
    result["flops"]["at"] = float(np.mean(flops))
    return result


def refused(
    claim: Claim, able: Mapping[str, float], base: Sequence[Facts] | None = None
) -> dict[str, Any] | None:
    """The result of a claim whose arm need not be run, since the untrained model cannot do what the method lives on, or
    since the gates about the base's runs, if they are given, are shut; else None."""
    checked = before_training(claim, able)
    if base is not None:
        checked = of_base(claim, with_start(base, base[0])) + checked
    shut = [g for g in checked if not g.passed]
    if not shut:
        return None
    none = {"label": NO_TEST, "why": "; ".join(g.sentence for g in shut)}
    return {"seeds": len(base or ()), "gates": [g.to_dict() for g in checked], **dict.fromkeys(AXES, none)}


def on_axis(
    claim: Claim,
    arm: Sequence[Facts],
    base: Sequence[Facts],
    axis: str,
    at: Sequence[float],
    shut: Sequence[Gate],
) -> dict[str, Any]:
    """One verdict. Where a gate is shut the difference is not told: it would be read as one."""
    if shut:
        return {"label": NO_TEST, "why": "; ".join(g.sentence for g in shut)}
    found = difference(claim.metric, arm, base, axis, at)
    if found is None:
        return {"label": NO_TEST, "why": f"{claim.metric} could not be measured there"}
    said, guard = label(found, claim.least, claim.better), None
    if claim.guard and (guard := difference(claim.guard, arm, base, axis, at)):
        said = guarded(said, guard, claim.guard_margin)
    elif claim.guard:
        said = NO_TEST
    return {"label": said, **found.to_dict(), "guard": guard.to_dict() if guard else None}


def difference(
    metric: str, arm: Sequence[Facts], base: Sequence[Facts], axis: str, at: Sequence[float]
) -> Difference | None:
    """arm - base, in points where the metric is counted per problem, in its own units otherwise. None where it was not
    measured."""
    x, y = (table_at(runs, metric, axis, at) for runs in (arm, base))
    if x.ndim == 2:
        known = ~(np.isnan(x).any(0) | np.isnan(y).any(0))
        if known.sum() < 2:
            return None
        x, y = x[:, known], y[:, known]
    elif np.isnan(x).any() or np.isnan(y).any():
        return None
    return paired(x, y).scaled(100 if metric in POINTS else 1)


def means(claim: Claim, runs: Sequence[Facts]) -> dict[str, float]:
    """Of one arm at N updates, over the seeds: accuracy before and after in percent, FLOPs, seconds, tokens trained on and
    the claim's own metric."""
    n = len(runs)
    at = [float(claim.updates)] * n
    accuracy = {
        name: 100 * float(np.nanmean(table_at(runs, "accuracy", "step", x)))
        for name, x in (("start", [0.0] * n), ("accuracy", at))
    }
    spent = {
        name: float(np.mean([np.interp(claim.updates, _of(r, "step"), _of(r, name)) for r in runs]))
        for name in ("flops", "seconds")
    }
    tokens = [r["columns"].get("tokens/trained", [])[: claim.updates] for r in runs]
    own = {"trained": float(np.mean([t[-1] for t in tokens]))} if all(tokens) else {}
    if claim.metric != "accuracy":
        value = table_at(runs, claim.metric, "step", at)
        if np.isfinite(value).any():
            own[claim.metric] = float(np.nanmean(value)) * (100 if claim.metric in POINTS else 1)
    return {**accuracy, **spent, **own, "rss_mb": float(max(r.get("rss_mb", 0.0) for r in runs))}


def _of(run: Facts, name: str) -> list[float]:
    return [float(p[name]) for p in run["curve"]]


def unresolved(result: dict[str, Any]) -> bool:
    """Whether more seeds are called for."""
    return any(result[name]["label"] == OPEN for name in AXES)
