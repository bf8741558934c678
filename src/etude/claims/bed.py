"""What the untrained model of a bed can do, where a claim lives on it. Known before anything is trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from etude.claims.material import source
from etude.claims.settings import ABILITIES, Claim
from etude.files import read_json, write_atomically
from etude.train.measure import load_policy

PROBLEMS = 200


def abilities(claim: Claim, out: Path) -> dict[str, float]:
    """{gate: percent, or points over what it is compared with} of the gates that a claim has about its model before
    training, measured on its tasks and kept in `out`."""
    asked = [name for name in ABILITIES if claim.gates.get(name)]
    if not asked:
        return {}
    wanted = sorted({part for name in asked for part in ABILITIES[name] if part})
    about = json.dumps([claim.model, claim.tasks, dict(claim.changes), wanted], sort_keys=True)
    place = out / "abilities" / f"{hashlib.blake2b(about.encode(), digest_size=6).hexdigest()}.json"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(_shares(claim, wanted)))
    shares = read_json(place)
    pairs = {name: ABILITIES[name] for name in asked}
    return {name: shares[able] - (shares[over] if over else 0.0) for name, (able, over) in pairs.items()}


def _shares(claim: Claim, wanted: list[str]) -> dict[str, float]:
    """Percent of the cases to which a protocol applies, as `lab.abilities` plays it."""
    from etude.lab.abilities import measure

    longest = int(claim.changes.get("run.max_tokens", 96))
    found = measure(load_policy(claim.model), source(claim.tasks), PROBLEMS, only=wanted, max_tokens=longest)
    return {name: 100 * right / max(1, number) for name, (right, number) in found.items()}
