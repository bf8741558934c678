"""Prefix-RFT (arXiv 2507.01679): in each group one attempt begins with a piece of the demonstration and is finished by
the policy. If it does better than the ordinary attempts, the given tokens are reinforced as if they were the policy's
own, where it was least sure of them. The given piece shrinks over the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from etude import seeds
from etude.credit.attempts import adopted
from etude.credit.group import centred, constant
from etude.credit.imitate import tagged
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.objective.entropy import entropy_bonus, exact_entropy
from etude.objective.hybrid import EntropyWeight
from etude.objective.policy import Dual, High, Length, Low, clipped
from etude.objective.terms import Objective, averaged, per_constant
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Array, Episode, Group, Signal, Span, Task

PREFIX = "prefix"  # the tag of the given piece (`Conversation.force_prefix`)


def given_share(uniform: float, low: float, high: float, progress: float) -> float:
    """l ~ Uniform(low_t, high), low_t falling by a cosine from high at the start to low at the end."""
    low_t = low + (high - low) * (1 + math.cos(math.pi * progress)) / 2
    return low_t + (high - low_t) * uniform


def one_prefixed(
    prefix_low: Annotated[
        float, Setting("least share of the demonstration given, at the end", low=0, high=1)
    ] = 0.05,
    prefix_high: Annotated[
        float, Setting("greatest share of the demonstration given", low=0, high=0.999)
    ] = 0.95,
) -> GroupRolloutStage:
    """Ordinary attempts, and as the last one the policy's continuation of the first floor(l |y*|) tokens of the
    demonstration y*."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        uniform = seeds.generator(rollouts.key, "prefix").random()
        words = rollouts.demonstrate().spans[-1].tokens
        share = given_share(uniform, min(prefix_low, prefix_high), prefix_high, rollouts.progress)
        cut = int(share * len(words))

        async def continued(task: Task, conversation: Conversation) -> Episode:
            conversation.user(task.prompt)
            conversation.force_prefix(words[:cut])
            await conversation.check(await conversation.reply())
            return conversation.done(prefixed=True)

        last = rollouts.samples - 1
        ordinary = await rollouts.plays(range(last))
        return [*ordinary, *await rollouts.play(last, continued)]

    return group_rollout


def hybrid_advantages(plain: Array, hybrid: float, joined: bool) -> tuple[Array, float, float]:
    """Of the ordinary attempts, of the prefix and of its continuation, from their rewards."""
    base = np.append(plain, hybrid).mean() if joined else plain.mean() if len(plain) else 0.0
    return plain - base, hybrid - base, hybrid - base if joined else hybrid


def _prefix_outputs(episodes: Sequence[Episode], context: Context) -> list[Array]:
    """f32[T, 2] each: log-probability and entropy of the prefix tokens under the policy as it is."""
    masks = [tagged(e, PREFIX).astype(np.float32) for e in episodes]
    signals = [Signal(e, 0 * m, {"policy": m}) for e, m in zip(episodes, masks, strict=True)]
    return context.rows(signals, lambda out: torch.stack([out.logp, exact_entropy(out)], -1), {"entropy"})


def _least_trained(entropies: Array, share: float) -> float:
    """The entropy above which, or at which, a token is among the highest `share`: all but the lowest
    floor((1 - share) n) of n."""
    lowest = math.floor((1 - share) * len(entropies) + 1e-9)
    return float(np.sort(entropies)[lowest]) if lowest < len(entropies) else math.inf


