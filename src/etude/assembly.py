"""From a recipe to stages that can be called: its own, and the plain ones that it does not replace."""

from __future__ import annotations

from typing import Any

from etude.credit.group import advantage
from etude.curriculum.base import SourceMixture
from etude.curriculum.filter import everything
from etude.objective.policy import plain
from etude.recipe import Recipe, override
from etude.rollout.basic import single
from etude.rollout.group_rollout import independent, verdict
from etude.settings import Stage, stage
from etude.update import Update

DEFAULTS: dict[str, Stage] = {
    "curriculum": stage(SourceMixture),
    "rollout": stage(single),
    "group_rollout": stage(independent),
    "reward": stage(verdict),
    "filter": stage(everything),
    "credit": stage(advantage),
    "objective": stage(plain),
    "update": stage(Update),
}


def build(recipe: Recipe, changes: dict[str, Any] | None = None) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with `changes` ({"stage.field": value}) applied, and all of its stages, built."""
    changed = override(recipe, changes or {}, DEFAULTS)
    stages = {**DEFAULTS, **changed.resolved()}
    return changed, {name: part.build(name) for name, part in stages.items()}


def resolved_stages(recipe: Recipe) -> dict[str, Stage]:
    return {**DEFAULTS, **recipe.resolved()}
