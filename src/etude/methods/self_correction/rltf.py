"""RLTF: learning from what a judge says of a wrong answer, not only from its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch

from etude.batch import Batch
from etude.credit.attempts import adopted, compared, distilled, on_parts, scores_of
from etude.credit.imitate import tagged
from etude.models.outputs import Outputs
from etude.objective.attempts import weighted
from etude.objective.hybrid import imitation
from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective, sharing_denominator
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import less_form
from etude.rollout.attempts import nth
from etude.rollout.second import CRITIQUE, Refine
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal


def formatted(
    form: Annotated[float, Setting("taken off where no answer is found", low=0, high=1)] = 0.1,
):
    """The reward of each attempt (`first`, `second`), less `form` where no answer was found. `reward`: the last
    (RLTF, arXiv 2602.02482)."""

    def reward(episode: Episode) -> dict[str, float]:
        rewards = less_form(episode, form)
        return {"reward": rewards[-1], **dict(zip(("first", "second"), rewards, strict=False))}

    return reward


Gamma = Annotated[float, Setting("what the second turn's reward counts for the first", low=0, high=1)]


def discounted(first: float, second: float | None, gamma: float) -> float:
    """R_1 = r_1 + gamma r_2, or r_1 where there was no second attempt."""
    return first + gamma * (second or 0.0)


def two_turns(groups: Sequence[Group], gamma: float) -> list[Signal]:
    """Both attempts, each turn's return against the mean of that turn's returns in the group
    (RLTF, arXiv 2602.02482)."""
    signals = []
    for group in groups:
        seconds = scores_of(group, "second")
        firsts = zip(scores_of(group, "first"), seconds, strict=True)
        first, second = compared([discounted(a or 0.0, b, gamma) for a, b in firsts]), compared(seconds)
        for episode, a, b in zip(group.episodes, first, second, strict=True):
            signals.append(on_parts(episode, {nth(1): a, nth(2): b}))
    return signals


def _known(signal: Signal, logp: Any, floor: float) -> Signal:
    where = tagged(signal.episode, nth(2))
    weights = {"distilled": (where & (logp >= floor)).astype(np.float32)}
    return Signal(adopted(signal.episode, where, logp), signal.advantage, weights)


def self_distilled(
    gamma: Gamma = 0.1,
    floor: Annotated[
        float, Setting("log-probability without the critique below which a token is left out", "nats", high=0)
    ] = -5.0,
):
    """`two_turns`, and the second attempt under the prompt without the critique, with r_2 - mean r_1: row
    "distilled". Its old log-probabilities are those of that prompt (RLTF-SD, arXiv 2602.02482)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        helped = []
        for group in groups:
            baseline = float(np.mean([s or 0.0 for s in scores_of(group, "first")] or [0.0]))
            for episode in group.episodes:
                gain = episode.scores.get("second", 0.0) - baseline
                helped += distilled(episode, nth(2), "distilled", gain)
        old = context.rows(helped, lambda out: out.logp)
        return two_turns(groups, gamma) + [
            _known(s, logp, floor) for s, logp in zip(helped, old, strict=True)
        ]

    return credit


def feedback_modelled(gamma: Gamma = 0.1):
    """`two_turns`, and the critique under the prompt that shows question and answer only: row "imitation"
    (RLTF-FM, arXiv 2602.02482)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        said = [distilled(e, CRITIQUE, "imitation") for g in groups for e in g.episodes]
        return two_turns(groups, gamma) + [s for signals in said for s in signals]

    return credit


def importance_weighted(mean: MeanOver = "sum") -> Objective:
    """-rho_t A_t, not clipped."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ratio = log_ratio(out, batch).exp()
        return weighted(ratio, batch.advantage), {"ratio": ratio}

    return objective(Term("policy", loss, MEANS[mean], proportional=True))


