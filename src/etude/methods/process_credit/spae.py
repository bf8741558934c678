"""SPAE (arXiv 2601.03823): after each step of its reasoning the model is made to answer at once. How sure that answer is,
and how likely the gold answer, give the step a potential; steps that raise it are praised, and steps after it is full,
mere checking, count for less."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, whitened
from etude.fixtures.examples import example_episode
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.methods.policy_gradient.dapo import RECIPE as DAPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout, verdict
from etude.rollout.probe import CUTS, MaxSteps, Probes, Separator, branches, noting, step_cuts, step_index
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Array, Episode, Group, Signal, Span, Task

LEAD = "lead"  # note: the tokens that make the model answer at once
CONFIDENCE = "confidence"  # note: Conf after each step but the last


def gold_of(task: Task) -> str:
    """The gold answer, as it would be written."""
    return task.answer or task.reference or ""


def confidence(logp: Array | None, length: int) -> float:
    """Conf = exp(-mean H_l) over the first `length` tokens drawn, as many as the gold answer has: what is written behind
    the answer says nothing of it. Each entropy H_l is read from the token drawn there, as -log p."""
    return float(np.exp(np.mean(logp[:length]))) if logp is not None and len(logp) and length else 0.0


def answered_early(
    separator: Separator = "\n",
    max_steps: MaxSteps = 16,
    probes: Probes = 5,
    answer_tokens: Annotated[int, Setting("longest answer drawn after a step", "tokens", low=1)] = 10,
    answer_temperature: Annotated[float, Setting("temperature of these answers", low=0.01, high=10)] = 0.6,
    answer_prompt: Annotated[
        str, Setting("what makes the model answer at once")
    ] = "**Final Answer**\n\\boxed{",
) -> GroupRolloutStage:
    """Attempts; in groups whose outcomes differ, with the confidence of answers forced after each step but the last."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        tokenizer = rollouts.generator.renderer.tokenizer
        lead = tokenizer.encode(answer_prompt)

        async def look(episode: Episode) -> dict[str, Any]:
            cuts = step_cuts(tokenizer, episode, separator, max_steps)
            length = len(tokenizer.encode(gold_of(episode.task)))
            how = {"max_tokens": answer_tokens, "temperature": answer_temperature}
            drawn = await asyncio.gather(
                *(branches(rollouts, episode, cut, probes, lead, **how) for cut in cuts)
            )
            sure = [[confidence(p.spans[-1].logp, length) for p in conversations] for conversations in drawn]
            return {CUTS: cuts, LEAD: lead.tolist(), CONFIDENCE: [float(np.mean(s)) for s in sure]}

        episodes = await rollouts.plays(range(rollouts.samples))
        rewards = [e.reward for e in episodes if not e.failure]
        return await noting(rollouts, episodes, look) if len(set(rewards)) > 1 else episodes

    return group_rollout


def accuracy(episodes: Sequence[Episode], context: Context) -> list[Array]:
    """f[K] each: the geometric mean of the probabilities of the gold answer's tokens, forced after each step."""
    encode = context.policy.tokenizer.encode
    forced = []
    for episode in episodes:
        gold = encode(gold_of(episode.task))
        lead = np.array(episode.notes.get(LEAD, []), np.int32)
        for cut in episode.notes.get(CUTS, []):
            before = Span("user", np.concatenate([episode.tokens[:cut], lead]))
            on = np.append(np.zeros(len(before)), np.ones(len(gold))).astype(np.float32)
            forced.append(
                Signal(Episode(episode.task, (before, Span("assistant", gold))), 0 * on, {"probe": on})
            )
    rows = context.rows(forced, lambda out: out.logp)
    means = iter(float(np.exp(r[s.weights["probe"] != 0].mean())) for r, s in zip(rows, forced, strict=True))
    return [np.array([next(means) for _ in e.notes.get(CUTS, [])]) for e in episodes]


def potential(accurate: Array, sure: Array) -> Array:
    """Phi = 1.5 Acc Conf + 0.5 Acc - Conf, in [-1, 1]: 1 sure and right, -1 sure and wrong, 0 unsure."""
    return 1.5 * accurate * sure + 0.5 * accurate - sure


def damping(phi: Array, strength: float, saturated: float) -> Array:
    """f_k = 1 - alpha (1 - exp(-C_k)), C_k the number of earlier steps with Phi above `saturated`; alpha = `strength`."""
    found = (phi > saturated).astype(float)
    return 1 - strength * (1 - np.exp(-(np.cumsum(found) - found)))


