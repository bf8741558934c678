"""Gates: what must be true of the runs before a verdict means anything. Each says what it found and what was asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from etude.claims.curves import Facts, table_at
from etude.claims.settings import ABILITIES, GATES, POINTS, Claim
from etude.compare.arms import parse_arms
from etude.methods import find
from etude.recipe import Manipulated


@dataclass(frozen=True)
class Gate:
    """`found` and `asked` in the units of what is named; `found` None: it could not be read, and the gate is shut."""

    name: str
    says: str
    found: float | None
    at_least: float = -inf
    at_most: float = inf

    @property
    def passed(self) -> bool:
        return self.found is not None and self.at_least <= self.found <= self.at_most

    @property
    def sentence(self) -> str:
        """`the base gains 3.1 points; at least 10 were asked for`."""
        bounds = [f"at least {self.at_least:g}"] if self.at_least > -inf else []
        bounds += [f"at most {self.at_most:g}"] if self.at_most < inf else []
        found = "not measured" if self.found is None else f"{self.found:.3g}"
        return f"{self.says}: {found} ({' and '.join(bounds)} asked for)"

    def to_dict(self) -> dict[str, Any]:
        return {"gate": self.name, "passed": self.passed, "sentence": self.sentence}


def gates(claim: Claim, arm: Sequence[Facts], base: Sequence[Facts], able: Mapping[str, float]) -> list[Gate]:
    """All gates of a claim that hold for both axes (`of_steps` is read on each). `arm`, `base`: the facts of their runs, seed by seed, curves from the untrained model on;
    `able`: what `bed.abilities` found."""
    found = of_base(claim, base)
    bound = claim.gates.get("gain", 0)
    if bound > 0 and claim.learner == "either":
        gains = max(gain(claim, runs) for runs in (base, arm))
        found.insert(0, Gate("gain", "points that the better arm gains", gains, bound))
    found += before_training(claim, able)
    (one,) = parse_arms([claim.arm])
    for wanted in find(one.recipe).manipulation:
        reading = manipulated(wanted, claim, arm, base)
        found.append(Gate("manipulation", wanted.says, reading, wanted.at_least, wanted.at_most))
    return found


def of_base(claim: Claim, base: Sequence[Facts]) -> list[Gate]:
    """The gates that the base's runs decide alone."""
    asked = {name: bound for name, bound in claim.gates.items() if bound > 0}
    found = []
    if claim.learner == "base" and (bound := asked.get("gain")):
        found.append(Gate("gain", "points that the base gains", gain(claim, base), bound))
    if bound := asked.get("loses"):
        found.append(Gate("loses", "points that the base loses", -gain(claim, base), bound))
    for name, column, what in (
        ("mixed", "signal", "% of the base's groups that are mixed"),
        ("unsolved", "unsolved", "% of the base's groups without a right attempt"),
    ):
        if bound := asked.get(name):
            found.append(Gate(name, what, _share(claim, base, column), bound))
    return found


def before_training(claim: Claim, able: Mapping[str, float]) -> list[Gate]:
    """The gates about the untrained model."""
    bounds = {name: claim.gates[name] for name in ABILITIES if claim.gates.get(name)}
    return [Gate(name, GATES[name], able.get(name), bound) for name, bound in bounds.items()]


def gain(claim: Claim, runs: Sequence[Facts]) -> float:
    """Points from the untrained model to the last common update, in the claim's own metric where that is a rate of
    success at single attempts, else in accuracy."""
    metric = claim.metric if claim.metric in POINTS and claim.metric not in ("gain", "last") else "accuracy"
    ups = [claim.updates] * len(runs)
    after, before = (table_at(runs, metric, "step", at) for at in (ups, [0] * len(runs)))
    return 100 * float(np.nanmean(after) - np.nanmean(before))


def manipulated(
    wanted: Manipulated, claim: Claim, arm: Sequence[Facts], base: Sequence[Facts]
) -> float | None:
    """The reading of a manipulation check, averaged over the seeds; None where no run wrote the metric."""
    mine, other = (
        [reading(wanted, run, claim.updates) for run in runs]
        for runs in (arm, base if wanted.against_base else ())
    )
    if any(r is None for r in [*mine, *other]):
        return None
    taken = float(np.mean([r for r in other if r is not None])) if other else 0.0
    return float(np.mean([r for r in mine if r is not None])) - taken


def reading(wanted: Manipulated, run: Facts, updates: int) -> float | None:
    """One run's: over its steps until `updates`, of the metric that is largest where several match."""
    found = []
    for name, column in run["columns"].items():
        values = [v for v in column[:updates] if v is not None]
        if re.fullmatch(wanted.metric, name) and values:
            found.append(READ[wanted.read](values))
    return max(found) if found else None


READ = {
    "mean": lambda v: float(np.mean(v)),
    "max": lambda v: float(np.max(v)),
    "last": lambda v: float(v[-1]),
    "range": lambda v: float(np.ptp(v)),
}


def _share(claim: Claim, runs: Sequence[Facts], column: str) -> float | None:
    """Percent of groups over the first N updates, each step weighed by the groups that it drew."""
    found = []
    for run in runs:
        values, groups = (run["columns"].get(n, [])[: claim.updates] for n in (column, "groups"))
        if values:
            found.append(100 * float(np.average(values, weights=groups)))
    return float(np.mean(found)) if found else None


def of_steps(
    claim: Claim, arm: Sequence[Facts], base: Sequence[Facts], axis: str, at: Sequence[float]
) -> list[Gate]:
    """The gate about answers that are right by luck, where the two are compared: the arm or the base, whichever has fewer whose
    steps are right. A base is trained on beyond that point for the other axis, and may drift there. Tasks without steps have
    nothing to be right."""
    bound = claim.gates.get("steps", 0)
    if bound <= 0 or any(p.get("steps_right") is None for run in (*arm, *base) for p in run["curve"]):
        return []
    shares = [100 * float(np.mean(table_at(runs, "steps_right", axis, at))) for runs in (arm, base)]
    return [Gate("steps", "% of right answers whose steps are right", min(shares), bound)]
