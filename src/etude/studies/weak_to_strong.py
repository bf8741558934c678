"""How much of what a strong model could do is brought out by the labels of a weak one?

The supervisor is the first half of the layers of the model that is studied, trained as a reward model on pairs with true labels: of two worked
solutions the right one is better. It labels other pairs, and errs. The strong model is the whole one. The performance gap recovered,

    PGR = (strong on weak labels - weak) / (strong on true labels - weak),

is above q where (strong on weak labels) - (1 - q) weak - q (strong on true labels) is above 0, which is how it is tested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude import seeds
from etude.files import write_atomically
from etude.lab.problems import ShakyHand, solve
from etude.lab.worlds import marked
from etude.models.directory import read_config
from etude.models.policy import Policy
from etude.recipe import Paper
from etude.reward.model import RewardModel
from etude.study.declare import (
    POINTS,
    Arm,
    Defaults,
    Hypothesis,
    Measure,
    Required,
    Study,
    Term,
    Training,
    more,
)
from etude.study.subject import Making, Subject
from etude.train.config import Budget, Plan
from etude.train.session import run_session
from etude.train.setup import start
from etude.types import Task

LAYERS = 3  # of the supervisor, of the six of the laboratory's model
HALF, HELD = 384, 256  # pairs of either half, and of the examination
STEPS, BATCH, RATE = 40, 32, 1e-3
RECOVERED = 0.2


def pair(task: Task) -> dict[str, Any]:
    """A right and a wrong solution of a problem, with lines."""
    rng, question = seeds.generator("weak to strong", task.key), task.prompt[-1].content
    while True:
        lines, result = solve(question, ShakyHand(rng, 0.3))
        if result != task.answer:
            break
    right = marked(list(task.meta["steps"]), task.answer or "")
    return {"prompt": question, "chosen": right, "rejected": marked(lines, result)}


def shallow(policy: Policy, layers: int, place: Path) -> Path:
    """A model of the first `layers` layers, in a directory."""
    from safetensors.torch import load_file, save_file

    policy.save(place)
    kept = {
        name: value
        for name, value in load_file(place / "model.safetensors").items()
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < layers
    }
    save_file(kept, place / "model.safetensors", {"format": "pt"})
    config = {**read_config(place), "num_hidden_layers": layers}
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:layers]
    write_atomically(place / "config.json", json.dumps(config))
    return place


def write(place: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]


def margins(model: RewardModel, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """f64[n]: r(chosen) - r(rejected)."""
    model.load("fp32")  # in bf16 close numbers are equal
    both = [model.scored([(row["prompt"], row[side]) for row in rows]) for side in ("chosen", "rejected")]
    found: np.ndarray = both[0] - both[1]
    return found


def told_apart(margin: np.ndarray) -> np.ndarray:
    """f64[n]: 1 where the right solution has the larger number, 1/2 where both have the same."""
    return (np.sign(margin) + 1) / 2


def labelled(rows: Sequence[Mapping[str, Any]], margin: Sequence[float]) -> list[dict[str, Any]]:
    """The pairs as the supervisor labels them: what it prefers is chosen, and its log-odds are the strength."""
    sides = ("chosen", "rejected")
    return [
        {
            "prompt": row["prompt"],
            "chosen": row[sides[m < 0]],
            "rejected": row[sides[m >= 0]],
            "strength": abs(float(m)),
        }
        for row, m in zip(rows, margin, strict=True)
    ]


def material(making: Making) -> None:
    """weak.jsonl and true.jsonl: the second half of the pairs by the supervisor's labels and by the true ones; held.jsonl."""
    pairs = [pair(task) for task in making.drawn(2 * HALF + HELD)]
    first, second, held = pairs[:HALF], pairs[HALF : 2 * HALF], pairs[2 * HALF :]
    write(making.place / "first.jsonl", first)
    supervisor = shallow(making.open_model(making.model), LAYERS, making.place / "shallow")
    changes = {
        "run.tasks_per_step": str(BATCH),
        "update.lr": str(RATE),
        "run.eval_problems": "0",
        "run.evals": "0",
        "run.preflight": "1",
        "run.patience": "100000",
        "run.rescore_every": "0",
    }
    data = str(making.place / "first.jsonl")
    plan = Plan("reward_model", str(supervisor), data, Budget(STEPS, "steps"), 0, changes)
    run = start(plan, making.place / "supervisor", overwrite=True)
    run_session(run, force=True, keep_model=True, before=False)
    weak = RewardModel(str(making.place / "supervisor"))
    write(making.place / "weak.jsonl", labelled(second, margins(weak, second).tolist()))
    write(making.place / "true.jsonl", second)
    right = told_apart(margins(weak, held)).tolist()
    write(making.place / "held.jsonl", [{**row, "weak": r} for row, r in zip(held, right, strict=True)])


