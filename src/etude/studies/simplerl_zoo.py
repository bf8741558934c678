"""What tames reinforcement learning from a base model: data of the right difficulty, and a reward without a format?

SimpleRL-Zoo: GRPO from base models with reward 1 for a right answer and nothing else. Two findings are tested. Data that is too
hard for the model teaches it little or makes it worse; and a rigid reward that asks for a box,

    1 right and marked, 0.5 right without the mark, -0.5 wrong but marked, -1 wrong and unmarked,

ends below the plain one where the model rarely writes the mark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import Paper, Recipe
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.study.declare import POINTS, Arm, Defaults, Hypothesis, Measure, Required, Study, Training, more
from etude.study.subject import Subject, of_groups
from etude.types import Episode

MARKED = r"<answer>.*?</answer>|\\boxed\{"


def rigid(
    mark: Annotated[str, Setting("a regular expression of the mark that is asked for")] = MARKED,
) -> Reward:
    """The rigid reward."""

    def reward(episode: Episode) -> dict[str, float]:
        marked = re.search(mark, episode.text, re.S) is not None
        if episode.correct:
            return {"reward": 1.0 if marked else 0.5}
        return {"reward": -0.5 if marked else -1.0}

    return reward


RIGID = Recipe(
    name="rigid_reward",
    base=GRPO,
    idea="A condition of the study simplerl_zoo: the reward asks for a mark as well as for the answer.",
    stages={"reward": stage(rigid)},
)


def look(subject: Subject) -> Mapping[str, Any]:
    groups = subject.attempts()
    found = dict(of_groups(groups))
    found["marked"] = {
        g.task.key: sum(re.search(MARKED, e.text, re.S) is not None for e in g.episodes) / len(g.episodes)
        for g in groups
        if g.episodes
    }
    return found


STUDY = Study(
    name="simplerl_zoo",
    paper=Paper(
        "SimpleRL-Zoo: Investigating and Taming Zero Reinforcement Learning for Open Base Models in the Wild",
        "2503.18892",
        2025,
    ),
    question="Do data that are too hard, and a reward for the format, hold reinforcement learning back?",
    arms=(
        Arm("untrained"),
        Arm("fitting", (Training("grpo"),), says="GRPO on problems of the level that is examined"),
        Arm(
            "hard",
            (Training("grpo", tasks="lab:kind=sum+sort+reverse+order,level=4"),),
            says="GRPO on problems three levels above",
        ),
        Arm("rigid", (Training("etude.studies.simplerl_zoo:RIGID"),), says="GRPO with the rigid reward"),
    ),
    measures=(
        Measure("accuracy", POINTS, "right at a single attempt", look),
        Measure("marked", POINTS, "answers that bear the mark", look),
        Measure("length", "tokens", "of a reply", look),
        Measure("cut", POINTS, "replies that reached the limit", look),
    ),
    hypotheses=(
        Hypothesis(
            "hard data teach less",
            "Problems that are too hard gain less than fitting ones.",
            more("fitting", "accuracy", "hard"),
            3.0,
        ),
        Hypothesis(
            "hard data collapse",
            "Problems that are too hard leave the model below where it was.",
            more("hard", "accuracy", "untrained"),
            least=3.0,
            better="lower",
        ),
        Hypothesis(
            "rigid holds back",
            "The rigid reward ends below the plain one.",
            more("fitting", "accuracy", "rigid"),
            least=3.0,
            requires=(
                Required(
                    "% of answers that bear the mark before training",
                    ((1.0, "untrained", "marked"),),
                    at_most=50,
                ),
            ),
        ),
    ),
    needs=("answers",),
    defaults=Defaults(
        budget="24-steps",
        problems=150,
        samples=4,
        changes={
            "run.tasks_per_step": "8",
            "run.group_size": "8",
            "run.max_tokens": "128",
            "run.preflight": "2",
            "run.rows": "512",
            "run.oversample": "1",
            "update.lr": "3e-4",
            "update.warmup": "5",
        },
    ),
    departures=(
        "behaviours are not counted: `four_habits` does",
        "the laboratory's model marks nearly all answers, so on it the third hypothesis says that it cannot be tested; a base model can test it",
        "with another model or other tasks the arm `hard` still trains on the laboratory's level 4; write a file of your own for yours",
    ),
)
