"""After reinforcement learning, single answers are better. Are many answers worse than before?

The finding: RL with verifiable rewards raises pass@1 and lowers pass@k for large k, since it concentrates on what the model
could do already (Yue et al.). Measured on the same held-out problems, with the same random numbers, before and after.
"""

from __future__ import annotations

from etude.recipe import Paper
from etude.study.declare import POINTS, Arm, Defaults, Hypothesis, Measure, Required, Study, Training, more
from etude.study.subject import attempts

STUDY = Study(
    name="passk_after_rl",
    paper=Paper(
        "Does Reinforcement Learning Really Incentivize Reasoning Capacity in LLMs Beyond the Base Model?",
        "2504.13837",
        2025,
    ),
    question="Does reinforcement learning raise pass@1 and lower pass@k?",
    arms=(Arm("untrained"), Arm("grpo", (Training("grpo"),)), Arm("rft", (Training("rft"),))),
    measures=(
        Measure("accuracy", POINTS, "right at a single attempt", attempts),
        Measure("pass@k", POINTS, "right in one of all samples", attempts),
        Measure("entropy", "nats/token", "surprise of what was sampled", attempts),
    ),
    hypotheses=(
        Hypothesis("pass@1 rises", "GRPO raises pass@1.", more("grpo", "accuracy", "untrained"), least=3.0),
        Hypothesis(
            "pass@k falls",
            "GRPO lowers pass@k below that of the untrained model.",
            more("grpo", "pass@k", "untrained"),
            least=2.0,
            better="lower",
            requires=(
                Required(
                    "points of pass@1 that GRPO gains", more("grpo", "accuracy", "untrained"), at_least=3
                ),
            ),
        ),
        Hypothesis(
            "entropy falls",
            "GRPO lowers the entropy.",
            more("grpo", "entropy", "untrained"),
            least=0.01,
            better="lower",
        ),
        Hypothesis(
            "imitation keeps more",
            "Imitating right answers (RFT) keeps a higher pass@k than GRPO does.",
            more("rft", "pass@k", "grpo"),
            least=2.0,
        ),
    ),
    defaults=Defaults(
        tasks="lab:level=2",
        budget="40-steps",
        samples=32,
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
    departures=("pass@k with k all of the samples (32 as recorded); the paper goes to 256 and more",),
)
