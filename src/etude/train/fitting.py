"""Whether tasks fit a recipe, a model and a run's settings; what does not is refused or left out before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.errors import Refused
from etude.evaluate.run import hold_out
from etude.models.policy import Policy
from etude.recipe import NEEDS, Recipe
from etude.tasks import TaskSet
from etude.tasks.check import judged
from etude.tasks.confinement import ready_to_run_programs
from etude.tasks.files import Listed
from etude.tasks.traces import TRACE
from etude.train.settings import RunSettings
from etude.types import Request, Task


def fit(
    tasks: TaskSet,
    holdout: list[Task],
    policy: Policy,
    settings: RunSettings,
    say: Callable[[Sequence[str]], None],
) -> tuple[TaskSet, list[Task]]:
    """The tasks whose prompts leave room for a reply, and what is held out of them."""
    limit = min(settings.context, policy.context)
    notes = tasks.leave_out_long(
        lambda task: len(policy.renderer.prompt(task.prompt, len(task.prompt))), limit
    )
    if not notes:
        return tasks, holdout
    say(notes)
    return tasks, hold_out(tasks, settings.eval_problems, settings.tuning)


def hide_labels(recipe: Recipe, settings: RunSettings, tasks: TaskSet) -> None:
    """From here on what is trained on has no labels, where the settings say so. Refused for a recipe that learns from them."""
    if settings.unlabelled and not recipe.all_defaults.get("unlabelled"):
        raise Refused(
            f"recipe {recipe.name} learns from what the checker says, and run.unlabelled hides it; recipes that learn without "
            "labels set it themselves, such as ttrl"
        )
    tasks.unlabelled = settings.unlabelled


def missing(recipe: Recipe, settings: RunSettings, tasks: TaskSet, seed: int) -> None:
    """Refuses a recipe that needs what the tasks or the models lack, before the first rollout."""
    tasks.unlabelled = False  # what is asked for are the tasks as they are
    samples = [tasks.draw(Request(), i, seed) for i in range(4)]
    has = {
        "reference": all(t.reference for t in samples),
        "hints": all(t.hints for t in samples),
        "answer": all(t.answer or t.reference or TRACE in t.meta for t in samples),
        "steps": all(t.meta.get("steps") for t in samples),
        "feedback": all(t.meta.get("feedback", "hint") in ("hint", "full") for t in samples),
        "text": all(t.environment is None for t in samples),
        "teacher": settings.teacher is not None,
    }
    ready_to_run_programs(samples)
    for need in recipe.all_needs:
        if not has[need]:
            raise Refused(f"recipe {recipe.name} needs {NEEDS[need]}, which is missing here")


def unexamined(tasks: TaskSet) -> list[str]:
    """What is said where no accuracy will be measured, because no task has anything to check."""
    held = [t for s in tasks.sources if isinstance(s, Listed) for t in s.tasks("eval")]
    if not held or any(judged(t) for t in held):
        return []
    aside = f"; {len(held)} set aside are not trained on: etude eval RUN --pairs FILE says how well they are told apart"
    return ["no accuracy is measured, because the tasks have no answer to check" + aside]
