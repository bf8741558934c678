"""A-LoL: offline policy gradient that keeps only what is better than expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.credit.imitate import tagged
from etude.models.outputs import Outputs
from etude.objective.off_policy import per_answer
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import demonstrate
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout, GroupRolloutStage
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal, Task


async def judged_solution(task: Task, conversation: Conversation) -> Episode:
    """The task's own solution, judged like any other; in a world, by the world."""
    if task.environment is None:
        await conversation.check(task.reference or task.answer or "")
    return demonstrate(task, conversation)


def by_the_start(
    traces: Annotated[bool, Setting("the tasks' own solutions, judged, are data as well")] = False,
) -> GroupRolloutStage:
    """Attempts of the policy as it was when the run began: an offline data set, read once
    (A-LoL, arXiv 2305.14718)."""

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
    """(V(x) - R)^2 / 2, V the head "value" at an answer's first token (A-LoL)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return 0.5 * (out.heads["value"][:, 0] - batch.extras["reward"]) ** 2

    return objective(Term("value", loss, weight="first"))


def above_value(
    baseline: Annotated[bool, Setting("subtract the start's expected reward V(x)")] = True,
    priority: Annotated[bool, Setting("draw what is kept anew, in proportion to A")] = False,
):
    """A = R - V(x); answers with A <= 0 are left out. V is a linear head on the frozen start, which learns from the
    step's attempts after they were judged by it (A-LoL, arXiv 2305.14718)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = [whole_answer(e) for g in groups for e in (*g.episodes, *g.demonstrations)]
        if baseline:
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


def clipped_weights(gap: Tensor, answer: Tensor, by: str, epsilon: float) -> Tensor:
    """clip(pi_theta / pi_ref, 1 - epsilon, 1 + epsilon) of whole answers, of tokens, or 1, from the log-ratio `gap`
    of each token (A-LoL)."""
    log_ratio = {"answer": per_answer(gap, answer), "token": gap, "off": torch.zeros_like(gap)}[by]
    return log_ratio.clamp(-20, 20).exp().clamp(1 - epsilon, 1 + epsilon)


def offline(
    weight: Annotated[str, Setting("importance weight", choices=("answer", "token", "off"))] = "answer",
    epsilon: Annotated[float, Setting("how far a weight may be from 1", low=0, high=1)] = 0.9,
    beta: Annotated[float, Setting("weight of log pi - log pi_start", "nats", low=0)] = 0.0,
) -> Objective:
    """-(sg[w] A - beta) log pi_theta(y_t), summed over an answer, mean over answers
    (A-LoL, arXiv 2305.14718)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        gap = torch.where(batch.weight("policy") != 0, out.logp - batch.extras["reference"], 0.0).detach()
        w = clipped_weights(gap, batch.episode, weight, epsilon)
        return (beta - w * batch.advantage) * out.logp, {"importance": w}

    term = Term("policy", loss, sum_per_episode, proportional=not beta)
    return objective(term, reads={"reference"})


TWICE, SAME = torch.tensor([1.2, 1.2]).log(), torch.zeros(2, dtype=torch.int64)  # two tokens of one answer
RECIPE = Recipe(
    name="a_lol",
    n=54,
    paper=Paper(
        "Improving Language Models with Advantage-based Offline Policy Gradients", "2305.14718", 2023
    ),
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
    examples=(
        ByHand("of an answer", lambda: clipped_weights(TWICE, SAME, "answer", 0.9), [1.44, 1.44]),
        ByHand("clipped at 1.3", lambda: clipped_weights(TWICE, SAME, "answer", 0.3), [1.3, 1.3]),
        ByHand("of tokens", lambda: clipped_weights(TWICE, SAME, "token", 0.3), [1.2, 1.2]),
    ),
)