def look(subject: Subject) -> Mapping[str, Any]:
    """Which pairs of the examination the arm's reward model tells apart, and which the supervisor did."""
    rows = read(subject.material / "held.jsonl")
    right = told_apart(margins(RewardModel(subject.policy.name), rows))
    return {
        "accuracy": {row["prompt"]: float(r) for row, r in zip(rows, right, strict=True)},
        "weak": {row["prompt"]: float(row["weak"]) for row in rows},
    }


def recovers(arm: str, share: float) -> tuple[Term, ...]:
    """Above 0 where the arm's PGR is above `share`."""
    return (1.0, arm, "accuracy"), (share - 1.0, arm, "weak"), (-share, "ceiling", "accuracy")


GAP = Required("points from the supervisor to the strong model with true labels", recovers("ceiling", 0.0), 5)
STUDY = Study(
    name="weak_to_strong",
    paper=Paper(
        "Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision",
        "2312.09390",
        2023,
    ),
    question="Does a strong reward model that learns from a weak one's labels judge better than it?",
    arms=(
        Arm(
            "naive",
            (Training("weak_to_strong", {"credit.trust": 0.0}, "@weak.jsonl"),),
            says="the supervisor's labels alone",
        ),
        Arm(
            "confident",
            (Training("weak_to_strong", {"credit.trust": 0.5}, "@weak.jsonl"),),
            says="its own verdict is a label too",
        ),
        Arm("ceiling", (Training("reward_model", tasks="@true.jsonl"),), says="true labels"),
    ),
    measures=(
        Measure("accuracy", POINTS, "unseen pairs of which the right solution has the larger number", look),
        Measure("weak", POINTS, "the same of the supervisor", look),
    ),
    hypotheses=(
        Hypothesis(
            "above its supervisor",
            "On weak labels the strong model becomes better than the supervisor (PGR above 0).",
            recovers("naive", 0.0),
            2.0,
            requires=(GAP,),
        ),
        Hypothesis(
            "a fifth is recovered",
            "On weak labels at least a fifth of the gap to true labels is recovered (PGR above 0.2).",
            recovers("naive", RECOVERED),
            0.5,
            requires=(GAP,),
        ),
        Hypothesis(
            "confidence recovers more",
            "With its own verdict as a label the strong model ends above the one without.",
            more("confident", "accuracy", "naive"),
            2.0,
            requires=(GAP,),
        ),
    ),
    material=material,
    needs=("answers", "steps"),
    defaults=Defaults(
        budget=f"{STEPS}-steps",
        problems=20,
        changes={"run.tasks_per_step": str(BATCH), "run.preflight": "1", "update.lr": str(RATE)},
    ),
    departures=(
        "the supervisor is the first three layers of the same model, where the paper has smaller models of a family",
        "pairs of right and wrong solutions by rule, so that the true label is known",
        "its labels are those after a fixed number of steps: nothing is chosen by true labels",
    ),
)
