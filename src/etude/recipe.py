"""A recipe: one value per stage of the loop, plus where the idea comes from.

A recipe replaces one or more stages of a base and nothing else, so recipes compose (`grpo+sec`) as long as
they replace different stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from etude.errors import UserError, nearest
from etude.settings import Stage

STAGES = {
    "curriculum": "which tasks come next, and how many attempts at each",
    "rollout": "how one episode is played: async (task, player) -> Episode",
    "group_rollout": "how the episodes of one task are collected: async (table) -> list[Episode]",
    "reward": "what an episode is worth: (episode) -> {name: number}",
    "filter": "which groups are trained on: (groups, context) -> list[Group]",
    "credit": "what each token is to be blamed or praised for: (groups, context) -> list[Signal]",
    "objective": "the loss: terms over a batch",
    "update": "how the optimiser steps",
}

NEEDS = {
    "reference": "a worked solution of every task (`reference`)",
    "hints": "hints for every task (`hints`)",
    "feedback": "feedback from the checker (a task parameter: feedback=hint or full)",
    "steps": "step boundaries in the answers (`meta.steps`)",
    "teacher": "a second model (--set run.teacher=NAME)",
    "text": "tasks that are answered in words, not played as a world",
    "answer": "a gold answer for every task (`answer`)",
}


@dataclass(frozen=True)
class Paper:
    title: str
    arxiv: str = ""
    year: int = 0

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""


@dataclass(frozen=True)
class ByHand:
    """A number worked by hand: `compute()` must give `equals` to within 1e-5."""

    says: str
    compute: Callable[[], Any]
    equals: Any


@dataclass(frozen=True)
class Reduction:
    """With `settings`, the gradient equals `scale` times that of recipe `to` with `to_settings`."""

    says: str
    to: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    to_settings: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0


@dataclass(frozen=True)
class OffPolicy:
    """The recipe's assembled objective on sampled tokens whose probability has changed since they were sampled, worked
    by hand. `ratio`, `advantage`, `gradient` and the rows are one number a token; `lengths` cuts the tokens into
    episodes of one group each (default: a single episode). `loss` is the whole objective, divided as a step divides
    it; `gradient` is d loss / d log pi of each token. Rows that are not named: {"policy": 1} and no extras."""

    says: str
    ratio: Sequence[float]  # pi_theta / pi_old of each token; pi_old = exp(-1)
    advantage: Sequence[float]
    loss: float
    gradient: Sequence[float]
    lengths: Sequence[int] | None = None
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)
    extras: Mapping[str, Sequence[float]] = field(default_factory=dict)
    entropy: Sequence[float] | None = None  # of each token's distribution, nats
    heads: Mapping[str, Sequence[float]] = field(default_factory=dict)  # outputs of one-dimensional heads
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Credited:
    """The advantages that the recipe's assembled credit gives to attempts of one token each, worked by hand: `rewards`
    and `advantages` are one list a group. A reward above 0 counts as right."""

    says: str
    rewards: Sequence[Sequence[float]]
    advantages: Sequence[Sequence[float]]
    settings: Mapping[str, Any] = field(default_factory=dict)


Row = ByHand | Reduction | OffPolicy | Credited


@dataclass(frozen=True)
class Manipulated:
    """What a run must show before its outcome says anything about the method: that the method did what it is for.
    `metric`: a regular expression for names of the run's step metrics (`metrics.jsonl`; what a stage reports is
    "stage.name"); of several that match, the one with the largest reading counts. `read`: "mean", "max" or "last" over
    the steps, or "range", the largest less the smallest. `against_base`: less the same reading of the baseline's run.
    Bounds are in the metric's own units."""

    says: str  # what must be seen, in words: "a tenth of the dead groups rescued"
    metric: str
    at_least: float = -inf
    at_most: float = inf
    read: str = "mean"
    against_base: bool = False

    def __post_init__(self) -> None:
        if self.read not in ("mean", "max", "last", "range"):
            raise TypeError(f"Manipulated.read is '{self.read}'; it must be mean, max, last or range")
        if self.at_least == -inf and self.at_most == inf:
            raise TypeError(f"Manipulated '{self.says}' has no bound; give at_least or at_most")


@dataclass(frozen=True)
class AuxiliaryModel:
    """A model beside the policy. `source`: "start" (the policy's weights when the run began, frozen), "teacher"
    (the user's second model), or "copy" (starts as the policy; a stage trains it by
    `context.auxiliary[name].learn(objective, signals, step, progress)`)."""

    source: str = "start"
    lr: float = 0.0  # of a trained copy, as a multiple of the policy's
    heads: Mapping[str, int] = field(default_factory=dict)  # linear outputs on a trained copy's trunk
    sampled: bool = False  # a trained copy that speaks as well (the others that are sampled are frozen)


STANDARD = {"reference": AuxiliaryModel("start"), "teacher": AuxiliaryModel("teacher")}
"""Companions that an objective may read without the recipe saying more about them."""


