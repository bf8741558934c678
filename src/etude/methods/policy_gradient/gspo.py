"""GSPO: one importance ratio per answer."""

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
from etude.recipe import Paper, Recipe, Reduction
from etude.settings import stage


def sequence_clipped(low: Low = 3e-4, high: High = 4e-4) -> Objective:
    """GSPO: one ratio per episode, s_i = exp(mean_t log rho_t), clipped as a whole (arXiv 2507.18071).

    Every token carries s_i, so that the mean over tokens of an episode is the episode's loss."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        mean = segment_mean(log_ratio(out, batch), batch.episode, batch.sampled & batch.needed)
        ratio = mean.exp()[batch.episode]
        cut = clipped_share(ratio, batch.advantage, low, high)
        return surrogate(ratio, batch.advantage, low, high), {"clip": cut, "ratio": ratio}

    return objective(Term("policy", loss, per_episode, proportional=True))


RECIPE = Recipe(
    name="gspo",
    base=GRPO,
    paper=Paper("Group Sequence Policy Optimization", "2507.18071", 2025),
    idea="The reward belongs to the whole answer, so the ratio should too: the geometric mean of the token ratios. "
    "It is clipped in a narrow band. All tokens of an answer share its fate.",
    equation="s_i = (pi(y_i)/pi_old(y_i))^(1/|y_i|);  L = - mean_i min(s_i A_i, clip(s_i, 1-3e-4, 1+4e-4) A_i)",
    stages={"objective": stage(sequence_clipped)},
    examples=(Reduction("on-policy the gradient is GRPO's", "grpo"),),
)
