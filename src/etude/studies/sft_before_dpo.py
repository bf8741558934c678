"""Which supervised fine-tuning leaves the better model for the DPO that follows?

SFT read as learning an implicit reward has no term that holds the policy near its start. Two remedies are tested against plain SFT: a
tenth of the learning rate, and Pearson's divergence at the same rate (`implicit_reward_sft`). The DPO that follows is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.evaluate.likelihood import reference_logp
from etude.recipe import Paper
from etude.study.declare import POINTS, Arm, Defaults, Hypothesis, Measure, Study, Training, more
from etude.study.subject import Subject, attempts

RATE = 3e-4
DPO = Training("dpo", {"update.lr": RATE}, share=0.5)


def fine_tuned(recipe: str = "sft", rate: float = RATE) -> tuple[Training, ...]:
    return Training(
        recipe, {"update.lr": rate, "run.group_size": 1, "run.tasks_per_step": 64}, share=0.5
    ), DPO


def fit(subject: Subject) -> Mapping[str, Any]:
    """Log-probability a token of the held-out problems' worked solutions."""
    said = reference_logp(subject.policy, subject.held)
    return {"fit": {t.key: float(x.mean()) for t, x in zip(subject.held, said, strict=True)}}


STUDY = Study(
    name="sft_before_dpo",
    paper=Paper(
        "Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections", "2507.00018", 2025
    ),
    question="Does SFT that stays nearer to its start leave the better model for DPO?",
    arms=(
        Arm("plain", fine_tuned()),
        Arm("slow", fine_tuned(rate=RATE / 10), says="SFT at a tenth of the learning rate"),
        Arm("pearson", fine_tuned("implicit_reward_sft"), says="Pearson's divergence at the same rate"),
    ),
    measures=(
        Measure("accuracy", POINTS, "right at a single attempt", attempts),
        Measure("length", "tokens", "of an answer", attempts),
        Measure("fit", "nats a token", "log-probability of unseen worked solutions", fit),
    ),
    hypotheses=(
        Hypothesis(
            "slower is better",
            "After SFT at a tenth of the rate DPO ends higher.",
            more("slow", "accuracy", "plain"),
            3.0,
        ),
        Hypothesis(
            "Pearson is better",
            "After SFT by Pearson's divergence DPO ends higher.",
            more("pearson", "accuracy", "plain"),
            3.0,
        ),
        Hypothesis(
            "at a worse fit",
            "What was fine-tuned slowly fits the solutions no better in the end.",
            more("slow", "fit", "plain"),
            0.005,
            better="lower",
        ),
    ),
    needs=("solutions",),
    defaults=Defaults(
        budget="60-steps",
        changes={
            "run.tasks_per_step": "8",
            "run.group_size": "8",
            "run.max_tokens": "96",
            "run.preflight": "2",
            "run.rows": "512",
            "update.warmup": "5",
        },
    ),
    departures=(
        "instruction following is replaced by the laboratory's problems, and the reward of DPO's pairs is their check",
        "the laboratory's model has seen solutions of this form before",
    ),
)