def step_potentials(
    xi: Annotated[float, Setting("weight of a step's gain in potential", low=0)] = 0.5,
    damping_strength: Annotated[
        float, Setting("alpha: damping of steps after the solution was found", low=0, high=1)
    ] = 0.5,
    saturated: Annotated[
        float, Setting("potential at which a solution counts as found", low=-1, high=1)
    ] = 0.9,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
) -> Credit:
    """A_t = (r - mean r) f_k + xi g_k in step k; g_k = exp(dPhi_k, scaled to [0, 1] over the batch) minus its mean.
    Words after the last probed step have that step's f, and g = 0."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        base = [a for g in groups for a in centred(g.rewards)]
        phis = [
            potential(a, np.array(e.notes.get(CONFIDENCE, [])))
            for e, a in zip(episodes, accuracy(episodes, context), strict=True)
        ]
        gains = [np.diff(phi, prepend=phi[:1]) for phi in phis]
        flat = np.concatenate(gains) if gains else np.zeros(0)
        low, high = (flat.min(), flat.max()) if len(flat) else (0.0, 0.0)
        raised = [np.exp((gain - low) / (high - low or 1.0)) for gain in gains]
        mean = float(np.concatenate(raised).mean()) if len(flat) else 0.0
        signals = []
        for episode, outcome, phi, up in zip(episodes, base, phis, raised, strict=True):
            f = damping(phi, damping_strength, saturated)
            f, g = np.append(f, f[-1] if len(f) else 1.0), np.append(up - mean, 0.0)
            step = step_index(episode, episode.notes.get(CUTS, []))
            advantage = np.where(episode.sampled, outcome * f[step] + xi * g[step], 0)
            signals.append(Signal(episode, advantage.astype(np.float32)))
        return whitened(signals) if whiten else signals

    return credit


def _advantages() -> list[float]:
    """Of a right attempt of four steps of one token, and of a wrong one of a single step. After the right one's steps the
    gold answer has probability 1/2, 1, 1 and the answers confidence 0, 1, 1."""
    right, wrong = example_answers((1.0, (2, 3, 4, 5)), (0.0, (6,))).episodes
    task = replace(right.task, answer="7")
    right = replace(right, task=task, notes={CUTS: [2, 3, 4], LEAD: [9], CONFIDENCE: [0.0, 1.0, 1.0]})
    group = Group(task, (right, replace(wrong, task=task)))
    model = GivenModel(logp=[math.log(0.5), 0.0, 0.0])
    return beyond_prompt(given_stage(RECIPE, "credit", whiten=False)([group], GivenContext(model)))


def _accuracy(*p: float) -> float:
    """Acc where the tokens of the gold answer, forced after the only step, have these probabilities."""
    attempt = example_answers((1.0, (2, 3))).episodes[0]
    attempt = replace(attempt, task=replace(attempt.task, answer="7" * len(p)), notes={CUTS: [2], LEAD: [9]})
    context: Any = GivenContext(GivenModel(logp=np.log(p).tolist()))
    return float(accuracy([attempt], context)[0][0])


E = math.e
MEAN = (2 + E) / 3


def _reward() -> float:
    """What the recipe gives to a half right answer that ran into the limit."""
    given: float = given_stage(RECIPE, "reward")(example_episode(0.5, range(6), stop="length"))["reward"]
    return given


RECIPE = Recipe(
    name="spae",
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
        "an entropy is read from the token drawn there, as -log p, which makes confidence larger on average: .82 for .72 where two "
        "answers have probability .9 and .1",
        "Conf is read where the gold answer would stand, as in the released probe; the paper's equation has all drawn tokens",
        "Acc is the geometric mean of the gold's token probabilities: the released probe has exp(sum log p) / L, which is the same for one "
        "token and never above 1 / L for L of them, the paper's equation their arithmetic mean",
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
    manipulation=(
        Manipulated(
            "answers at once are right in a tenth to 95 % of the probes", "noted/confidence", 0.1, 0.95
        ),
    ),
    examples=(
        ByHand(
            "the verdict, without DAPO's price of length",
            _reward,
            0.5,
        ),
        ByHand(
            "sure and right, sure and wrong, unsure and wrong",
            lambda: potential(np.array([1.0, 0, 0]), np.array([1.0, 1, 0])),
            [1, -1, 0],
        ),
        ByHand(
            "answers drawn with probability 1/2 and 1/8", lambda: confidence(np.log([0.5, 0.125]), 2), 0.25
        ),
        ByHand(
            "behind a gold answer of one token two more were drawn, with probability 1",
            lambda: confidence(np.array([-0.6931472, 0.0, 0.0]), 1),
            0.5,
        ),
        ByHand(
            "a gold answer of two tokens, of probability 1/2 and 1/8", lambda: _accuracy(0.5, 0.125), 0.25
        ),
        ByHand(
            "solved in the first of three steps",
            lambda: damping(np.array([1.0, 1.0, 0.0]), 0.5, 0.9),
            [1, 1 - 0.5 * (1 - np.exp(-1)), 1 - 0.5 * (1 - np.exp(-2))],
        ),
        # Phi = 1/4, 1, 1: gains 0, 3/4, 0 are scaled to 0, 1, 0; g = 1, e, 1 less their mean. Phi > 0.9 first after the
        # second step, so f = 1, 1, 1 - (1 - 1/e) / 2, and the last step has the third one's f.
        ByHand(
            "(r - mean r) f + g / 2 in four steps; nothing was probed of the other attempt",
            _advantages,
            [
                0.5 + 0.5 * (1 - MEAN),
                0.5 + 0.5 * (E - MEAN),
                0.5 * (0.5 + 0.5 / E) + 0.5 * (1 - MEAN),
                0.5 * (0.5 + 0.5 / E),
                -0.5,
            ],
        ),
        OffPolicy(
            "DAPO's bounds 0.8 and 1.28, a token mean",
            ratio=(1.5, 1.25, 0.5, 0.9),
            advantage=(1.0, 1.0, -2.0, -1.0),
            lengths=(3, 1),
            loss=(-1.28 - 1.25 + 2 * 0.8 + 0.9) / 4,
            gradient=(0, -1.25 / 4, 0, 0.9 / 4),
        ),
        Reduction(
            "xi = alpha = 0: DAPO without its std and length penalty",
            "dapo",
            {"credit.xi": 0.0, "credit.damping_strength": 0.0, "credit.whiten": False},
            {"credit.scale": "off", "reward.overlong_penalty": 0.0},
        ),
    ),
)
