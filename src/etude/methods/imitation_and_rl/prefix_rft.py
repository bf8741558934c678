"""Prefix-RFT: one attempt in each group begins with a piece of the demonstration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch

from etude import seeds
from etude.credit.attempts import adopted
from etude.credit.group import centred, constant
from etude.credit.imitate import tagged
from etude.objective.entropy import entropy_bonus
from etude.objective.hybrid import Entropy
from etude.objective.policy import Dual, High, Length, Low, clipped
from etude.objective.terms import Objective, averaged, per_constant
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal, Task


def given_share(uniform: float, low: float, high: float, progress: float) -> float:
    """l ~ Uniform(low_t, high), low_t falling by a cosine from high at the start to low at the end."""
    least = low + (high - low) * (1 + math.cos(math.pi * progress)) / 2
    return least + (high - least) * uniform


def one_prefixed(
    low: Annotated[
        float, Setting("least share of the demonstration given, at the end", low=0, high=1)
    ] = 0.05,
    high: Annotated[float, Setting("greatest share of the demonstration given", low=0, high=0.999)] = 0.95,
):
    """Ordinary attempts, and as the last one the policy's continuation of a demonstration's first part
    (arXiv 2507.01679)."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        uniform = seeds.generator(rollouts.key, "prefix").random()
        words = rollouts.demonstrate().spans[-1].tokens
        cut = int(given_share(uniform, min(low, high), high, rollouts.progress) * len(words))

        async def continued(task: Task, conversation: Conversation) -> Episode:
            conversation.user(task.prompt)
            conversation.force_prefix(words[:cut])
            await conversation.check(await conversation.reply())
            return conversation.done()

        last = rollouts.samples - 1
        ordinary = await rollouts.plays(range(last))
        return [*ordinary, *await rollouts.play(last, continued)]

    return group_rollout


def hybrid_advantages(plain: Array, hybrid: float, joined: bool) -> tuple[Array, float, float]:
    """Of the ordinary attempts, of the prefix and of its continuation, from their rewards."""
    base = np.append(plain, hybrid).mean() if joined else plain.mean() if len(plain) else 0.0
    return plain - base, hybrid - base, hybrid - base if joined else hybrid


def _seen(episodes: Sequence[Episode], context: Any) -> list[Array]:
    """f32[T, 2] each: log-probability and entropy of the prefix tokens under the policy as it is."""
    masks = [tagged(e, "prefix").astype(np.float32) for e in episodes]
    signals = [Signal(e, 0 * m, {"policy": m}) for e, m in zip(episodes, masks, strict=True)]
    return context.rows(signals, lambda out: torch.stack([out.logp, out.entropy], -1), {"entropy"})


def prefixed(
    keep: Annotated[
        float, Setting("share of prefix tokens trained, those of highest entropy", low=0, high=1)
    ] = 0.2,
    joined: Annotated[
        bool, Setting("one baseline for all, as written; else each its own, as released")
    ] = False,
):
    """Prefix tokens become the policy's own: with its log-probabilities now, and the hybrid's advantage where
    its entropy is among the highest (Prefix-RFT, arXiv 2507.01679)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        hybrids = [e for g in groups for e in g.episodes if tagged(e, "prefix").any()]
        rows = {id(e): row for e, row in zip(hybrids, _seen(hybrids, context), strict=True)}
        signals = []
        for group in groups:
            plain = [e for e in group.episodes if id(e) not in rows]
            rewards = np.array([e.reward for e in plain])
            own = centred(rewards)
            for episode in (e for e in group.episodes if id(e) in rows):
                own, first, rest = hybrid_advantages(rewards, episode.reward, joined)
                logp, entropy = rows[id(episode)].T
                where = np.flatnonzero(tagged(episode, "prefix"))
                kept = where[np.argsort(-entropy[where], kind="stable")[: round(keep * len(where))]]
                advantage = np.where(episode.sampled, np.float32(rest), np.float32(0))
                advantage[kept] = first
                signals.append(Signal(adopted(episode, tagged(episode, "prefix"), logp), advantage))
            signals += [constant(e, float(a)) for e, a in zip(plain, own, strict=True)]
        return signals

    return credit


def dual_clipped(
    low: Low = 0.2,
    high: High = 0.2,
    dual: Dual = 3.0,
    length: Length = 64.0,
    entropy: Entropy = 0.001,
) -> Objective:
    """The clipped surrogate, bounded for negative advantages, over a constant length; and an entropy bonus."""
    return averaged(clipped(low, high, dual_clip=dual), per_constant(length)) + entropy_bonus(entropy)


RECIPE = Recipe(
    name="prefix_rft",
    n=262,
    paper=Paper("Blending Supervised and Reinforcement Fine-Tuning with Prefix Sampling", "2507.01679", 2025),
    idea="In each group one attempt is begun by the demonstration and finished by the model. "
    "If that turns out better than the ordinary attempts, the given words are reinforced as if they were its own, where it was least sure of them. "
    "The given part shrinks over the run.",
    equation="y = y*_{<L} + continuation, L = floor(l |y*|), l ~ U(low_t, high);  A_prefix = r - mean r_plain on top-k% entropy, "
    "A_rest = r, A_plain = r_i - mean r_plain;  dual-clipped, / constant",
    departures=(
        "guess: low_t ends at 0.05, high is 0.95 and 20% of the prefix is kept (from memory in the catalogue)",
        "baselines as in the released code; credit.joined=true has the paper's text, where the hybrid joins the group",
    ),
    stages={
        "group_rollout": stage(one_prefixed),
        "credit": stage(prefixed),
        "objective": stage(dual_clipped),
    },
    needs=("answer", "text"),
    claim="Beats RL alone on tasks that no attempt solves, and SFT on held-out tasks.",
    examples=(
        ByHand("halfway, low_t is midway between 0 and 0.8", lambda: given_share(0.0, 0.0, 0.8, 0.5), 0.4),
        ByHand(
            "plain 1, 0 and a right hybrid: +-1/2, prefix 1/2, continuation 1",
            lambda: np.hstack(hybrid_advantages(np.array([1.0, 0.0]), 1.0, False)),
            [0.5, -0.5, 0.5, 1.0],
        ),
        Reduction(
            "nothing given: Dr. GRPO", "dr_grpo", {"group_rollout.high": 0.0, "objective.entropy": 0.0}
        ),
    ),
)
