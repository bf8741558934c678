"""Held-out accuracy of a model directory, for bench/to_target.py: one examiner for all contestants."""

from __future__ import annotations

import json
import sys

from contestants import serve

from etude.train.measure import Exam, evaluate_model, exam_tasks

job = json.loads(sys.argv[1])
name, held = exam_tasks(job["spec"], None, job["problems"])
exam = Exam(name, held, job["attempts"], 0, False, {"max_tokens": str(job["tokens"])})


def turn(model: str) -> dict[str, float]:
    found = evaluate_model(model, exam).per_problem
    return {"accuracy": sum(correct for _, correct, _ in found) / sum(samples for *_, samples in found)}


serve(turn)
