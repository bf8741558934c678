"""When do odd ways of reinforcement learning work: only where the model could do the task already?

Model-Task Alignment: alignment is pass@k of the untrained model. On tasks with a high one, random rewards, training on a single
example and learning from wrong answers alone help about as much as the true reward; on tasks with a low one the true reward alone
does. Here the strong tasks are the laboratory's level 0, the weak ones level 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.evaluate.run import hold_out
from etude.recipe import Paper
from etude.study.declare import (
    POINTS,
    Arm,
    Defaults,
    Hypothesis,
    Measure,
    Required,
    Study,
    Training,
    further,
    more,
)
from etude.study.subject import Subject, of_groups
from etude.tasks import load

EASY, HARD = "lab:kind=sum+sort+reverse+order,level=0", "lab:kind=sum+sort+reverse+order,level=3"
RANDOM = "etude.studies.random_rewards:RANDOM"


def look(subject: Subject) -> Mapping[str, Any]:
    """Accuracy and pass@k on both sorts."""
    found: dict[str, Any] = {}
    for name, spec in (("easy", EASY), ("hard", HARD)):
        held = hold_out(load(spec), subject.problems)
        seen = of_groups(subject.attempts(held))
        found[name], found[f"{name} pass@k"] = seen["accuracy"], seen["pass@k"]
    return found


def arms() -> tuple[Arm, ...]:
    made = [Arm("untrained")]
    for name, spec in (("easy", EASY), ("hard", HARD)):
        made += [
            Arm(f"true, {name}", (Training("grpo", tasks=spec),), says=f"GRPO on {name} tasks"),
            Arm(
                f"random, {name}",
                (Training(RANDOM, tasks=spec),),
                says=f"GRPO on {name} tasks, a coin for every answer",
            ),
            Arm(
                f"wrong alone, {name}",
                (Training("nsr", tasks=spec),),
                says=f"wrong answers of {name} tasks made less likely",
            ),
        ]
    return tuple(made)


def gain(way: str, sort: str) -> tuple[tuple[float, str, str], ...]:
    return more(f"{way}, {sort}", sort, "untrained")


ALIGNED = Required(
    "pass@k of easy tasks less that of hard ones",
    more("untrained", "easy pass@k", "untrained", "hard pass@k"),
    at_least=20,
)

STUDY = Study(
    name="model_task_alignment",
    paper=Paper("Model-Task Alignment Drives Distinct RL Outcomes", "2508.21188", 2025),
    question="Do random rewards and wrong answers alone help only where pass@k is high already?",
    arms=arms(),
    measures=(
        Measure("easy", POINTS, "right answers to easy tasks", look),
        Measure("hard", POINTS, "right answers to hard tasks", look),
        Measure("easy pass@k", POINTS, "easy tasks with a right answer among all samples", look),
        Measure("hard pass@k", POINTS, "hard tasks with one", look),
    ),
    hypotheses=(
        Hypothesis(
            "truth helps where easy", "The true reward gains on easy tasks.", gain("true", "easy"), 3.0
        ),
        Hypothesis(
            "truth helps where hard", "The true reward gains on hard tasks.", gain("true", "hard"), 3.0
        ),
        Hypothesis(
            "random where aligned",
            "Random rewards gain more on easy tasks than on hard ones.",
            further(gain("random", "easy"), gain("random", "hard")),
            least=3.0,
            requires=(ALIGNED,),
        ),
        Hypothesis(
            "wrong alone where aligned",
            "Learning from wrong answers alone gains more on easy tasks than on hard ones.",
            further(gain("wrong alone", "easy"), gain("wrong alone", "hard")),
            least=3.0,
            requires=(ALIGNED,),
        ),
    ),
    defaults=Defaults(
        tasks="lab:kind=sum+sort+reverse+order,level=0",
        budget="24-steps",
        problems=120,
        samples=8,
        changes={
            "run.tasks_per_step": "8",
            "run.group_size": "8",
            "run.max_tokens": "128",
            "run.preflight": "2",
            "run.rows": "512",
            "run.oversample": "1",
            "update.lr": "3e-4",
            "update.warmup": "5",
            "update.minibatches": "4",
        },
    ),
    departures=(
        "one model and two levels of the same tasks in the place of two models and two sorts of tasks",
        "training on a single example, inverted, format and majority rewards are left out",
    ),
)
