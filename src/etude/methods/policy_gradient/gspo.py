"""GSPO: one importance ratio per answer.

Zheng et al. (arXiv 2507.18071). Credit: GRPO's. Objective: the clipped surrogate with the geometric mean of
an answer's token ratios in the place of each of them, so that an answer is clipped, or not, as a whole.
"""

from __future__ import annotations

from etude.batch import Batch
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.models.outputs import Outputs
from etude.objective.policy import High, Low
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    clipped_share,
    log_ratio,
    objective,
    per_episode,
    segment_mean,
    surrogate,
)
from etude.recipe import Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import stage


def sequence_clipped(clip_low: Low = 3e-4, clip_high: High = 4e-4) -> Objective:
    """-min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i), s_i = exp(mean_t log rho_it), mean over answers.

    Every token carries s_i, so that the mean over the tokens of an answer is the answer's loss."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        mean = segment_mean(log_ratio(out, batch), batch.episode, batch.sampled & batch.needed)
        ratio = mean.exp()[batch.episode]  # s_i
        cut = clipped_share(ratio, batch.advantage, clip_low, clip_high)
        return surrogate(ratio, batch.advantage, clip_low, clip_high), {"clip": cut, "ratio": ratio}

    return objective(Term("policy", loss, per_episode, proportional=True))


RECIPE = Recipe(
    name="gspo",
    base=GRPO,
    paper=Paper("Group Sequence Policy Optimization", "2507.18071", 2025),
    idea="The reward belongs to the whole answer, so the ratio should too: the geometric mean of the token ratios. "
    "It is clipped in a narrow band. All tokens of an answer share its fate.",
    equation="s_i = (pi(y_i)/pi_old(y_i))^(1/|y_i|);  L = - mean_i min(s_i A_i, clip(s_i, 1-3e-4, 1+4e-4) A_i)",
    stages={"objective": stage(sequence_clipped)},
    manipulation=(Manipulated("a token in a hundred is clipped", "clip", 0.01),),
    examples=(
        OffPolicy(
            "s = 1.00035 (two tokens) within, 1.0005 and 0.99965 beyond, 0.99975 within; the other side is never clipped",
            ratio=(2 * 1.00035, 1.00035 / 2, 1.0005, 0.99965, 0.99975, 0.99, 1.01),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0),
            lengths=(2, 1, 1, 1, 1, 1),
            loss=(-1.00035 - 1.0004 + 0.9997 + 0.99975 - 0.99 + 1.01) / 6,
            gradient=(-1.00035 / 12, -1.00035 / 12, 0, 0, 0.99975 / 6, -0.99 / 6, 1.01 / 6),
        ),
        OffPolicy(
            "wider bounds: s = sqrt(4 x 0.25) = 1; 1.25 within 1.3, 1.5 beyond, 0.85 beyond 0.9",
            ratio=(4.0, 0.25, 1.25, 1.5, 0.85),
            advantage=(1.0, 1.0, 1.0, 1.0, -1.0),
            lengths=(2, 1, 1, 1),
            loss=(-1 - 1.25 - 1.3 + 0.9) / 4,
            gradient=(-1 / 8, -1 / 8, -1.25 / 4, 0, 0),
            settings={"objective.clip_low": 0.1, "objective.clip_high": 0.3},
        ),
        Reduction("on-policy the gradient is GRPO's", "grpo"),
    ),
)
