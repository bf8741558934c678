"""SPAE: the potential of a step, from how sure and how right an answer forced after it would be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, constant, whitened
from etude.methods.policy_gradient.dapo import RECIPE as DAPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.rollout.probe import Most, Separator, branches, noting, step_cuts, step_index
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal, Span


def confidence(logp: Array | None) -> float:
    """exp(-mean H_l), each entropy H_l read from the token drawn there: -log p is an unbiased reading of it."""
    return float(np.exp(np.mean(logp))) if logp is not None and len(logp) else 0.0


def answered_early(
    separator: Separator = "\n",
    most: Most = 16,
    probes: Annotated[int, Setting("answers drawn after each step", low=1)] = 5,
    tokens: Annotated[int, Setting("longest answer drawn", "tokens", low=1)] = 10,
    temperature: Annotated[float, Setting("temperature of the answers", low=0.01, high=10)] = 0.6,
    ask: Annotated[str, Setting("what makes the model answer at once")] = "**Final Answer** \\boxed{",
):
    """Attempts; in groups whose outcomes differ, with the confidence of answers forced after each step (notes
    `cuts`, `lead`, `confidence`)."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        tokenizer = rollouts.generator.renderer.tokenizer
        lead = tokenizer.encode(ask)

        async def look(episode: Episode) -> dict[str, Any]:
            cuts = step_cuts(tokenizer, episode, separator, most)
            how = {"max_tokens": tokens, "temperature": temperature}
            drawn = await asyncio.gather(
                *(branches(rollouts, episode, cut, probes, lead, **how) for cut in cuts)
            )
            sure = [[confidence(p.spans[-1].logp) for p in conversations] for conversations in drawn]
            return {"cuts": cuts, "lead": lead.tolist(), "confidence": [float(np.mean(s)) for s in sure]}

        episodes = await rollouts.plays(range(rollouts.samples))
        rewards = [e.reward for e in episodes if not e.failure]
        return await noting(rollouts, episodes, look) if len(set(rewards)) > 1 else episodes

    return group_rollout


def accuracy(episodes: Sequence[Episode], context: Any) -> list[Array]:
    """f[K] each: the mean probability of the gold answer's tokens, forced after each step."""
    encode = context.policy.tokenizer.encode
    forced = []
    for episode in episodes:
        gold = encode(episode.task.answer or episode.task.reference)
        lead = np.array(episode.notes.get("lead", []), np.int32)
        for cut in episode.notes.get("cuts", []):
            before = Span("user", np.concatenate([episode.tokens[:cut], lead]))
            on = np.append(np.zeros(len(before)), np.ones(len(gold))).astype(np.float32)
            forced.append(
                Signal(Episode(episode.task, (before, Span("assistant", gold))), 0 * on, {"probe": on})
            )
    rows = context.rows(forced, lambda out: out.logp)
    means = iter(float(np.exp(r[s.weights["probe"] != 0]).mean()) for r, s in zip(rows, forced, strict=True))
    return [np.array([next(means) for _ in e.notes.get("cuts", [])]) for e in episodes]


def potential(accurate: Array, sure: Array) -> Array:
    """Phi = 1.5 Acc Conf + 0.5 Acc - Conf, in [-1, 1]: 1 sure and right, -1 sure and wrong, 0 unsure."""
    return 1.5 * accurate * sure + 0.5 * accurate - sure


def damping(phi: Array, alpha: float, saturated: float) -> Array:
    """f_k = 1 - alpha (1 - exp(-C_k)), C_k the number of earlier steps with Phi above `saturated`."""
    found = (phi > saturated).astype(float)
    return 1 - alpha * (1 - np.exp(-(np.cumsum(found) - found)))


def step_potentials(
    xi: Annotated[float, Setting("weight of a step's gain in potential", low=0)] = 0.5,
    alpha: Annotated[float, Setting("damping of steps after the solution was found", low=0, high=1)] = 0.5,
    saturated: Annotated[
        float, Setting("potential at which a solution counts as found", low=-1, high=1)
    ] = 0.9,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """A_t = (r - mean r) f_k + xi g_k in step k; g_k = exp(dPhi_k, scaled to [0, 1]) minus its mean. Words after
    the last probed step have that step's f, and g = 0 (SPAE, arXiv 2601.03823)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        base = [a for g in groups for a in centred(g.rewards)]
        phis = [
            potential(a, np.array(e.notes.get("confidence", [])))
            for e, a in zip(episodes, accuracy(episodes, context), strict=True)
        ]
        gains = [np.diff(phi, prepend=phi[:1]) for phi in phis]
        flat = np.concatenate(gains) if gains else np.zeros(0)
        low, high = (flat.min(), flat.max()) if len(flat) else (0.0, 0.0)
        raised = [np.exp((gain - low) / (high - low or 1.0)) for gain in gains]
        mean = float(np.concatenate(raised).mean()) if len(flat) else 0.0
        signals = []
        for episode, outcome, phi, up in zip(episodes, base, phis, raised, strict=True):
            f = damping(phi, alpha, saturated)
            f, g = np.append(f, f[-1] if len(f) else 1.0), np.append(up - mean, 0.0)
            step = step_index(episode, episode.notes.get("cuts", []))
            signal = constant(episode, 0.0)
            signal.advantage[:] = np.where(episode.sampled, outcome * f[step] + xi * g[step], 0)
            signals.append(signal)
        return whitened(signals) if whiten else signals

    return credit


RECIPE = Recipe(
    name="spae",
    n=23,
    base=DAPO,
    paper=Paper(
        "Step Potential Advantage Estimation: Harnessing Intermediate Confidence and Correctness for Efficient Mathematical Reasoning",
        "2601.03823",
        2026,
    ),
    idea="After each step of its reasoning the model is made to answer at once: how sure it is, and how likely the gold answer, give the step a potential. "
    "Steps that raise the potential are praised. "
    "Steps after it is full, mere checking, count for less.",
    equation="Phi = 1.5 Acc Conf + 0.5 Acc - Conf;  A_t = (r - mean r) f_k + xi g_k, f_k = 1 - alpha (1 - exp(-C_k)), "
    "g_k = exp(dPhi~_k) - mean;  whitened;  DAPO's loss",
    departures=(
        "steps are lines, where the paper ends them at a blank line after a full stop",
        "confidence is read from the drawn tokens' own log-probabilities, which estimate the entropies without bias",
        "guess: gains are scaled and centred over the batch's steps; words after the last probe have g = 0",
        "groups whose outcomes agree are not probed: dynamic sampling drops them",
    ),
    stages={
        "group_rollout": stage(answered_early),
        "reward": stage(verdict),
        "credit": stage(step_potentials),
        "objective": stage(clipped, clip_high=0.28, mean="token"),
    },
    needs=("answer", "text"),
    claim="With alpha above 0 the checking after a found solution gets shorter at equal accuracy.",
    examples=(
        ByHand(
            "sure and right, sure and wrong, unsure and wrong",
            lambda: potential(np.array([1.0, 0, 0]), np.array([1.0, 1, 0])),
            [1, -1, 0],
        ),
        ByHand(
            "solved in the first of three steps",
            lambda: damping(np.array([1.0, 1.0, 0.0]), 0.5, 0.9),
            [1, 1 - 0.5 * (1 - np.exp(-1)), 1 - 0.5 * (1 - np.exp(-2))],
        ),
        Reduction(
            "xi = alpha = 0: DAPO without its std and length penalty",
            "dapo",
            {"credit.xi": 0.0, "credit.alpha": 0.0, "credit.whiten": False},
            {"credit.scale": "off", "reward.overlong_penalty": 0.0},
        ),
    ),
)
