"""Guide: hints for the tasks that nobody solved, trained as if they had not been given."""

import numpy as np

from etude.credit.normalise import apart, two_crowds
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.rollout.guided import after_failure
from etude.settings import stage

RECIPE = Recipe(
    name="guide",
    base=GRPO,
    family="objective",
    n=73,
    paper=Paper(
        "Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models", "2506.13923", 2025
    ),
    idea="A task that no attempt solves gives no signal, so it is tried again with a hint. "
    "The guided answers are trained on the prompt without the hint; the importance ratio has the hint in its denominator only. "
    "What the hint made easy becomes likely without it.",
    equation="rho_t = pi(y_t | x, y_<t) / pi_old(y_t | x, h, y_<t) for guided answers; L = PPO's clip with GRPO's advantage",
    departures=(
        "GUESS: guided attempts are normalised among themselves; --set credit.pooled=true pools them with the failed ones",
        "hints are the task's own, the vaguest by default, where the paper has a stronger model write them",
        "the attempts' own rollout is a single answer: guided attempts do not follow a replaced rollout stage",
    ),
    stages={"gather": stage(after_failure), "credit": stage(two_crowds)},
    needs=("hints",),
    confidence="guess",
    claim="On tasks with pass@k = 0, hints with the corrected ratio raise the un-hinted solve rate faster than GRPO.",
    examples=(
        ByHand(
            "two failed, then one of two solved with a hint",
            lambda: apart(np.array([0.0, 0, 1, 0]), np.array([False, False, True, True])),
            [0, 0, 1 / 1.0002, -1 / 1.0002],
        ),
        Reduction("never guided it is GRPO", "grpo", {"gather.attempts": 0.0}),
    ),
)
