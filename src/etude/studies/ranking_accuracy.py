"""Does preference learning make the preferred answer the likelier one?

The finding: after DPO most pairs that the model ranked wrong are still ranked wrong, though the loss fell. With
c = log pi_ref(y_l) / pi_ref(y_w) a pair is ranked right exactly where its DPO loss is at most -log sigma(beta c): pairs that begin
far on the wrong side need a loss near 0, and most of the loss is to be had elsewhere. The idealised accuracy, of labels without
noise, is 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etude.evaluate.likelihood import reference_logp
from etude.models.policy import Policy
from etude.recipe import Paper
from etude.study.declare import POINTS, Arm, Defaults, Hypothesis, Measure, Required, Study, Training, more
from etude.study.subject import Making, Subject, attempts
from etude.tasks.check import Unjudged
from etude.tasks.isolate import Pool
from etude.types import Message, Task

ASKED, DRAWN, HELD = (
    240,
    6,
    0.25,
)  # problems of which pairs are made, answers to each, share kept for examination


def likelihoods(
    policy: Policy, rows: Sequence[Mapping[str, str]], side: str
) -> tuple[list[float], list[int]]:
    """(log-probability, tokens) of the `side` answer of each pair, as a reply to its prompt."""
    tasks = [Task((Message("user", r["prompt"]),), Unjudged(), reference=r[side]) for r in rows]
    said = reference_logp(policy, tasks)
    return [float(x.sum()) for x in said], [len(x) for x in said]


def material(making: Making) -> None:
    """pairs.jsonl to train on and held.jsonl: two of the model's answers to each problem, of which the longer one (which checks
    its lines, or takes some back) is preferred, with their log-probabilities under the model. Whether they are right does not
    count, so that preference and likelihood have nothing to do with each other."""
    with Pool() as pool:
        subject = making.subject(pool)
        rows: list[dict[str, Any]] = []
        for group in subject.attempts(making.drawn(ASKED), DRAWN):
            ended = [e for e in group.episodes if e.stop == "end"]
            by_length = sorted(ended, key=lambda e: len(e.text.splitlines()))
            if ended and len(by_length[-1].text.splitlines()) > len(by_length[0].text.splitlines()):
                rows.append(
                    {
                        "prompt": group.task.prompt[-1].content,
                        "chosen": by_length[-1].text,
                        "rejected": by_length[0].text,
                    }
                )
        for side in ("chosen", "rejected"):
            logp, tokens = likelihoods(subject.policy, rows, side)
            for row, value, n in zip(rows, logp, tokens, strict=True):
                row[f"ref_{side}"], row[f"tokens_{side}"] = value, n
    cut = int(HELD * len(rows))
    for name, part in (("held", rows[:cut]), ("pairs", rows[cut:])):
        (making.place / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in part), encoding="utf-8"
        )


def rankings(subject: Subject) -> Mapping[str, Any]:
    found: dict[str, dict[str, float]] = {
        name: {} for name in ("trained", "missed", "held", "held by length", "stayed", "fell")
    }
    for name in ("pairs", "held"):
        rows = [
            json.loads(line)
            for line in (subject.material / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        (chosen, n), (rejected, m) = (
            likelihoods(subject.policy, rows, side) for side in ("chosen", "rejected")
        )
        for i, row in enumerate(rows):
            key = row["prompt"]
            right = float(chosen[i] > rejected[i])
            found["trained" if name == "pairs" else "held"][key] = right
            if name == "pairs":
                found["missed"][key] = 1 - right
            if name == "held":
                found["held by length"][key] = float(chosen[i] / n[i] > rejected[i] / m[i])
                continue
            if row["ref_chosen"] < row["ref_rejected"]:
                found["stayed"][key] = 1 - 2 * right
                moved = (chosen[i] - rejected[i]) - (row["ref_chosen"] - row["ref_rejected"])
                found["fell"][key] = float(moved > 0)
    return found


STUDY = Study(
    name="ranking_accuracy",
    paper=Paper("Preference Learning Algorithms Do Not Learn Preference Rankings", "2405.19534", 2024),
    question="Are pairs that the model ranks wrong ranked right after DPO?",
    arms=(
        Arm("untrained"),
        Arm("dpo", (Training("dpo", tasks="@pairs.jsonl"),)),
    ),
    measures=(
        Measure("trained", POINTS, "trained pairs whose chosen answer is the likelier one", rankings),
        Measure("held", POINTS, "the same of pairs of other problems", rankings),
        Measure("held by length", POINTS, "the same by log-probability a token", rankings),
        Measure("missed", POINTS, "trained pairs that are not", rankings),
        Measure(
            "stayed",
            POINTS,
            "of trained pairs that were ranked wrong before, those that still are, less those that are not",
            rankings,
        ),
        Measure("fell", POINTS, "of those ranked wrong before, those whose DPO loss fell", rankings),
        Measure("accuracy", POINTS, "right at a single attempt", attempts),
    ),
    hypotheses=(
        Hypothesis(
            "most stay wrong",
            "Of the pairs that were ranked wrong, more than half still are, though the loss of most of them fell.",
            ((1.0, "dpo", "stayed"),),
            least=10.0,
            requires=(Required("% of the pairs ranked wrong whose loss fell", ((1.0, "dpo", "fell"),), 60),),
        ),
        Hypothesis(
            "short of the ideal",
            "On the pairs that it was trained on ranking accuracy ends 10 points or more below 100 %, that of a perfect optimum.",
            ((1.0, "dpo", "missed"),),
            least=10.0,
        ),
        Hypothesis(
            "some is learned",
            "Ranking accuracy of unseen pairs rises.",
            more("dpo", "held", "untrained"),
            least=3.0,
        ),
    ),
    material=material,
    needs=("answers",),
    defaults=Defaults(
        budget="40-steps",
        problems=100,
        changes={
            "run.tasks_per_step": "16",
            "run.max_tokens": "96",
            "run.preflight": "2",
            "run.rows": "512",
            "update.lr": "1e-4",
            "update.warmup": "5",
        },
    ),
    departures=(
        "pairs are two answers of the model's own, of which the one with more lines is preferred: an annotator who never errs, so the idealised accuracy is 1",
    ),
)
