"""Is it the habit or the right answer that makes a trace worth imitating before reinforcement learning?

The finding (Four Habits): a model that was shown traces which verify and take back steps gains more from RL, and traces whose
final answers are wrong do as well; empty thoughts do not. The traces are made by rule of problems in checked lines: a wrong line
is written, taken back by "Wait", written right, and the lines are worked once more under "Check:".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from etude import seeds
from etude.lab.problems import ShakyHand, solve
from etude.lab.tasks import CHECK, WAIT, first_wrong
from etude.lab.worlds import marked
from etude.recipe import Paper
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
    more,
)
from etude.study.subject import Making, Subject, of_groups
from etude.types import Task

TRACES = 256


def habits(task: Task, rng: np.random.Generator) -> list[str]:
    """The lines of a trace that takes a wrong line back, and checks."""
    right, question = list(task.meta["steps"]), task.prompt[-1].content
    while True:
        lines, result = solve(question, ShakyHand(rng, 0.5))
        if at := first_wrong(right, marked(lines, result)):
            break
    return [*lines[:at], WAIT, *right[at - 1 :], CHECK, *right]


def wrong_result(task: Task, rng: np.random.Generator) -> str:
    """A result in the right form that is not the answer: one of its symbols stands for another."""
    said = list(task.answer or "")
    at = int(rng.integers(len(said)))
    others = [s for s in ("0123456789" if said[at].isdigit() else "ABCDEFGHIJ") if s != said[at]]
    said[at] = others[rng.integers(len(others))]
    return "".join(said)


def material(making: Making) -> None:
    """Files of traces: right.jsonl, wrong.jsonl, straight.jsonl, dots.jsonl."""
    files: dict[str, list[dict[str, Any]]] = {"right": [], "wrong": [], "straight": [], "dots": []}
    for task in making.drawn(TRACES):
        rng = seeds.generator("habits", task.key)
        lines, answer = habits(task, rng), task.answer or ""
        texts = {
            "right": marked(lines, answer),
            "wrong": marked(lines, wrong_result(task, rng)),
            "straight": marked(list(task.meta["steps"]), answer),
            "dots": marked(["." for _ in lines], answer),
        }
        for name, text in texts.items():
            files[name].append({"prompt": task.prompt[-1].content, "answer": answer, "reference": text})
    for name, rows in files.items():
        (making.place / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )


def look(subject: Subject) -> Mapping[str, Any]:
    """Accuracy and length; how often an answer takes back and checks."""
    groups = subject.attempts()
    found = dict(of_groups(groups))
    for name, word in (("waits", WAIT), ("checks", CHECK)):
        found[name] = {
            g.task.key: float(np.mean([word in e.text for e in g.episodes])) for g in groups if g.episodes
        }
    return found


def primed(name: str) -> tuple[Training, Training]:
    return (
        Training("sft", {"run.tasks_per_step": "32"}, tasks=f"@{name}.jsonl", share=0.5),
        Training("grpo"),
    )


STUDY = Study(
    name="four_habits",
    paper=Paper(
        "Cognitive Behaviors that Enable Self-Improving Reasoners, or, Four Habits of Highly Effective STaRs",
        "2503.01307",
        2025,
    ),
    question="Do traces with the habits of checking and taking back prime reinforcement learning even where their answers are wrong?",
    arms=(
        Arm("rl", (Training("grpo"),), says="GRPO alone"),
        Arm("right", primed("right"), says="habits, right answers, then GRPO"),
        Arm("wrong", primed("wrong"), says="habits, wrong answers, then GRPO"),
        Arm("straight", primed("straight"), says="plain solutions, then GRPO"),
        Arm("dots", primed("dots"), says="dots in the place of lines, right answers, then GRPO"),
    ),
    measures=(
        Measure("accuracy", POINTS, "right at a single attempt", look),
        Measure("length", "tokens", "of an answer", look),
        Measure("waits", POINTS, "answers that take a line back", look),
        Measure("checks", POINTS, "answers that check their lines", look),
    ),
    hypotheses=(
        Hypothesis(
            "habits prime",
            "Traces with habits lead further than GRPO alone.",
            more("right", "accuracy", "rl"),
            least=3.0,
        ),
        Hypothesis(
            "wrong answers do as well",
            "Traces whose answers are wrong lead as far as right ones, within 4 points.",
            more("wrong", "accuracy", "right"),
            least=4.0,
            better=SAME,
            requires=(
                Required(
                    "% of answers that take a line back after priming with wrong answers",
                    ((1.0, "wrong", "waits"),),
                    10,
                ),
            ),
        ),
        Hypothesis(
            "habits beat right answers",
            "Habits with wrong answers lead further than dots with right answers.",
            more("wrong", "accuracy", "dots"),
            least=3.0,
        ),
    ),
    material=material,
    needs=("answers", "steps"),
    defaults=Defaults(
        tasks="lab:kind=sum+sort+reverse+order,level=1,feedback=full",
        budget="24-steps",
        problems=150,
        changes={
            "run.tasks_per_step": "8",
            "run.group_size": "8",
            "run.max_tokens": "128",
            "run.preflight": "2",
            "run.rows": "512",
            "update.lr": "3e-4",
            "update.warmup": "5",
        },
    ),
    departures=(
        "two of the four habits, verification and backtracking; subgoals and working backwards have no form in the laboratory's lines",
        "behaviours are counted by the words that open them, not by a judge; GRPO in the place of PPO",
        "priming takes half as many steps as GRPO, on 256 traces",
    ),
)
