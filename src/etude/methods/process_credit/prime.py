"""PRIME (arXiv 2502.01456): a process reward that nobody labelled. A copy of the model learns, from outcomes alone, to
tell right answers from wrong ones by how much likelier than the starting model it finds them; that log-ratio, token by
token, is added to the outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.credit.group import constant, laid, leave_one_out, whitened
from etude.curriculum.filter import within
from etude.fixtures.examples import example_group
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    beyond_prompt,
    example_answers,
    example_loss,
    given_stage,
)
from etude.objective.outcome import binary_cross_entropy, to_outcome
from etude.objective.policy import clipped
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Group, Signal

REWARD_MODEL = "prm"  # the auxiliary model phi


def implicit_outcome(dpo_beta: float) -> Objective:
    """L_phi: binary cross-entropy between sigmoid(beta sum_t (log pi_phi - log pi_ref)) and the outcome R."""
    return to_outcome(
        lambda out, batch: dpo_beta * (out.logp - batch.extras["reference"]),
        binary_cross_entropy,
        reads={"reference"},
    )


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


def _implicit(signal: Signal, dpo_beta: float, unit: str) -> Array:
    """f[n]: q_t = beta (log pi_phi - log pi_ref) of the sampled tokens; their sum on the last one if `unit` is whole."""
    q = dpo_beta * (signal.extras[REWARD_MODEL] - signal.extras["reference"])[signal.episode.sampled]
    return q if unit == "token" or not len(q) else np.append(np.zeros(len(q) - 1), q.sum())


def process_and_outcome(
    dpo_beta: Annotated[
        float, Setting("beta: inverse temperature of the implicit rewards beta log(pi / pi_ref)", low=0)
    ] = 0.05,
    process_weight: Annotated[float, Setting("weight of the process part", low=0)] = 5.0,
    outcome_weight: Annotated[float, Setting("weight of the outcome", low=0)] = 5.0,
    unit: Annotated[str, Setting("what one implicit reward is for", choices=("token", "whole"))] = "token",
    judged: Annotated[
        str, Setting("by the reward model before or after its own step", choices=("before", "after"))
    ] = "before",
    online: Annotated[bool, Setting("train the reward model on every step's attempts")] = True,
    released: Annotated[bool, Setting("the baseline as in the released code")] = True,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
) -> Credit:
    """A_t = process_weight x (reward-to-go of q_t less a baseline) + outcome_weight x (r - mean of the others), with
    q_t = beta (log pi_phi - log pi_ref) over the batch's largest |reward-to-go|."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        plain = [constant(e, 0.0) for g in groups for e in g.episodes]
        known = context.with_logp(plain, "reference")
        lessons = [
            replace(
                s, extras={**s.extras, "outcome": np.full(len(s.advantage), s.episode.reward, np.float32)}
            )
            for s in known
        ]

        def learn() -> None:
            if online:
                model = context.auxiliary[REWARD_MODEL]
                model.learn(implicit_outcome(dpo_beta), lessons, context.step, context.progress)

        if judged == "after":
            learn()
        scored = iter(context.with_logp(known, REWARD_MODEL))
        if judged == "before":
            learn()
        rows = [[_implicit(next(scored), dpo_beta, unit) for _ in g.episodes] for g in groups]
        most = max((float(np.abs(to_go(q)).max()) for row in rows for q in row if len(q)), default=0.0) or 1.0
        signals = []
        for group, row in zip(groups, rows, strict=True):
            parts = process_advantages([process_weight * q / most for q in row], released)
            whole = outcome_weight * leave_one_out(group.rewards)
            for episode, part, base in zip(group.episodes, parts, whole, strict=True):
                signals.append(Signal(episode, laid(episode.sampled, np.float32(base) + part)))
        return whitened(signals) if whiten else signals

    return credit


# log pi_phi = -1 on every token of a right attempt of two tokens and of a wrong one of one; log pi_ref = -3, -1 and 0.
PAIR = example_answers((1.0, (2, 3)), (0.0, (4,)))
REFERENCE = (-3.0, -1.0, 0.0)


def _advantages(**settings: float | bool | str) -> list[float]:
    context = GivenContext(
        auxiliary={"reference": GivenModel(logp=REFERENCE), REWARD_MODEL: GivenModel(logp=-1.0)}
    )
    return beyond_prompt(given_stage(RECIPE, "credit", whiten=False, **settings)([PAIR], context))


