"""Claims as they stand in a settings file, fixed before anything is run."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from etude.claims.material import source
from etude.compare.arms import parse_arms
from etude.errors import UserError, nearest
from etude.files import read_text
from etude.methods import catalogue, find, outside
from etude.train.config import Budget, Plan

SETTINGS = Path(__file__).with_name("claims.toml")
POINTS = ("accuracy", "pass@8", "hardest", "last", "gain", "elsewhere")  # counted per problem, in points
SCALARS = ("entropy", "length", "grad_norm_cv", "wasted", "repeated", "predicted")  # one number a seed
METRICS = (*POINTS, *SCALARS)
GATES = {
    "gain": "points that the base gains from the untrained model to update N",
    "loses": "points that the base loses, where the claim is that less is lost",
    "mixed": "% of the base's groups whose attempts differ",
    "unsolved": "% of the base's groups without a right attempt",
    "steps": "% of right answers whose steps are right, in both arms",
    "feedback_chat": "points that feedback in the conversation adds to a second attempt, over a plain retry, before training",
    "feedback_prompt": "points that feedback and answer in a prompt of their own add to a second attempt, over a plain retry, before training",
    "reflect": "points that a reflection of its own adds to a second attempt, over a plain retry, before training",
    "hint": "points that a hint adds to an attempt, before training",
    "critique": "% of critiques that name the first wrong line, before training",
    "improve": "% of wrong answers that are right after a request to improve them, before training",
    "revise": "% of revisions that go where they are asked to, before training",
    "write": "% of written problems that are well posed, before training",
}
ABILITIES: Mapping[str, tuple[str, str]] = {  # gate: (protocol of lab.abilities, what it is compared with)
    "feedback_chat": ("feedback_chat", "retry_plain"),
    "feedback_prompt": ("feedback_prompt", "retry_plain"),
    "reflect": ("reflect", "retry_plain"),
    "hint": ("hint", "plain"),
    "critique": ("critique", ""),
    "improve": ("improve", ""),
    "revise": ("revise", ""),
    "write": ("write", ""),
}


@dataclass(frozen=True)
class Claim:
    """One entry of the settings, with what is common to its group filled in. The group is named after its bed."""

    recipe: str
    on: str
    says: str
    model: str = ""
    tasks: str = ""
    updates: int = 0  # N
    base_updates: int = 3  # times N that the base is trained for, so that it meets the FLOPs of dearer arms
    base_samples: int = 8  # attempts per problem where a base that goes on is examined on the way
    seeds: int = 5
    more_seeds: int = 8  # where five do not resolve it
    changes: Mapping[str, str] = field(default_factory=dict)  # of all runs of the group
    gates: Mapping[str, float] = field(default_factory=dict)  # 0: this gate does not apply
    arm: str = ""
    base: str = ""
    metric: str = "accuracy"
    better: str = "higher"
    least: float = 2.0
    guard: str = ""  # a metric that may not be lower ...
    guard_margin: float = 2.0  # ... by this much
    learner: str = "base"  # who must gain: "base", or "either" where the claim is that the base does not
    elsewhere: str = ""  # other tasks, of the metric "elsewhere"
    exam: str = ""  # whose rollout makes the attempts of "last" and "gain"; default: the arm's
    untested: str = ""  # why this claim cannot be tested here
    called: str = ""  # what the command line calls it by, where that is not the recipe's name

    def __post_init__(self) -> None:
        where = f"claim {self.on}.{self.recipe}"
        for name, value, known in (
            ("metric", self.metric, METRICS),
            ("guard", self.guard or "accuracy", METRICS),
            ("better", self.better, ("higher", "lower")),
            ("learner", self.learner, ("base", "either")),
            *(("gate", gate, tuple(GATES)) for gate in self.gates),
        ):
            if value not in known:
                raise UserError(f"{where}: there is no {name} '{value}'{nearest(value, known)}")
        if self.untested:
            return
        if missing := [n for n in ("model", "tasks", "updates", "arm", "base") if not getattr(self, n)]:
            raise UserError(f"{where} lacks {', '.join(missing)}")
        if not (self.least > 0 and 2 <= self.seeds <= self.more_seeds and self.base_updates >= 1):
            raise UserError(
                f"{where}: least must be above 0, seeds at least 2 and at most more_seeds, base_updates at least 1"
            )

    @property
    def digest(self) -> str:
        """Changes with every setting that the result depends on, so that a result cannot outlive them."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def topic(self) -> str:
        """The family: the topic of the method's file; "" outside the package."""
        known = catalogue().get(self.recipe)
        return known.topic if known else ""

    def plan(self, arm: str, seed: int) -> Plan:
        """The run of one of the two arms. The base goes on to `base_updates` times N, and is examined more closely on the
        way, by `base_samples` attempts, since every arm is compared with it at N and at its own FLOPs."""
        (one,) = parse_arms([arm])
        longer = self.base_updates if arm == self.base else 1
        shared = {"run.evals": "5", **self.changes}
        if "pass@8" in (self.metric, self.guard):
            shared.pop("run.curve_samples", None)
        elif longer > 1:
            shared["run.curve_samples"] = str(self.base_samples)
        changes = {**shared, **one.changes}
        return Plan(
            one.recipe, self.model, source(self.tasks), Budget(longer * self.updates, "steps"), seed, changes
        )


def beds(path: Path = SETTINGS) -> dict[str, dict[str, Any]]:
    """{bed: its settings as the file has them}. UserError for what cannot be read."""
    try:
        groups = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as claims: {error}") from None
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise UserError(f"'{path}': '{name}' stands outside a bed; claims stand in [BED.claim.RECIPE]")
    return groups


def load(path: Path = SETTINGS) -> list[Claim]:
    """All claims of a file, in its order. UserError for what cannot be read, and for settings, metrics and gates that do
    not exist."""
    known = {f.name for f in fields(Claim)}
    found = []
    for name, group in beds(path).items():
        for recipe, own in group.get("claim", {}).items():
            given = _joined(name, group, own)
            if unknown := sorted(given.keys() - known):
                raise UserError(
                    f"'{path}': {name}.{recipe} has no setting '{unknown[0]}'{nearest(unknown[0], known)}"
                )
            if "says" not in given:
                raise UserError(f"'{path}': {name}.{recipe} lacks says, the claim in one sentence")
            found.append(Claim(recipe, **given))
    return found


def of_recipe(word: str, on: str, base: str, path: Path = SETTINGS) -> Claim:
    """A claim about a method that has none of its own (`./my_method.py`, `pkg.module:RECIPE`): that it ends above `base`
    with the settings of the bed. UserError for a bed that does not exist."""
    known = beds(path)
    if on not in known:
        raise UserError(f"there is no bed '{on}'{nearest(on, known)}")
    recipe, place = find(word), outside.absolute(word)
    arm = f"{base}+{place}" if recipe.default_base else place
    given = _joined(on, known[on], {"arm": arm, "base": base, "called": word})
    return Claim(recipe.name, says=recipe.claim or f"It ends above {base}.", **given)


def _joined(name: str, group: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    common = {k: v for k, v in group.items() if k != "claim"}
    both = {k: {**group.get(k, {}), **own.get(k, {})} for k in ("changes", "gates")}
    return {"on": name, **common, **own, **both}
