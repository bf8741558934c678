"""A-LoL: offline policy gradient that keeps only what is better than expected.

Baheti et al. (arXiv 2305.14718). Group rollout: attempts of the policy as it was when the run began, an
offline data set. Credit: A = R - V(x), V a linear head on the frozen start; answers with A <= 0 are left out.
Objective: REINFORCE, a whole answer weighed by its clipped ratio to the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.group import Credit
from etude.credit.imitate import tagged
from etude.fixtures.examples import example_group
from etude.models.outputs import Outputs
from etude.objective.policy import KLWeight
from etude.objective.terms import Objective, Term, TokenLoss, objective, per_answer, sum_per_episode
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import demonstrate
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage
from etude.types import Array, Episode, Group, Signal, Task


async def judged_solution(task: Task, conversation: Conversation) -> Episode:
    """The task's own solution, judged like any other; in a world, by the world."""
    if task.environment is None:
        await conversation.check(task.reference or task.answer or "")
    return demonstrate(task, conversation)


def by_the_start(
    traces: Annotated[bool, Setting("the tasks' own solutions, judged, are data as well")] = False,
) -> GroupRolloutStage:
    """Attempts of the policy as it was when the run began: an offline data set, read once."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        written = await replace(rollouts, generator=rollouts.generators["reference"]).plays(
            range(rollouts.samples)
        )
        return written + await rollouts.play(DEMONSTRATION, judged_solution) if traces else written

    return group_rollout


def whole_answer(episode: Episode) -> Signal:
    """The answer's tokens with its reward as advantage; weight `first` on the first, where V(x) is read."""
    mask = episode.sampled | tagged(episode, "demonstration")
    reward = (mask * episode.reward).astype(np.float32)
    rows = {"policy": mask, "first": mask & (np.cumsum(mask) == 1)}
    return Signal(episode, reward, {n: r.astype(np.float32) for n, r in rows.items()}, {"reward": reward})


def estimate_value() -> Objective:
    """(V(x) - R)^2 / 2, V the head "value" at an answer's first token."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return 0.5 * (out.heads["value"][:, 0] - batch.extras["reward"]) ** 2

    return objective(Term("value", loss, weight="first"))


@writes("policy", "first", extras=("reward",))
def above_value(
    subtract_value: Annotated[bool, Setting("subtract the start's expected reward V(x)")] = True,
    priority: Annotated[bool, Setting("draw what is kept anew, in proportion to A")] = False,
) -> Credit:
    """A = R - V(x); answers with A <= 0 are left out. V is a linear head on the frozen start, which learns from the
    step's attempts after they were judged by it."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = [whole_answer(e) for g in groups for e in (*g.episodes, *g.demonstrations)]
        if subtract_value:
            critic = context.auxiliary["critic"]
            values = context.rows(signals, lambda out: out.heads["value"][:, 0], policy=critic.policy)
            own = [s for s in signals if not s.episode.demonstration]
            critic.learn(estimate_value(), own, context.step, context.progress)
            expected = [float(v @ s.weights["first"]) for s, v in zip(signals, values, strict=True)]
            signals = [
                replace(s, advantage=s.advantage - np.float32(v) * s.weights["policy"])
                for s, v in zip(signals, expected, strict=True)
            ]
        kept = [s for s in signals if s.advantage.max(initial=0) > 0]
        if priority and kept:
            worth = np.array([s.advantage.max() for s in kept])
            drawn = context.rng("priority", context.drawn).choice(len(kept), len(kept), p=worth / worth.sum())
            kept = [kept[i] for i in drawn]
        return kept

    return credit


def offline(
    importance_unit: Annotated[
        str, Setting("what the importance weight is the ratio of", choices=("answer", "token", "off"))
    ] = "answer",
    weight_clip: Annotated[float, Setting("how far a weight may be from 1", low=0, high=1)] = 0.9,
    kl_weight: KLWeight = 0.0,
) -> Objective:
    """-(w A - kl_weight) log pi_theta(y_t), summed over an answer, mean over answers;
    w = sg[clip(pi_theta / pi_ref, 1 - weight_clip, 1 + weight_clip)] of the answer or of the token, or 1."""

    def weights(gap: Tensor, answer: Tensor) -> Tensor:
        if importance_unit == "answer":
            gap = per_answer(gap, answer)
        elif importance_unit == "off":
            gap = torch.zeros_like(gap)
        return gap.clamp(-20, 20).exp().clamp(1 - weight_clip, 1 + weight_clip)

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        gap = torch.where(batch.weight("policy") != 0, out.logp - batch.extras["reference"], 0.0).detach()
        w = weights(gap, batch.episode)
        return (kl_weight - w * batch.advantage) * out.logp, {"importance": w}

    term = Term("policy", loss, sum_per_episode, proportional=not kl_weight)
    return objective(term, reads={"reference"}, silent={"first", "reward"})  # those two are the critic's