def with_self_distillation(
    distil: Annotated[float, Setting("weight of the self-distillation", low=0)] = 0.1, mean: MeanOver = "sum"
) -> Objective:
    """Importance-weighted policy gradient of both turns, and `distil` x that of the second attempt without help
    (RLTF-SD, arXiv 2602.02482)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return weighted(log_ratio(out, batch).exp(), batch.advantage)

    base = importance_weighted(mean)
    return (
        base + objective(Term("distilled", loss, sharing_denominator(MEANS[mean]), "distilled", distil, True))
        if distil
        else base
    )


def with_feedback_model(
    feedback: Annotated[float, Setting("weight of predicting the critique", low=0)] = 0.1,
    mean: MeanOver = "sum",
) -> Objective:
    """Importance-weighted policy gradient of both turns, and cross-entropy on the critique
    (RLTF-FM, arXiv 2602.02482)."""
    return importance_weighted(mean) + imitation(feedback)


PAPER = Paper("Expanding the Capabilities of Reinforcement Learning via Text Feedback", "2602.02482", 2026)
SAME = (
    "the judge is the policy itself by default (--set rollout.critic=teacher, start or remote for another), and what it writes is "
    "not itself reinforced",
    "the judge is told the task's own feedback; that it reveals no answer is asked of it, not enforced",
    "no LoRA of its own and the run's learning rate",
)
ALONE = Reduction("no second attempts: REINFORCE", "reinforce", {"rollout.second": 0.0})
RLTF_SD = Recipe(
    name="rltf_sd",
    n=19,
    paper=PAPER,
    idea="A wrong answer is criticised, and the model answers again with the critique in view. "
    "The second answer is then also learnt as an answer to the bare question, by how much better it did than first answers do. "
    "So what the critique made easy becomes part of the first attempt.",
    equation="L = - sum rho_t A_t over both turns, A = R_turn - mean of the turn, R_1 = r_1 + gamma r_2;  "
    "- c (r_2 - mean_j r_1j) rho_t(y_2 | x)",
    departures=SAME,
    stages={
        "rollout": stage(Refine),
        "reward": stage(formatted),
        "credit": stage(self_distilled),
        "objective": stage(with_self_distillation),
    },
    claim="Single-turn accuracy after training exceeds that of two-turn GRPO; the second turn's own mean as a baseline is worse.",
    examples=(
        ByHand(
            "first turns: right at once; wrong, then right",
            lambda: [discounted(1.0, None, 0.1), discounted(0.0, 1.0, 0.1)],
            [1, 0.1],
        ),
        ByHand(
            "the mean of those who had a second turn",
            lambda: compared([None, 1.0, 0.0, None]),
            [0, 0.5, -0.5, 0],
        ),
        ByHand(
            "right second, a quarter of the first right, half as likely as before",
            lambda: weighted(torch.tensor(0.5), torch.tensor(1 - 0.25)),
            -0.375,
        ),
        ALONE,
        Reduction(
            "without the distillation it is two-turn REINFORCE, as RLTF-FM without its critiques",
            "rltf_fm",
            {"objective.distil": 0.0},
            {"objective.feedback": 0.0},
        ),
    ),
)
RLTF_FM = Recipe(
    name="rltf_fm",
    n=19,
    paper=PAPER,
    idea="A wrong answer is criticised by someone who knows what came of it, and the model answers again. "
    "Beside being reinforced in both turns, the model learns to predict the critique from question and answer alone. "
    "It can then criticise itself when nobody else does.",
    equation="L = - sum rho_t A_t over both turns;  - lambda mean_t log pi(c_t | question, answer)",
    departures=SAME,
    stages={
        "rollout": stage(Refine),
        "reward": stage(formatted),
        "credit": stage(feedback_modelled),
        "objective": stage(with_feedback_model),
    },
    claim="With self-critique at test time accuracy exceeds that of the single turn, and of two-turn GRPO.",
    examples=(
        ByHand("a discount of 0: each turn for itself", lambda: discounted(0.5, 1.0, 0.0), 0.5),
        ALONE,
    ),
)
RECIPES = (RLTF_SD, RLTF_FM)
