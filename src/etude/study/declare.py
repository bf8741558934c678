"""A study is a finding that can be tested again: arms, what is measured of them, hypotheses with the contrast that decides
each, and settings that are fixed before anything runs.

STUDY = Study(
    name="my_study",
    arms=(Arm("untrained"), Arm("grpo", (Training("grpo"),))),
    measures=(Measure("accuracy", "points", "right at a single attempt", attempts),),
    hypotheses=(Hypothesis("gains", "GRPO gains", more("grpo", "accuracy", than="untrained"), least=3),),
    ...
)

A measure is a function of a `Subject` (a trained model with problems to examine it on). It gives a table {problem: value},
which is compared problem by problem, or one number a seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.recipe import Paper
from etude.types import Task

if TYPE_CHECKING:
    from etude.study.subject import Making, Subject

Measured = Mapping[str, "Mapping[str, float] | float"]
HIGHER, LOWER, SAME = "higher", "lower", "same"
"""What a hypothesis says of its contrast: that it lies above 0, below 0, or nearer to 0 than the smallest effect that counts."""
POINTS = "points"
"""The unit of shares of problems: a table holds numbers in [0, 1], and a difference is told times 100."""

NEEDS: Mapping[str, tuple[str, Callable[[Sequence[Task]], bool]]] = {
    "answers": ("a gold answer", lambda tasks: all(t.answer is not None for t in tasks)),
    "solutions": ("a worked solution", lambda tasks: all(t.reference for t in tasks)),
    "hints": ("hints", lambda tasks: all(t.hints for t in tasks)),
    "steps": (
        "solutions in checked lines, as the laboratory's have",
        lambda tasks: all("steps" in t.meta for t in tasks),
    ),
    "levels": ("several levels of difficulty", lambda tasks: len({t.difficulty for t in tasks}) > 1),
}
"""What a study may need of every task: {name: (in words, whether a sample of tasks has it)}."""


@dataclass(frozen=True)
class Training:
    """One run. `tasks`, `changes` and `rewards` may name what the study's material made, as "@FILE"."""

    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    tasks: str = ""  # "": those of the study
    share: float = 1.0  # of the study's budget
    rewards: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """A model that is measured: the study's own, or `start` ("@FOLDER" of the material, or a model's name), after `training`,
    one run after the other. `given`: what measures read of the arm."""

    name: str
    training: tuple[Training, ...] = ()
    start: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""
    measures: tuple[str, ...] = ()  # empty: all


@dataclass(frozen=True)
class Measure:
    """`by` is called once for all measures that it gives. `unit`: `POINTS` of shares, else the unit of the numbers."""

    name: str
    unit: str
    says: str
    by: Callable[[Subject], Measured]


Term = tuple[float, str, str]  # weight, arm, measure


def more(arm: str, measure: str, than: str, measured: str = "") -> tuple[Term, ...]:
    """`measure` of an arm less that of another (or less `measured` of it)."""
    return (1.0, arm, measure), (-1.0, than, measured or measure)


def further(gain: tuple[Term, ...], than: tuple[Term, ...]) -> tuple[Term, ...]:
    """One difference less another."""
    return (*gain, *((-weight, arm, measure) for weight, arm, measure in than))


@dataclass(frozen=True)
class Required:
    """What must be true before a hypothesis has a verdict: a sum of terms lies within bounds, in the measures' units."""

    says: str
    contrast: tuple[Term, ...]
    at_least: float = float("-inf")
    at_most: float = float("inf")


@dataclass(frozen=True)
class Hypothesis:
    """`contrast`: the weighted sum of measures that decides it. `least`: the smallest effect that counts."""

    name: str
    says: str
    contrast: tuple[Term, ...]
    least: float
    better: str = HIGHER
    requires: tuple[Required, ...] = ()


@dataclass(frozen=True)
class Defaults:
    """The settings with which a study is recorded. `model` "": nothing is asked of a model."""

    model: str = "lab"
    tasks: str = "lab:kind=sum+sort+reverse+order,level=1,feedback=full"
    budget: str = "24-steps"
    seeds: int = 3
    problems: int = 200
    samples: int = 4
    changes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    name: str
    paper: Paper
    question: str  # in one sentence
    arms: tuple[Arm, ...]
    measures: tuple[Measure, ...]
    hypotheses: tuple[Hypothesis, ...]
    defaults: Defaults = field(default_factory=Defaults)
    needs: tuple[str, ...] = ()
    material: Callable[[Making], None] | None = None  # makes files and models once, before any arm
    departures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        arms, measures = {a.name: a for a in self.arms}, {m.name: m for m in self.measures}
        if len(arms) < len(self.arms) or len(measures) < len(self.measures):
            raise TypeError(f"study {self.name}: two arms or two measures have one name")
        if unknown := set(self.needs) - set(NEEDS):
            raise TypeError(f"study {self.name} needs '{unknown.pop()}', which is none of {', '.join(NEEDS)}")
        for hypothesis in self.hypotheses:
            if not hypothesis.least > 0 or hypothesis.better not in (HIGHER, LOWER, SAME):
                raise TypeError(
                    f"study {self.name}, {hypothesis.name}: least is above 0, better is higher, lower or same"
                )
            for contrast in (hypothesis.contrast, *(r.contrast for r in hypothesis.requires)):
                units = set()
                for _, arm, measure in contrast:
                    if arm not in arms or measure not in measures:
                        raise TypeError(
                            f"study {self.name}, {hypothesis.name}: there is no {measure} of {arm}"
                        )
                    if arms[arm].measures and measure not in arms[arm].measures:
                        raise TypeError(
                            f"study {self.name}, {hypothesis.name}: {measure} of {arm} is not measured"
                        )
                    units.add(measures[measure].unit)
                if len(units) != 1:
                    raise TypeError(f"study {self.name}, {hypothesis.name}: its terms have several units")

    def arm(self, name: str) -> Arm:
        return next(a for a in self.arms if a.name == name)

    def measure(self, name: str) -> Measure:
        return next(m for m in self.measures if m.name == name)

    def measured_of(self, arm: Arm) -> list[Measure]:
        """Only what a hypothesis or the page can use of this arm."""
        return [m for m in self.measures if not arm.measures or m.name in arm.measures]

    @property
    def digest(self) -> str:
        """Changes with everything that was fixed beforehand, but not with the code of measures."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        arms = [
            [
                a.name,
                a.start,
                _plain(a.given),
                [[t.recipe, _plain(t.changes), t.tasks, t.share, t.rewards] for t in a.training],
            ]
            for a in self.arms
        ]
        hypotheses = [
            [
                h.name,
                h.says,
                h.contrast,
                h.least,
                h.better,
                [[r.says, r.contrast, str(r.at_least), str(r.at_most)] for r in h.requires],
            ]
            for h in self.hypotheses
        ]
        defaults = {**vars(self.defaults), "changes": dict(self.defaults.changes)}
        return {"arms": arms, "hypotheses": hypotheses, "defaults": defaults}


def _plain(given: Mapping[str, Any]) -> dict[str, str]:
    return {k: str(v) for k, v in given.items()}
