"""PAV: a step is rewarded by how much it changes a prover's chance of success."""

import numpy as np

from etude.credit.steps import prover_progress, with_progress
from etude.objective.policy import plain
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.probe import valued_steps
from etude.settings import stage

RECIPE = Recipe(
    name="pav",
    family="credit",
    n=307,
    paper=Paper(
        "Rewarding Progress: Scaling Automated Process Verifiers for LLM Reasoning", "2410.08146", 2024
    ),
    idea="A good step is one after which success is likelier than before, in the eyes of a prover that is not the policy itself. "
    "The prover here is the best of K of the policy's own continuations, sampled from the end of each step. "
    "Progress under the prover is added to the outcome.",
    equation="A_mu(h) = Q_mu(h) - Q_mu(h-1), Q_mu = 1 - (1 - Q_pi)^K;  grad = sum_h grad log pi(a_h) (r - mean r + alpha A_mu(h))",
    departures=(
        "values are Monte-Carlo estimates of this step's own attempts: no verifier is trained",
        "the prover is best-of-K; its value is computed from the estimate of Q_pi, which is biased for K > 1",
        "guess: alpha = 3 (the paper's is a few units), steps are lines; search at test time is left out",
    ),
    stages={"gather": stage(valued_steps), "credit": stage(with_progress), "objective": stage(plain)},
    confidence="memory",
    needs=("text",),
    claim="A best-of-K prover accelerates learning; the policy as its own prover (best_of=1) does not.",
    examples=(
        ByHand(
            "values 1/2, 1/2, 1 with K = 2", lambda: prover_progress(np.array([0.5, 0.5, 1]), 2), [0, 0.25]
        ),
        ByHand(
            "K = 1 is the policy's own progress", lambda: prover_progress(np.array([0.5, 0, 1]), 1), [-0.5, 1]
        ),
        Reduction("alpha 0: the outcome alone", "reinforce", {"credit.alpha": 0.0}),
    ),
)
