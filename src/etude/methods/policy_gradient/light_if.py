"""TEA-RL and Entropy-SFT (Light-IF): entropy is kept at the tokens where it would collapse.

Wang et al. (arXiv 2508.03178). TEA-RL. Credit: GRPO's advantage, and per token a weight of its entropy,
larger where a high probability meets a high advantage. Objective: PPO's clipped surrogate with wide bounds
and dual clip, minus the weighted exact entropy. Entropy-SFT. Credit: imitation of only those tokens whose
cross-entropy is large compared with the policy's entropy there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude.channels import writes
from etude.credit.group import Credit, advantage, laid
from etude.credit.imitate import shown
from etude.fixtures.examples import example_episode, example_group
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.entropy import entropy_bonus
from etude.objective.policy import Dual, High, KLWeight, Low, clipped
from etude.objective.terms import Objective
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Group, Signal

# ---- TEA-RL ---------------------------------------------------------------------------------------------------------


def bonuses(advantages: Sequence[Array], logp: Sequence[Array], alpha: float, bound: float) -> list[Array]:
    """clip(alpha softmax_t(cov_t), 0, bound) per answer; cov_t = (A_t - mean A)(log pi_t - mean log pi), means over the
    tokens of all answers."""
    if not advantages:
        return []
    mean_a, mean_p = np.concatenate(advantages).mean(), np.concatenate(logp).mean()
    covs = [(a - mean_a) * (p - mean_p) for a, p in zip(advantages, logp, strict=True)]
    powers = [np.exp(c - c.max()) for c in covs]
    return [np.clip(alpha * e / e.sum(), 0, bound) for e in powers]


@writes("policy", extras=("bonus",))
def with_bonus(
    tea_alpha: Annotated[float, Setting("sum of an answer's entropy weights before the bound", low=0)] = 0.1,
    bonus_bound: Annotated[float, Setting("bound on a token's entropy weight", low=0)] = 5.0,
) -> Credit:
    """GRPO's advantage. Extras: `bonus`, the weight of each token's entropy."""
    compared = advantage(scale="group std")

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        plain = [s for s in compared(groups, context) if s.episode.sampled.any()]
        masks = [s.episode.sampled for s in plain]
        advantages = [s.advantage[m] for s, m in zip(plain, masks, strict=True)]
        logps = [s.episode.logp[m] for s, m in zip(plain, masks, strict=True)]
        rows = bonuses(advantages, logps, tea_alpha, bonus_bound)
        return [replace(s, extras={"bonus": laid(m, r)}) for s, m, r in zip(plain, masks, rows, strict=True)]

    return credit


def clipped_with_entropy(
    clip_low: Low = 1.0,
    clip_high: High = 1.0,
    dual_clip: Dual = 10.0,
    kl_weight: KLWeight = 0.0,
    entropy_weight: Annotated[float, Setting("weight of the entropy term; 0: off", "per nat", low=0)] = 1.0,
) -> Objective:
    """PPO's clip - entropy_weight sg[bonus_t] H_t, token means."""
    return clipped(clip_low, clip_high, "token", dual_clip, kl_weight) + entropy_bonus(
        entropy_weight, "bonus"
    )


def example_bonus() -> list[Array]:
    """The bonus on two answers of two tokens each, one right, one wrong, with log pi = -1, -3 and -1, -3."""
    group = example_group([1.0, 0.0], [2, 2])
    logp = np.array([-1, -3], np.float32)
    spoken = [replace(e, spans=tuple(replace(s, logp=logp) for s in e.spans)) for e in group.episodes]
    signals = TEA_RL.stages["credit"].build("credit")([replace(group, episodes=tuple(spoken))], None)
    return [s.extras["bonus"] for s in signals]