def credited() -> list[Array]:
    """Advantages of the answers that are kept of right, wrong, half right, where V(x) = 0.4."""
    found = SimpleNamespace(
        auxiliary={"critic": SimpleNamespace(policy=None, learn=lambda *lesson: None)},
        rows=lambda signals, read, policy: [np.array([0.4, 9.0], np.float32) for _ in signals],
        step=0,
        progress=0.0,
    )
    credit = RECIPE.stages["credit"].build("credit")
    return [s.advantage for s in credit([example_group([1.0, 0.0, 0.5], [2, 2, 2])], found)]


RECIPE = Recipe(
    name="a_lol",
    paper=Paper(
        "Improving Language Models with Advantage-based Offline Policy Gradients", "2305.14718", 2023
    ),
    published_lr=2e-4,
    idea="The starting model is asked how good an answer it expects of itself; only answers that are better are learned from. "
    "A whole answer is one action, weighed by how much better it is and by how much likelier it has become. "
    "No new answers of the trained policy are needed.",
    equation="L = - mean_i sg[clip(pi(y_i)/pi_ref(y_i), 1-e, 1+e)] max(0, R_i - V(x_i)) log pi(y_i)",
    departures=(
        "the data are attempts of the starting policy, written as training goes: a set made beforehand, read once",
        "V learns online from those attempts, after judging them, instead of from a validation set beforehand",
    ),
    stages={"group_rollout": stage(by_the_start), "credit": stage(above_value), "objective": stage(offline)},
    auxiliary={"critic": AuxiliaryModel("copy", lr=0.0, heads={"value": 1})},
    claim="On a noisy set of solutions, keeping A > 0 beats imitating all of them, in fewer steps.",
    manipulation=(Manipulated("weights of answers move by 0.05", "importance", 0.05, read="range"),),
    examples=(
        ByHand("rewards 1, 0, 0.5 at V(x) = 0.4: 0.6 and 0.1 are kept", credited, [[0.6, 0.6], [0.1, 0.1]]),
        OffPolicy(
            "weights of answers: 1.2 x 1.2 = 1.44; 4 counts as 1.9; 0.05 as 0.1; log pi = -1 + log of the ratio",
            ratio=(1.2, 1.2, 4.0, 0.05),
            advantage=(1.0, 1.0, 0.5, 0.5),
            lengths=(2, 1, 1),
            extras={"reference": (-1.0, -1.0, -1.0, -1.0)},
            loss=(-1.44 * (2 * log(1.2) - 2) - 0.95 * (log(4) - 1) - 0.05 * (log(0.05) - 1)) / 3,
            gradient=(-1.44 / 3, -1.44 / 3, -0.95 / 3, -0.05 / 3),
        ),
        OffPolicy(
            "weights of tokens, within 0.7 and 1.3: 1.2, 1.5, 0.5",
            ratio=(1.2, 1.5, 0.5),
            advantage=(1.0, 1.0, 1.0),
            extras={"reference": (-1.0, -1.0, -1.0)},
            loss=-1.2 * (log(1.2) - 1) - 1.3 * (log(1.5) - 1) - 0.7 * (log(0.5) - 1),
            gradient=(-1.2, -1.3, -0.7),
            settings={"objective.importance_unit": "token", "objective.weight_clip": 0.3},
        ),
        OffPolicy(
            "kl_weight 0.25 is taken off the weighed advantage, so that it makes an answer less likely; no importance weight",
            ratio=(2.0, 0.5),
            advantage=(1.0, -0.5),
            extras={"reference": (-1.0, -1.0)},
            loss=(0.25 - 1) * (log(2) - 1) + (0.25 + 0.5) * (log(0.5) - 1),
            gradient=(0.25 - 1, 0.25 + 0.5),
            settings={"objective.importance_unit": "off", "objective.kl_weight": 0.25},
        ),
    ),
)