def _reward_model_loss() -> float:
    """What the reward model is trained by, at beta = ln 3 / 2: sums of ln 3 and -ln(3) / 2, of a right and a wrong
    attempt."""
    model = GivenModel(logp=-1.0)
    context = GivenContext(auxiliary={"reference": GivenModel(logp=REFERENCE), REWARD_MODEL: model})
    given_stage(RECIPE, "credit", dpo_beta=math.log(3) / 2)([PAIR], context)
    ((objective, signals),) = model.lessons
    return example_loss(objective, signals, model)


def _kept() -> list[int]:
    """How many of five attempts are right in the groups that the filter keeps."""
    groups = [example_group([1.0] * right + [0.0] * (5 - right)) for right in range(6)]
    kept = given_stage(RECIPE, "filter")(groups, GivenContext())
    return [sum(e.correct for e in group.episodes) for group in kept]


RECIPE = Recipe(
    name="prime",
    paper=Paper("Process Reinforcement through Implicit Rewards", "2502.01456", 2025),
    published_lr=5e-7,
    idea="A copy of the model learns to tell right answers from wrong ones by how much likelier than the starting model it finds them. "
    "That log-ratio, token by token, is a process reward that nobody had to label. "
    "It is added to the outcome, and learned anew on every step's attempts.",
    equation="q_t = beta (log pi_phi(y_t) - log pi_ref(y_t));  L_phi = BCE(sigmoid(sum_t q_t), R);  "
    "A_t = 5 sum_{s >= t} (q_s - mean of the others' mean q) / max |sum q| + 5 (r - mean of the others' r), whitened",
    departures=(
        "the reward model's learning rate is twice the policy's, as the paper's 1e-6 is twice its 5e-7",
        "as in the release, other groups are drawn for those outside the band (up to run.oversample): at equal steps it pays for more "
        "attempts than a method without a filter",
    ),
    stages={
        "filter": stage(within),
        "credit": stage(process_and_outcome),
        "objective": stage(clipped, mean="token"),
    },
    auxiliary={REWARD_MODEL: AuxiliaryModel("copy", lr=2.0), "reference": AuxiliaryModel("start")},
    claim="Reaches a target accuracy with fewer attempts than RLOO, and a frozen reward model does worse than the online one.",
    unchecked="the reward model learns from every step, and what it says is scaled to the largest of the batch",
    examples=(
        ByHand("kept: 1 to 4 of 5 right, not 0 and not 5", _kept, [1, 2, 3, 4]),
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
        # q = 0.05 (2, 0) and -0.05, over the largest reward-to-go 0.1, times 5: (5, 0) and -2.5, of means 2.5 and -2.5.
        # Less the others' mean: (7.5, 2.5) and -5. The outcome's part is +-5.
        ByHand("as written", lambda: _advantages(released=False), [10 + 5, 2.5 + 5, -5 - 5]),
        # Plus (5 - 2.5, 0 - 2.5) and 0: (10, 0) and -5.
        ByHand("as released, by default", lambda: _advantages(), [10 + 5, 0 + 5, -5 - 5]),
        # The same q, laid on the last tokens: (0, 5) and -2.5.
        ByHand(
            "one reward for the whole answer",
            lambda: _advantages(released=False, unit="whole"),
            [10 + 5, 7.5 + 5, -5 - 5],
        ),
        ByHand(
            "the reward model's loss: sigmoid(ln 3) = 3/4 of a right answer, 1/(1 + sqrt 3) of a wrong one",
            _reward_model_loss,
            (-math.log(3 / 4) - math.log(3**0.5 / (1 + 3**0.5))) / 2,
        ),
        OffPolicy(
            "praise beyond the clip, within it; blame beyond it, within it; a token mean",
            ratio=(1.5, 1.1, 0.5, 0.9),
            advantage=(1.0, 1.0, -1.0, -1.0),
            lengths=(3, 1),
            loss=(-1.2 - 1.1 + 0.8 + 0.9) / 4,
            gradient=(0, -1.1 / 4, 0, 0.9 / 4),
        ),
        Reduction(
            "without the process part, on-policy: RLOO",
            "rloo",
            {
                "credit.process_weight": 0,
                "credit.outcome_weight": 1,
                "credit.whiten": False,
                "objective.mean": "sum",
                "filter.min_accuracy": 0,
                "filter.max_accuracy": 1,
            },
        ),
    ),
)