A = 0.5 / 0.5001  # GRPO's advantage of the right one of two answers
TEA_RL = Recipe(
    name="tea_rl",
    paper=Paper(
        "Light-IF: Endowing LLMs with Generalizable Reasoning via Preview and Self-Checking for Complex Instruction Following",
        "2508.03178",
        2025,
    ),
    published_lr=5e-6,
    idea="Entropy collapses at the tokens where a high probability meets a high advantage. "
    "A bonus on the exact entropy is spread over each answer by that covariance, so that it acts where collapse begins. "
    "The rest is GRPO with a wide clip.",
    equation="L = PPO's clip - mean_t sg[clip(alpha softmax_t((A_t - mean A)(log pi_t - mean log pi)), 0, u)] H_t",
    departures=(
        "GUESS: the weight of the bonus is detached, and taken from the log-probabilities recorded when sampling, "
        "so later passes over a batch keep it",
        "alpha = 0.1, not 10: the weights of an answer sum to alpha, and answers here have tens of tokens, not thousands",
        "the KL to the starting policy (0.001 in the paper) is off: --set objective.kl_weight=0.001",
        "partial credit per constraint is the checker's own reward",
    ),
    stages={"credit": stage(with_bonus), "objective": stage(clipped_with_entropy)},
    claim="Entropy stays higher than with GRPO at equal accuracy.",
    manipulation=(Manipulated("there is entropy to keep, 0.02 nats a token", "exact_entropy", 0.02),),
    examples=(
        Credited("GRPO's advantage", [[1.0, 0.0]], [[A, -A]]),
        ByHand(
            "right: cov = A, -A, so the likely token; wrong: cov = -A, A, so the unlikely one; they sum to alpha = 0.1",
            example_bonus,
            [
                [0.1 * exp(A) / (exp(A) + exp(-A)), 0.1 * exp(-A) / (exp(A) + exp(-A))],
                [0.1 * exp(-A) / (exp(A) + exp(-A)), 0.1 * exp(A) / (exp(A) + exp(-A))],
            ],
        ),
        ByHand(
            "covariances of a thousand, both alike: no overflow",
            lambda: bonuses([np.array([1e3, -1e3])], [np.array([-1.0, -3.0])], 0.1, 5.0),
            [[0.05, 0.05]],
        ),
        ByHand(
            "alpha = 10 for one token each: bounded by 5",
            lambda: bonuses(
                [np.array([1.0]), np.array([-1.0])], [np.array([-1.0]), np.array([-3.0])], 10.0, 5.0
            ),
            [[5.0], [5.0]],
        ),
        OffPolicy(
            "praise above 2 and within; blame above the dual clip of 10 and within; less bonus x entropy",
            ratio=(2.5, 1.9, 12.0, 9.0, 0.1),
            advantage=(1.0, 1.0, -1.0, -1.0, -1.0),
            entropy=(1.0, 2.0, 1.0, 1.0, 3.0),
            extras={"bonus": (0.1, 0.2, 0.0, 0.0, 0.5)},
            loss=(-2 - 1.9 + 10 + 9 + 0.1 - (0.1 + 0.4 + 1.5)) / 5,
            gradient=(0, -1.9 / 5, 0, 9 / 5, 0.1 / 5),
        ),
        OffPolicy(
            "unequal bounds, the entropy off: 1.25 within, 0.75 beyond",
            ratio=(1.25, 1.4, 0.75),
            advantage=(1.0, 1.0, -1.0),
            entropy=(1.0, 1.0, 1.0),
            extras={"bonus": (1.0, 1.0, 1.0)},
            loss=(-1.25 - 1.3 + 0.8) / 3,
            gradient=(-1.25 / 3, 0, 0),
            settings={"objective.clip_low": 0.2, "objective.clip_high": 0.3, "objective.entropy_weight": 0.0},
        ),
        Reduction(
            "without the bonus and on-policy: GRPO with a token mean",
            "grpo",
            {"credit.tea_alpha": 0.0},
            {"objective.mean": "token"},
        ),
    ),
)


# ---- Entropy-SFT ----------------------------------------------------------------------------------------------------


def largest(values: Sequence[Array], share: float) -> list[Array]:
    """Which entries, over all arrays, are among the `share` of largest ones; of ties, the first."""
    flat = np.concatenate(values) if values else np.zeros(0)
    keep = np.zeros(len(flat), bool)
    keep[np.argsort(-flat, kind="stable")[: round(share * len(flat))]] = True
    return np.split(keep, np.cumsum([len(v) for v in values])[:-1])


@writes("imitation")
def surprising(
    trained_share: Annotated[
        float, Setting("share of solution tokens that are trained on", low=0, high=1)
    ] = 0.8,
    entropy_factor: Annotated[float, Setting("c: how much entropy excuses a token's loss", low=0)] = 0.8,
) -> Credit:
    """Imitation of the share of tokens with the largest CE_t - c H_t, CE_t = -log pi(y_t), H_t the policy's entropy."""

    def excess(out: Outputs) -> Tensor:
        assert out.entropy is not None
        return -out.logp - entropy_factor * out.entropy

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = shown(groups)
        deltas = context.rows(signals, excess, {"entropy"})
        masks = [s.weights["imitation"] > 0 for s in signals]
        kept = largest([d[m] for d, m in zip(deltas, masks, strict=True)], trained_share)
        rows = [laid(mask, keep) for mask, keep in zip(masks, kept, strict=True)]
        return [replace(s, weights={"imitation": row}) for s, row in zip(signals, rows, strict=True)]

    return credit


def example_kept() -> Array:
    """Weights of a solution of four tokens with CE = 3, 2, 1, 1 and H = 3, 0, 1, 0 of which half are to be trained on."""
    said = Outputs(-torch.tensor([3.0, 2, 1, 1]), torch.tensor([3.0, 0, 1, 0]), {})
    context = SimpleNamespace(rows=lambda signals, read, needs: [read(said).numpy()])
    solution = example_episode(1.0, range(4))
    shown = replace(solution.spans[0], tag="demonstration", sampled=False, logp=None)
    group = Group(solution.task, (), demonstrations=(replace(solution, spans=(shown,)),))
    (signal,) = ENTROPY_SFT.stages["credit"].but(trained_share=0.5).build("credit")([group], context)
    return signal.weights["imitation"]


ENTROPY_SFT = Recipe(
    name="entropy_sft",
    base=SFT,
    paper=TEA_RL.paper,
    published_lr=1e-5,
    idea="Fine-tuning need not make the model surer of what it already says. "
    "Only tokens are trained whose loss is large compared with the model's own uncertainty there. "
    "The surest fifth is left alone, which leaves entropy for the RL that follows.",
    equation="L = mean of CE_t over the share q of tokens with the largest CE_t - c H_t",
    departures=("tokens are chosen over the whole step, once, before its first update",),
    stages={"credit": stage(surprising)},
    claim="The policy's entropy stays higher than after SFT at equal training accuracy.",
    manipulation=(Manipulated("a twentieth of the tokens is left out", "signal_tokens", at_most=0.95),),
    examples=(
        ByHand("CE - 0.8 H = 0.6, 2, 0.2, 1: the second and the fourth", example_kept, [0, 1, 0, 1]),
        ByHand(
            "half of four, over two answers",
            lambda: np.concatenate(largest([np.array([3.0, 1]), np.array([2.0, 0])], 0.5)),
            [1, 0, 1, 0],
        ),
        Reduction("with all tokens it is SFT", "sft", {"credit.trained_share": 1.0}),
    ),
)

RECIPES = (TEA_RL, ENTROPY_SFT)
