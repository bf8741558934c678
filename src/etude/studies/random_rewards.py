"""Do rewards that say nothing help, and only where the test was seen before?

The finding (RandomCalculation): on a public benchmark random rewards raise a model's accuracy; the same model can complete the
benchmark's questions from their beginning; on problems made anew neither is so. Here the leak is made on purpose: the model reads
some problems, questions and solutions, before anything else. Problems of the same kind, made at the same time, stay unseen.

    true      1 where the answer is right          random    a fair coin for every answer
    inverted  1 where it is wrong
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etude import seeds
from etude.evaluate.completion import completed
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import Paper, Recipe
from etude.settings import stage
from etude.stages import Reward
from etude.study.declare import (
    POINTS,
    SAME,
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
from etude.study.subject import Making, Subject, of_groups
from etude.study.teaching import read_whole
from etude.types import Episode, Task

LEAKED, STEPS, BATCH, RATE = 64, 60, 32, 5e-4  # problems read, 30 times each
SHOWN = 0.6


def coin() -> Reward:
    """A fair coin for every answer, by a hash of its tokens."""

    def reward(episode: Episode) -> dict[str, float]:
        return {
            "reward": float(seeds.key("coin", episode.task.key, episode.index, episode.tokens.tobytes()) % 2)
        }

    return reward


def inverted() -> Reward:
    """1 less the verdict's reward."""
    return lambda episode: {"reward": 1.0 - (episode.verdict.reward if episode.verdict else 0.0)}


ABOUT = "A condition of the study random_rewards: the reward is not that of the task."
RANDOM = Recipe(name="random_reward", base=GRPO, idea=ABOUT, stages={"reward": stage(coin)})
INVERTED = Recipe(name="inverted_reward", base=GRPO, idea=ABOUT, stages={"reward": stage(inverted)})


def material(making: Making) -> None:
    """leaked.json and clean.json, keys of problems; the model that has read the first."""
    drawn = making.drawn(2 * LEAKED)
    leaked, clean = drawn[:LEAKED], drawn[LEAKED:]
    policy = making.open_model(making.model)
    read_whole(policy, leaked, STEPS, BATCH, RATE)
    policy.save(making.place / "leaked-model")
    for name, tasks in (("leaked", leaked), ("clean", clean)):
        (making.place / f"{name}.json").write_text(json.dumps([t.key for t in tasks]), encoding="utf-8")


def parts(subject: Subject) -> dict[str, list[Task]]:
    """{part: its problems}, drawn again as `material` drew them."""
    assert subject.held  # set aside before anything is drawn
    drawn = {
        t.key: t for t in subject.tasks.different(4 * LEAKED, 0)
    }  # with fewer problems held out, others lie between
    return {
        n: [drawn[k] for k in json.loads((subject.material / f"{n}.json").read_text(encoding="utf-8"))]
        for n in ("leaked", "clean")
    }


def look(subject: Subject) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for part, tasks in parts(subject).items():
        found[part] = of_groups(subject.attempts(tasks))["accuracy"]
        found[f"{part} completed"] = {c.task.key: c.rouge for c in completed(subject.generator, tasks, SHOWN)}
    return found


ROOM = Required("% of leaked problems right before", ((1.0, "before", "leaked"),), at_least=20, at_most=95)
SEEN = Required(
    "points by which leaked questions are completed better",
    more("before", "leaked completed", "before", "clean completed"),
    at_least=10,
)
HERE = "etude.studies.random_rewards"

STUDY = Study(
    name="random_rewards",
    paper=Paper(
        "Reasoning or Memorization? Unreliable Results of Reinforcement Learning Due to Data Contamination",
        "2507.10532",
        2025,
    ),
    question="Do random rewards help only on problems that the model has read before?",
    arms=(
        Arm("before", start="@leaked-model", says="the model that has read the leaked problems"),
        Arm("true", (Training("grpo"),), "@leaked-model", says="GRPO, the task's reward"),
        Arm("random", (Training(f"{HERE}:RANDOM"),), "@leaked-model", says="GRPO, a coin for every answer"),
        Arm(
            "inverted", (Training(f"{HERE}:INVERTED"),), "@leaked-model", says="GRPO, wrong answers rewarded"
        ),
    ),
    measures=(
        Measure("leaked", POINTS, "right answers to the problems that were read", look),
        Measure("clean", POINTS, "right answers to problems of the same kind that were not", look),
        Measure(
            "leaked completed", POINTS, "ROUGE-L of the rest of a leaked question, after 60 % of it", look
        ),
        Measure("clean completed", POINTS, "the same of questions that were not read", look),
    ),
    hypotheses=(
        Hypothesis(
            "the probe finds the leak",
            "From their beginning the model completes leaked questions better than others.",
            more("before", "leaked completed", "before", "clean completed"),
            least=10.0,
        ),
        Hypothesis(
            "random helps where leaked",
            "Random rewards gain more on leaked problems than on clean ones.",
            further(more("random", "leaked", "before"), more("random", "clean", "before")),
            least=3.0,
            requires=(ROOM, SEEN),
        ),
        Hypothesis(
            "random does nothing else",
            "On clean problems random rewards change accuracy by less than 3 points.",
            more("random", "clean", "before"),
            least=3.0,
            better=SAME,
        ),
        Hypothesis(
            "truth helps", "True rewards gain on clean problems.", more("true", "clean", "before"), least=3.0
        ),
        Hypothesis(
            "the inverse harms",
            "Rewarding wrong answers loses accuracy on clean problems.",
            more("inverted", "clean", "before"),
            least=3.0,
            better="lower",
        ),
    ),
    material=material,
    needs=("answers", "solutions"),
    defaults=Defaults(
        budget="24-steps",
        problems=50,
        samples=8,
        changes={
            "run.tasks_per_step": "8",
            "run.group_size": "8",
            "run.max_tokens": "96",
            "run.preflight": "2",
            "run.rows": "512",
            "update.lr": "3e-4",
            "update.warmup": "5",
            "update.minibatches": "4",
        },
    ),
    departures=(
        "the leak is made (64 problems read 30 times), not found; the clean problems are of the same kind, so that nothing else differs",
        "four minibatches a step, since without old data a clipped loss with random rewards has no expected gradient",
        "the reward is right or wrong, not graded by the distance of numbers; the wrong majority is left out",
    ),
)
