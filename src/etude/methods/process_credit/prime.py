"""PRIME: a process reward that nobody labelled, learned beside the policy from outcomes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import constant, leave_one_out, whitened
from etude.curriculum.filter import within
from etude.objective.outcome import binary_cross_entropy, to_outcome
from etude.objective.policy import clipped
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def to_go(rewards: Array) -> Array:
    """f[n]: the sum of each reward and all that follow."""
    return np.cumsum(rewards[::-1])[::-1]


def process_advantages(rewards: Sequence[Array], released: bool) -> list[Array]:
    """Reward-to-go of each episode's token rewards (f[n] each), less the mean token reward of the others; as
    `released`, plus (q_t - own mean) / (G - 1)."""
    means = np.array([q.mean() if len(q) else 0.0 for q in rewards])
    others = (means.sum() - means) / max(len(means) - 1, 1)
    extra = [(q - m) / max(len(means) - 1, 1) * released for q, m in zip(rewards, means, strict=True)]
    return [to_go(q - o + x) for q, o, x in zip(rewards, others, extra, strict=True)]


def _implicit(signal: Signal, beta: float, unit: str) -> Array:
    """f[n]: beta (log pi_phi - log pi_ref) of the sampled tokens; their sum on the last one if `unit` is whole."""
    q = beta * (signal.extras["prm"] - signal.extras["reference"])[signal.episode.sampled]
    return q if unit == "token" or not len(q) else np.append(np.zeros(len(q) - 1), q.sum())


def implicit_outcome(beta: float) -> Objective:
    """Binary cross-entropy between sigmoid(beta sum_t (log pi_phi - log pi_ref)) and the outcome R (PRIME)."""
    return to_outcome(
        lambda out, batch: beta * (out.logp - batch.extras["reference"]),
        binary_cross_entropy,
        reads={"reference"},
    )


def implicit_rewards(
    beta: Annotated[float, Setting("scale of the implicit reward", low=0)] = 0.05,
    process: Annotated[float, Setting("weight of the process part", low=0)] = 5.0,
    outcome: Annotated[float, Setting("weight of the outcome part", low=0)] = 5.0,
    unit: Annotated[str, Setting("what one implicit reward is for", choices=("token", "whole"))] = "token",
    judged: Annotated[
        str, Setting("by the reward model before or after its own step", choices=("before", "after"))
    ] = "before",
    online: Annotated[bool, Setting("train the reward model on every step's attempts")] = True,
    released: Annotated[bool, Setting("the baseline as in the released code")] = True,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """A_t = process x (reward-to-go of q_t less a baseline) + outcome x (r - mean of the others), with
    q_t = beta (log pi_phi - log pi_ref) over the batch's largest |reward-to-go| (PRIME, arXiv 2502.01456)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        plain = [constant(e, 0.0) for g in groups for e in g.episodes]
        outcomes = [np.full(len(s.advantage), s.episode.reward, np.float32) for s in plain]
        known = context.with_logp(plain, "reference")
        lessons = [
            replace(s, extras={**s.extras, "outcome": r}) for s, r in zip(known, outcomes, strict=True)
        ]

        def learn() -> None:
            if online:
                model = context.auxiliary["prm"]
                model.learn(implicit_outcome(beta), lessons, context.step, context.progress)

        if judged == "after":
            learn()
        scored = iter(context.with_logp(known, "prm"))
        if judged == "before":
            learn()
        rows = [[_implicit(next(scored), beta, unit) for _ in g.episodes] for g in groups]
        most = max((float(np.abs(to_go(q)).max()) for row in rows for q in row if len(q)), default=0.0) or 1.0
        signals = []
        for group, row in zip(groups, rows, strict=True):
            parts = process_advantages([process * q / most for q in row], released)
            whole = outcome * leave_one_out(group.rewards)
            for episode, part, base in zip(group.episodes, parts, whole, strict=True):
                signals.append(constant(episode, base))
                signals[-1].advantage[episode.sampled] += part
        return whitened(signals) if whiten else signals

    return credit


RECIPE = Recipe(
    name="prime",
    n=154,
    paper=Paper("Process Reinforcement through Implicit Rewards", "2502.01456", 2025),
    idea="A copy of the model learns to tell right answers from wrong ones by how much likelier than the starting model it finds them. "
    "That log-ratio, token by token, is a process reward that nobody had to label. "
    "It is added to the outcome, and learned anew on every step's attempts.",
    equation="q_t = beta (log pi_phi(y_t) - log pi_ref(y_t));  L_phi = BCE(sigmoid(sum_t q_t), R);  "
    "A_t = 5 sum_{s >= t} (q_s - mean of the others' mean q) / max |sum q| + 5 (r - mean of the others' r), whitened",
    departures=(
        "the reward model's learning rate is twice the policy's, as the paper's 1e-6 is twice its 5e-7",
    ),
    stages={
        "filter": stage(within),
        "credit": stage(implicit_rewards),
        "objective": stage(clipped, mean="token"),
    },
    auxiliary={"prm": AuxiliaryModel("copy", lr=2.0), "reference": AuxiliaryModel("start")},
    claim="Reaches a target accuracy with fewer attempts than RLOO, and a frozen reward model does worse than the online one.",
    examples=(
        ByHand(
            "rewards (1, 0) and (0): the others' means are 0 and 1/2",
            lambda: np.hstack(process_advantages([np.array([1.0, 0.0]), np.array([0.0])], False)),
            [1.0, 0.0, -0.5],
        ),
        ByHand(
            "as released: twice the distance to the mean of means, 1/4",
            lambda: np.hstack(process_advantages([np.array([1.0, 0.0]), np.array([0.0])], True)),
            [1.0, -0.5, -0.5],
        ),
        Reduction(
            "without the process part, on-policy: RLOO",
            "rloo",
            {
                "credit.process": 0,
                "credit.outcome": 1,
                "credit.whiten": False,
                "objective.mean": "sum",
                "filter.min_accuracy": 0,
                "filter.max_accuracy": 1,
            },
        ),
    ),
)
