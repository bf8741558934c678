"""SAR: an answer is worth more where it is about the question, which the policy itself can tell.

Beside right or wrong, a reward says by how much the question makes the answer likelier. Text that would stand under any question
(repetition, filling) earns nothing. Self-Aligned Reward: Towards Effective and Efficient Reasoners, arXiv 2509.05489."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.credit.group import assigned, centred
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.methods.policy_gradient.dr_grpo import RECIPE as DR_GRPO
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.text.chat_template import Renderer
from etude.types import Array, Episode, Group, Message, Signal, Span


def unasked(episode: Episode, renderer: Renderer) -> Signal:
    """The first answer of an episode behind its prompt with the user's words emptied; what it says is weighted, nothing else."""
    first = next(i for i, span in enumerate(episode.spans) if span.sampled)
    blank = [Message(m.role, "" if m.role == "user" else m.content) for m in episode.task.prompt]
    before = Span("user", renderer.prompt(blank or [Message("user", "")]))
    answer = replace(episode.spans[first], restart=False)
    row = np.concatenate([np.zeros(len(before)), np.ones(len(answer))]).astype(np.float32)
    return Signal(replace(episode, spans=(before, answer)), 0 * row, {"policy": row})


def gains(episodes: Sequence[Episode], context: Context) -> list[float]:
    """g = mean_t [log pi(a_t | q, ..) - log pi(a_t | ..)] of each first answer, by the weights that sampled it."""
    asked = [unasked(e, context.policy.renderer) for e in episodes]
    rows = context.rows(asked, lambda out: out.logp)
    found = []
    for signal, row in zip(asked, rows, strict=True):
        answer = signal.episode.spans[1]
        without = row[len(signal.episode.spans[0]) :]
        found.append(float((answer.logp - without).mean()) if len(answer) else 0.0)
    return found


def self_aligned(gain: float) -> float:
    """clip((ppl(a) - ppl(a|q)) / ppl(a), -1, 1) = clip(1 - exp(-g), -1, 1); only the lower bound can bind."""
    return max(-1.0, 1 - math.exp(min(-gain, 50.0)))


def with_alignment(
    alignment_weight: Annotated[float, Setting("alpha: weight of the self-aligned reward", low=0)] = 0.2,
) -> Credit:
    """A_i = R_i - mean R, R = reward + alpha clip(1 - exp(-g), -1, 1). The policy of the step scores, before it is updated."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        worth = iter(gains(episodes, context) if alignment_weight else [0.0] * len(episodes))
        totals: list[Array] = []
        for group in groups:
            added = [alignment_weight * self_aligned(next(worth)) for _ in group.episodes]
            totals.append(centred(group.rewards + np.array(added)))
        return assigned(groups, totals)

    return credit


def credited(logp: float) -> list[float]:
    """Advantages of attempts with rewards 1 and 0, sampled at log-probability -1 a token, where without its question the first
    has `logp` a token and the second has -1."""
    context = GivenContext(GivenModel([logp, -1.0]))
    return beyond_prompt(given_stage(RECIPE, "credit")([example_answers((1.0, (5,)), (0.0, (6,)))], context))


RECIPE: Recipe = Recipe(
    name="self_aligned_reward",
    base=DR_GRPO,
    paper=Paper("Self-Aligned Reward: Towards Effective and Efficient Reasoners", "2509.05489", 2025),
    published_lr=1e-6,
    idea="The policy is asked how likely it would find its answer without the question. "
    "An answer that the question makes likelier is about the question, and earns a little more. "
    "Filling and repetition, which would stand anywhere, do not.",
    equation="R = R_correct + alpha clip(1 - exp(-g), -1, 1),  g = mean_t [log pi(a_t|q, a_<t) - log pi(a_t|a_<t)];  A_i = R_i - mean R",
    departures=("of an episode with several answers the first is scored",),
    stages={"credit": stage(with_alignment)},
    claim="Right answers become shorter than without the term, at the same accuracy.",
    unchecked="the term is added to the reward of every answer, whatever the policy does",
    examples=(
        ByHand(
            "twice as likely with the question: 1 - 1/2, times 0.2; the other gains nothing",
            lambda: credited(-1 - math.log(2)),
            [(1.1 - 0) / 2, -(1.1 - 0) / 2],
        ),
        ByHand(
            "four times less likely with it: bounded at -1",
            lambda: credited(-1 + math.log(4)),
            [0.8 / 2, -0.8 / 2],
        ),
        Reduction("alpha 0: Dr. GRPO", "dr_grpo", {"credit.alignment_weight": 0.0}),
    ),
)
