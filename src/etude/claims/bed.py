"""What the untrained model of a bed can do, where a claim lives on it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from etude.claims.material import source
from etude.claims.settings import ABILITIES, Claim
from etude.train.measure import load_policy

PROBLEMS = 400


def abilities(claim: Claim) -> dict[str, float]:
    """{gate: percent, or points over what it is compared with} of the gates that a claim has about its model before
    training, measured on its tasks."""
    asked = tuple(name for name in ABILITIES if claim.gates.get(name))
    if not asked:
        return {}
    shares = _shares(claim.model, source(claim.tasks), asked)
    return {
        name: shares[ability] - (shares[over] if over else 0.0)
        for name, (ability, over) in ((n, ABILITIES[n]) for n in asked)
    }


@cache
def _shares(model: str, tasks: str, asked: tuple[str, ...]) -> Mapping[str, float]:
    """Percent of the cases to which a protocol applies, as `lab.abilities` plays it."""
    from etude.lab.abilities import measure

    wanted = {part for name in asked for part in ABILITIES[name] if part}
    found = measure(load_policy(model), tasks, PROBLEMS, only=sorted(wanted))
    return {name: 100 * right / max(1, number) for name, (right, number) in found.items()}