@dataclass(frozen=True)
class Recipe:
    name: str
    stages: Mapping[str, Stage]  # only those that this recipe replaces
    topic: str = ""  # the folder of its file; filled in where it is found
    paper: Paper | None = None
    published_lr: float | None = None  # the policy's learning rate in the paper's settings, where known
    idea: str = ""  # three sentences for a newcomer
    equation: str = ""
    departures: tuple[str, ...] = ()  # where this differs from the paper, and guesses made
    confidence: str = "source"  # of the description that it was built from: source | memory | guess
    base: Recipe | None = None
    default_base: Recipe | None = (
        None  # fills the other stages where this is trained by itself; gives way in a composition
    )
    needs: tuple[str, ...] = ()  # keys of NEEDS
    auxiliary: Mapping[str, AuxiliaryModel] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # settings of the run itself: {"group_size": 1}
    exam: Mapping[str, Any] = field(
        default_factory=dict
    )  # settings of its stages with which its rollout is examined
    claim: str = ""  # what should be seen at small scale, in one sentence
    manipulation: tuple[Manipulated, ...] = ()  # without these a claim about the method is not tested
    unchecked: str = ""  # where there are none: what makes sure, without them, that the method acts
    examples: tuple[Row, ...] = ()  # rows for the shared tests

    def __post_init__(self) -> None:
        unknown = set(self.stages) - set(STAGES)
        if unknown:
            raise TypeError(f"recipe {self.name}: unknown stage {unknown}")
        if self.base and self.base.default_base:
            raise TypeError(
                f"recipe {self.name}: a base has no recipe of its own to be trained with (`alone`)"
            )

    @property
    def replaces(self) -> tuple[str, ...]:
        """The stages that differ from the plain defaults, in the order of the loop."""
        own = set(self.stages) | (set(self.base.replaces) if self.base else set())
        return tuple(s for s in STAGES if s in own)

    def resolved(self) -> dict[str, Stage]:
        under = [r.resolved() for r in (self.default_base, self.base) if r]
        return {n: s for stages in (*under, self.stages) for n, s in stages.items()}

    def _gathered(self, name: str) -> dict[str, Any]:
        under = [r._gathered(name) for r in (self.default_base, self.base) if r]
        return {k: v for known in (*under, getattr(self, name)) for k, v in known.items()}

    @property
    def all_auxiliary(self) -> dict[str, AuxiliaryModel]:
        return self._gathered("auxiliary")

    @property
    def all_defaults(self) -> dict[str, Any]:
        return self._gathered("defaults")

    @property
    def all_exam(self) -> dict[str, Any]:
        """{"rollout.attempts": 5}: what differs where a trained policy is examined by the recipe's rollout, such as help
        that is not there any more."""
        return self._gathered("exam")

    @property
    def all_needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(self.base.all_needs if self.base else ()), *self.needs)))


def compose(recipes: Sequence[Recipe]) -> Recipe:
    """One recipe that replaces what each of `recipes` replaces. UserError where two replace the same stage."""
    if len(recipes) == 1:
        return recipes[0]
    beside = _beside(recipes)
    first, *rest = [replace(recipe, default_base=None) for recipe in recipes]
    joined = first
    owner = dict.fromkeys(first.replaces, first.name)
    for recipe in rest:
        for name in recipe.replaces:
            if name in owner:
                raise UserError(
                    f"{owner[name]} and {recipe.name} cannot be combined: both replace the stage '{name}'"
                )
            owner[name] = recipe.name
        clash = joined.all_defaults.keys() & recipe.all_defaults.keys()
        for key in clash:
            if joined.all_defaults[key] != recipe.all_defaults[key]:
                raise UserError(f"{joined.name} and {recipe.name} cannot be combined: both set run.{key}")
        joined = replace(
            joined,
            name=f"{joined.name}+{recipe.name}",
            stages={**joined.stages, **recipe.resolved()},
            needs=(*joined.all_needs, *recipe.all_needs),
            auxiliary={**joined.all_auxiliary, **recipe.all_auxiliary},
            defaults={**joined.all_defaults, **recipe.all_defaults},
            exam={**joined.all_exam, **recipe.all_exam},
            manipulation=(*joined.manipulation, *recipe.manipulation),
            unchecked="; ".join(dict.fromkeys(r.unchecked for r in (joined, recipe) if r.unchecked)),
        )
    return replace(joined, default_base=beside)


def _beside(recipes: Sequence[Recipe]) -> Recipe | None:
    """What fills the stages that nobody replaces: the `alone` of one of `recipes`, if all of its stages are free."""
    taken = {name for recipe in recipes for name in recipe.replaces}
    return next(
        (r.default_base for r in recipes if r.default_base and not taken & set(r.default_base.replaces)), None
    )


def override(recipe: Recipe, changes: Mapping[str, str], base: Mapping[str, Stage]) -> Recipe:
    """`{"credit.std": "false"}` applied to the recipe's stages. Unknown stages and settings are UserErrors."""
    stages = {**base, **recipe.resolved()}
    changed = dict(recipe.stages)
    for path, value in changes.items():
        name, _, setting = path.partition(".")
        if name not in stages or not setting:
            raise UserError(f"there is no stage '{name}' in '{path}'{nearest(name, [*stages, 'run'])}")
        stages[name] = changed[name] = stages[name].but(**{setting: value})
        changed[name] = Stage(changed[name].factory, changed[name].checked(name))
        stages[name] = changed[name]
    return replace(recipe, stages=changed)