def prefixed(
    prefix_trained: Annotated[
        float,
        Setting(
            "share of the step's prefix tokens that are trained, those of highest entropy", low=0, high=1
        ),
    ] = 0.2,
    joined: Annotated[
        bool, Setting("one baseline for all, as written; else each its own, as released")
    ] = False,
) -> Credit:
    """Prefix tokens become the policy's own: with its log-probabilities now, and the prefix's advantage where its
    entropy is among the highest of the step, 0 elsewhere."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        hybrids = [e for g in groups for e in g.episodes if tagged(e, PREFIX).any()]
        outputs = {id(e): row for e, row in zip(hybrids, _prefix_outputs(hybrids, context), strict=True)}
        entropies = [outputs[id(e)][tagged(e, PREFIX), 1] for e in hybrids]
        least = _least_trained(np.concatenate([np.zeros(0), *entropies]), prefix_trained)
        signals = []
        for group in groups:
            plain = [e for e in group.episodes if id(e) not in outputs]
            rewards = np.array([e.reward for e in plain])
            own = centred(rewards)
            for episode in (e for e in group.episodes if id(e) in outputs):
                own, first, rest = hybrid_advantages(rewards, episode.reward, joined)
                given, (logp, entropy) = tagged(episode, PREFIX), outputs[id(episode)].T
                advantage = np.where(episode.sampled, np.float32(rest), np.float32(0))
                advantage[given & (entropy >= least)] = first
                signals.append(Signal(adopted(episode, given, logp), advantage))
            signals += [constant(e, float(a)) for e, a in zip(plain, own, strict=True)]
        return signals

    return credit


def dual_clipped(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    dual_clip: Dual = 3.0,
    length_divisor: Length = 64.0,
    entropy_weight: EntropyWeight = 0.001,
) -> Objective:
    """The clipped surrogate, bounded for negative advantages, over a constant length; and an entropy bonus."""
    surrogate = clipped(clip_low, clip_high, "episode", dual_clip)
    return averaged(surrogate, per_constant(length_divisor)) + entropy_bonus(entropy_weight)


def _with_given(group: Group, given: Sequence[int]) -> Group:
    """The group with these tokens of the demonstration before the reply of its last attempt."""
    *plain, last = group.episodes
    prompt, reply = last.spans
    spans = (prompt, Span("assistant", np.array(given, np.int32), tag=PREFIX), reply)
    return replace(group, episodes=(*plain, replace(last, spans=spans)))


def _rows(**settings: float | bool) -> list[list[float]]:
    """Advantages and log-probabilities of a right hybrid, of three given tokens and one of its own, and of ordinary
    attempts of rewards 1 and 0. The given tokens have entropies 1, 3, 2 and log-probabilities -4, -5, -6."""
    group = _with_given(example_answers((1.0, (2,)), (0.0, (3,)), (1.0, (7,))), (4, 5, 6))
    # The fourth token was sampled by the policy; its outputs are asked for and not used.
    model = GivenModel(logp=[-4.0, -5.0, -6.0, -9.0], entropy=[1.0, 3.0, 2.0, 9.0])
    signals = given_stage(RECIPE, "credit", **settings)([group], GivenContext(model))
    return [beyond_prompt(signals), signals[0].episode.logp[1:].tolist()]


def _two() -> list[float]:
    """Advantages of two right hybrids of two given tokens each and one of their own, of entropies 1, 2 and 3, 4, beside
    no ordinary attempt."""
    groups = [_with_given(example_answers((1.0, (7,))), given) for given in ((3, 4), (5, 6))]
    model = GivenModel(entropy=[1.0, 2.0, 0.0, 3.0, 4.0, 0.0])
    return beyond_prompt(given_stage(RECIPE, "credit", prefix_trained=0.5)(groups, GivenContext(model)))


RECIPE = Recipe(
    name="prefix_rft",
    paper=Paper("Blending Supervised and Reinforcement Fine-Tuning with Prefix Sampling", "2507.01679", 2025),
    published_lr=1e-6,
    idea="In each group one attempt is begun by the demonstration and finished by the model. "
    "If that turns out better than the ordinary attempts, the given words are reinforced as if they were its own, where it was least sure of them. "
    "The given part shrinks over the run.",
    equation="y = y*_{<L} + continuation, L = floor(l |y*|), l ~ U(low_t, high);  A_prefix = r - mean r_plain on top-k% entropy, "
    "A_rest = r, A_plain = r_i - mean r_plain;  dual-clipped, / constant",
    departures=(
        "guess: low_t ends at 0.05, high is 0.95 and 20% of the prefix is kept (from memory in the catalogue)",
        "given tokens are ranked over the step, where the released code ranks over each micro-batch",
        "baselines as in the released code; credit.joined=true has the paper's text, where the hybrid joins the group",
    ),
    stages={
        "group_rollout": stage(one_prefixed),
        "credit": stage(prefixed),
        "objective": stage(dual_clipped),
    },
    needs=("answer", "text"),
    claim="Beats RL alone on tasks that no attempt solves, and SFT on held-out tasks.",
    manipulation=(
        Manipulated(
            "a fifth of the attempts that begin with a prefix are right", "noted/prefixed/correct", 0.2
        ),
    ),
    examples=(
        ByHand("halfway, low_t is midway between 0 and 0.8", lambda: given_share(0.0, 0.0, 0.8, 0.5), 0.4),
        ByHand("at the end, between 0.1 and 0.9", lambda: given_share(0.25, 0.1, 0.9, 1.0), 0.3),
        ByHand(
            "the two of three given tokens of highest entropy: 1 - mean(1, 0)",
            lambda: _rows(prefix_trained=2 / 3)[0],
            [0, 0.5, 0.5, 1.0, 0.5, -0.5],
        ),
        ByHand(
            "one of three, in one baseline: 1 - 2/3",
            lambda: _rows(prefix_trained=1 / 3, joined=True)[0],
            [0, 1 / 3, 0, 1 / 3, 1 / 3, -2 / 3],
        ),
        ByHand("half of two prefixes: both tokens of the one of higher entropy", _two, [0, 0, 1, 1, 1, 1]),
        ByHand("given tokens are the policy's own", lambda: _rows()[1], [-4, -5, -6, -1]),
        # Surrogate: -1.3 - 0.9 in episode 1, 2 x 0.8 + 3 + 1.1 in episode 2 (ratio 4 bounded at 3), over 10 x 2. Entropy:
        # a tenth of the mean, 1.
        OffPolicy(
            "praise beyond the clip and within it; blame below it, beyond the dual bound, and within",
            ratio=(1.5, 0.9, 0.5, 4.0, 1.1),
            advantage=(1.0, 1.0, -2.0, -1.0, -1.0),
            lengths=(2, 3),
            entropy=(0.5, 1.0, 1.0, 1.0, 1.5),
            loss=(-2.2 + 5.7) / 20 - 0.1,
            gradient=(0, -0.9 / 20, 0, 0, 1.1 / 20),
            settings={
                "objective.length_divisor": 10.0,
                "objective.entropy_weight": 0.1,
                "objective.clip_high": 0.3,
            },
        ),
        Reduction(
            "nothing given: Dr. GRPO",
            "dr_grpo",
            {"group_rollout.prefix_high": 0.0, "objective.entropy_weight": 0.0},
        ),
    ),
)
