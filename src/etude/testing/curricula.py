"""Curricula and filters as a recipe assembles them, on steps that are made up by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from etude import seeds
from etude.models.outputs import Outputs
from etude.recipe import Recipe
from etude.tasks import TaskSet
from etude.testing.examples import EXAMPLE_TASK, example_group
from etude.types import Array, Group, Message, SamplingParams, Signal, Task

Arm = tuple[str, float]  # kind and level


@dataclass
class ExampleContext:
    """Where a made-up run stands (`etude.stages.Context`); its models are what a test puts there."""

    step: int = 0
    drawn: int = 0
    progress: float = 0.0
    seed: int = 0
    tasks: Any = None
    policy: Any = None
    learner: Any = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    auxiliary: dict[str, Any] = field(default_factory=dict)
    group_size: int = 4

    def rng(self, purpose: str, *parts: object) -> np.random.Generator:
        return seeds.generator(self.seed, purpose, self.step, *parts)

    def rows(
        self,
        signals: Sequence[Signal],
        read: Callable[[Outputs], Tensor],
        needs: Iterable[str] = (),
        policy: Any = None,
    ) -> list[Array]:
        raise NotImplementedError

    def with_logp(self, signals: Sequence[Signal], model: str) -> list[Signal]:
        raise NotImplementedError


def example_task(arm: Arm, number: int = 0) -> Task:
    kind, level = arm
    return replace(
        EXAMPLE_TASK, prompt=(Message("user", f"{kind} {level:g} {number}"),), kind=kind, difficulty=level
    )


def example_tasks(*arms: Arm, each: int = 4) -> TaskSet:
    """`each` tasks of every kind and level, none of them held out."""
    return TaskSet.of([example_task(arm, i) for arm in arms for i in range(each)], held=())


def attempts_at(arm: Arm, rewards: Sequence[float], number: int = 0) -> Group:
    """Attempts with these rewards at task `number` of an arm; right where the reward is above 0."""
    task = example_task(arm, number)
    made = example_group(rewards)
    return replace(made, task=task, episodes=tuple(replace(e, task=task) for e in made.episodes))


def built(recipe: Recipe, stage: str, settings: Mapping[str, Any] | None = None) -> Any:
    """One stage as the recipe assembles it. `settings`: {name: value} of this stage."""
    return recipe.resolved()[stage].but(**(settings or {})).build(stage)


def example_curriculum(recipe: Recipe, arms: Sequence[Arm], settings: Mapping[str, Any] | None = None) -> Any:
    """The curriculum of `recipe`, prepared for tasks of these arms."""
    curriculum = built(recipe, "curriculum", settings)
    if hasattr(curriculum, "prepare"):
        curriculum.prepare(example_tasks(*arms))
    return curriculum


def after_steps(
    recipe: Recipe,
    arms: Sequence[Arm],
    *steps: Sequence[Group],
    settings: Mapping[str, Any] | None = None,
    n: int = 8,
) -> Any:
    """The curriculum after it drew `n` tasks and was told of the groups of each step, and has drawn for the next one:
    `report()` is that of the step to come. Credit made no signals."""
    curriculum = example_curriculum(recipe, arms, settings)
    tasks = example_tasks(*arms)
    for step in range(len(steps) + 1):
        context = ExampleContext(step, step * n, step / (len(steps) + 1), tasks=tasks)
        curriculum.next(n, context)
        if step < len(steps):
            curriculum.observe(steps[step], [], context)
    return curriculum
