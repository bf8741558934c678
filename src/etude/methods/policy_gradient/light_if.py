"""TEA-RL (Light-IF): an entropy bonus at the tokens where entropy would collapse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, group_mean, laid
from etude.credit.imitate import shown
from etude.methods.imitation.sft import RECIPE as SFT
from etude.objective.entropy import entropy_bonus
from etude.objective.policy import Beta, Dual, High, Low, clipped
from etude.objective.terms import Objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def bonuses(advantage: Sequence[Array], logp: Sequence[Array], alpha: float, most: float) -> list[Array]:
    """clip(alpha softmax_t(cov_t), 0, most) per sequence; cov_t = (A_t - mean A)(log pi_t - mean log pi), means
    over the tokens of all sequences."""
    if not advantage:
        return []
    mean_a, mean_p = np.concatenate(advantage).mean(), np.concatenate(logp).mean()
    covs = [(a - mean_a) * (p - mean_p) for a, p in zip(advantage, logp, strict=True)]
    powers = [np.exp(c - c.max()) for c in covs]
    return [np.clip(alpha * e / e.sum(), 0, most) for e in powers]


def with_bonus(
    alpha: Annotated[float, Setting("sum of a sequence's entropy weights before the bound", low=0)] = 0.1,
    most: Annotated[float, Setting("bound on a token's entropy weight", low=0)] = 5.0,
) -> Credit:
    """GRPO's advantage. Extras: `bonus`, the weight of each token's entropy (TEA-RL, arXiv 2508.03178)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        plain = [s for s in group_mean(std=True)(groups, context) if s.episode.sampled.any()]
        masks = [s.episode.sampled for s in plain]
        advantages = [s.advantage[m] for s, m in zip(plain, masks, strict=True)]
        logps = [s.episode.logp[m] for s, m in zip(plain, masks, strict=True)]
        rows = bonuses(advantages, logps, alpha, most)
        return [replace(s, extras={"bonus": laid(m, r)}) for s, m, r in zip(plain, masks, rows, strict=True)]

    return credit


def largest(values: Sequence[Array], share: float) -> list[Array]:
    """Which entries, over all arrays, are among the `share` of largest ones; of ties, the first."""
    flat = np.concatenate(values) if values else np.zeros(0)
    keep = np.zeros(len(flat), bool)
    keep[np.argsort(-flat, kind="stable")[: round(share * len(flat))]] = True
    return np.split(keep, np.cumsum([len(v) for v in values])[:-1])


def surprising(
    share: Annotated[float, Setting("share of solution tokens that are trained on", low=0, high=1)] = 0.8,
    factor: Annotated[float, Setting("c: how much entropy excuses a token's loss", low=0)] = 0.8,
):
    """Imitation of the tokens whose cross-entropy most exceeds `factor` times the policy's entropy there
    (Entropy-SFT, arXiv 2508.03178)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = shown(groups)
        deltas = context.rows(signals, lambda out: -out.logp - factor * out.entropy, {"entropy"})
        masks = [s.weights["imitation"] > 0 for s in signals]
        kept = largest([d[m] for d, m in zip(deltas, masks, strict=True)], share)
        rows = [laid(mask, keep) for mask, keep in zip(masks, kept, strict=True)]
        return [replace(s, weights={"imitation": row}) for s, row in zip(signals, rows, strict=True)]

    return credit


def clipped_with_entropy(
    low: Low = 1.0,
    high: High = 1.0,
    dual: Dual = 10.0,
    beta: Beta = 0.0,
    weight: Annotated[float, Setting("weight of the entropy term; 0: off", low=0)] = 1.0,
) -> Objective:
    """PPO's clip and -sg[bonus_t] H_t, token means."""
    return clipped(low, high, "token", dual, beta) + entropy_bonus(weight, "bonus")


TEA_RL = Recipe(
    name="tea_rl",
    n=186,
    paper=Paper(
        "Light-IF: Endowing LLMs with Generalizable Reasoning via Preview and Self-Checking for Complex Instruction Following",
        "2508.03178",
        2025,
    ),
    idea="Entropy collapses at the tokens where a high probability meets a high advantage. "
    "A bonus on the exact entropy is spread over each answer by that covariance, so that it acts where collapse begins. "
    "The rest is GRPO with a wide clip.",
    equation="L = PPO's clip - mean_t sg[clip(alpha softmax_t((A_t - mean A)(log pi_t - mean log pi)), 0, u)] H_t",
    departures=(
        "GUESS: the weight of the bonus is detached, and taken from the log-probabilities recorded when sampling, "
        "so later passes over a batch keep it",
        "alpha = 0.1, not 10: the weights of an answer sum to alpha, and answers here have tens of tokens, not thousands",
        "the KL to the starting policy (0.001 in the paper) is off: --set objective.beta=0.001",
        "partial credit per constraint is the checker's own reward",
    ),
    stages={"credit": stage(with_bonus), "objective": stage(clipped_with_entropy)},
    claim="Entropy stays higher than with GRPO at equal accuracy.",
    examples=(
        ByHand(
            "equal covariances: alpha = length gives weight 1",
            lambda: bonuses([np.ones(4)], [-np.ones(4)], 4.0, 5.0),
            [np.ones(4)],
        ),
        ByHand(
            "A = 1 and -1, log pi = -1 and -3: both covary by 1",
            lambda: bonuses(
                [np.array([1.0]), np.array([-1.0])], [np.array([-1.0]), np.array([-3.0])], 10.0, 5.0
            ),
            [[5.0], [5.0]],
        ),
        Reduction(
            "without the bonus and on-policy: GRPO with a token mean",
            "grpo",
            {"credit.alpha": 0.0},
            {"objective.mean": "token"},
        ),
    ),
)


ENTROPY_SFT = Recipe(
    name="entropy_sft",
    base=SFT,
    n=186,
    paper=TEA_RL.paper,
    idea="Fine-tuning need not make the model surer of what it already says. "
    "Only tokens are trained whose loss is large compared with the model's own uncertainty there. "
    "The surest fifth is left alone, which leaves entropy for the RL that follows.",
    equation="L = mean of CE_t over the share q of tokens with the largest CE_t - c H_t",
    departures=("tokens are chosen over the whole step, once, before its first update",),
    stages={"credit": stage(surprising)},
    claim="The policy's entropy stays higher than after SFT at equal training accuracy.",
    examples=(
        ByHand(
            "half of four, over two answers",
            lambda: np.concatenate(largest([np.array([3.0, 1]), np.array([2.0, 0])], 0.5)),
            [1, 0, 1, 0],
        ),
        Reduction("with all tokens it is SFT", "sft", {"credit.share": 1.0}),
    ),
)

RECIPES = (TEA_RL, ENTROPY_SFT)
