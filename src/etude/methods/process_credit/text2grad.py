"""Text2Grad (arXiv 2505.22338): a critic reads each answer and quotes its good and its poor passages. Words of good
passages are rewarded, words of poor ones punished, all others left alone, so that feedback in words reaches the very
tokens it is about."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.kl_penalty import KLPrice, drift
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.objective.policy import clipped_with_value
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.probe import noting, text_ends
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage
from etude.text.tokenizer import Tokenizer
from etude.types import Array, Episode, Group, Signal, Task
from etude.update import Update

MARKS = "marks"  # note: +1, 0 or -1 for each token of the episode

Quotes = tuple[list[str], list[str]]  # good and poor passages

ASK_FOR_QUOTES = (
    "{task}\n\nResponse:\n{response}\n\nCriticise the response. Quote its good and its poor passages word for word, "
    'as JSON: {{"good_spans": [...], "poor_spans": [...]}}'
)


def against_reference(task: Task, text: str, separator: str) -> Quotes:
    """Steps that stand in the reference are good, up to the first that does not: that one is poor."""
    known = {step.strip() for step in (task.reference or task.answer or "").split(separator)}
    good: list[str] = []
    for step in filter(None, (s.strip() for s in text.split(separator))):
        if step not in known:
            return good, [step]
        good.append(step)
    return good, []


def read_critique(text: str) -> Quotes:
    """The spans of a critique in JSON; none where it cannot be read."""
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
        good, poor = (
            [s for s in found.get(f"{k}_spans", []) if isinstance(s, str)] for k in ("good", "poor")
        )
    except (ValueError, AttributeError, TypeError):
        return [], []
    return good, poor


def find_span(text: str, span: str, similarity: float) -> tuple[int, int] | None:
    """Where `span` stands in the text (first and last character + 1): as it is, or the run of equally many words
    that resembles it most, by at least `similarity` (difflib's ratio). None where nothing does."""
    span = span.strip()
    start = text.find(span)
    if not span or start >= 0:
        return (start, start + len(span)) if span else None
    words, size = list(re.finditer(r"\S+", text)), len(span.split())
    runs = [(words[i].start(), words[i + size - 1].end()) for i in range(len(words) - size + 1)]
    likeness = [SequenceMatcher(None, span, text[a:b]).ratio() for a, b in runs]
    best = int(np.argmax(likeness)) if runs else -1
    return runs[best] if runs and likeness[best] >= similarity else None


def token_marks(
    tokenizer: Tokenizer, tokens: Array, good: Sequence[str], poor: Sequence[str], similarity: float
) -> Array:
    """int64[n]: +1 on tokens of words inside good spans, -1 inside poor ones (which win), 0 elsewhere: on
    punctuation, on special tokens, and wherever a span was not found."""
    text = tokenizer.decode(tokens)
    marks = np.zeros(len(text), np.int64)
    for spans, mark in ((good, 1), (poor, -1)):
        for found in (find_span(text, span, similarity) for span in spans):
            for word in re.finditer(r"\w+", text):
                if found and word.start() < found[1] and word.end() > found[0]:
                    marks[word.start() : word.end()] = mark
    ends = text_ends(tokenizer, tokens)
    starts = np.append(0, ends[:-1])
    pieces = [marks[a:b][marks[a:b] != 0] for a, b in zip(starts, ends, strict=True)]
    return np.array([piece[0] if len(piece) else 0 for piece in pieces], np.int64)


def criticised(
    marked_by: Annotated[
        str,
        Setting(
            "who marks passages; reference: comparison with it, model: run.teacher, else the policy, is asked",
            choices=("reference", "model"),
        ),
    ] = "reference",
    quote_separator: Annotated[
        str, Setting("text between two steps of the reference; empty: a line break")
    ] = "\n",
    quote_similarity: Annotated[
        float, Setting("likeness at which a quotation counts as found", low=0, high=1)
    ] = 0.7,
) -> GroupRolloutStage:
    """Attempts, with a mark of +1, 0 or -1 for each of their tokens."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        renderer = rollouts.generator.renderer

        async def spans_of(episode: Episode, text: str) -> Quotes:
            if marked_by == "reference":
                return against_reference(rollouts.task, text, quote_separator or "\n")
            conversation = rollouts.conversation(
                seeds.key("critic", episode.index), generator=rollouts.generators.get("teacher")
            )
            conversation.user(ASK_FOR_QUOTES.format(task=rollouts.task.prompt[-1].content, response=text))
            return read_critique(await conversation.reply(tag="critique"))

        async def look(episode: Episode) -> dict[str, Any]:
            said = episode.tokens[episode.sampled]
            spans = await spans_of(episode, renderer.decode(said))
            marks = np.zeros(len(episode.tokens), np.int64)
            marks[episode.sampled] = token_marks(renderer.tokenizer, said, *spans, quote_similarity)
            return {MARKS: marks.tolist()}

        return await noting(rollouts, await rollouts.plays(range(rollouts.samples)), look)

    return group_rollout


@writes("policy", extras=("returns", "values"))
class MarkedTokens:
    """GAE of the marks (and, if asked, the outcome at the end) minus beta (log pi_old - log pi_ref). After each step

    beta <- beta (1 + clip(KL / KL_target - 1, -0.2, 0.2) episodes / horizon)    (arXiv 1909.08593)."""

    def __init__(
        self,
        mark_reward: Annotated[float, Setting("reward of a marked token", low=0)] = 1.0,
        outcome_weight: Annotated[float, Setting("weight of the outcome", low=0)] = 0.0,
        kl_weight: KLPrice = 0.05,
        kl_target: Annotated[
            float, Setting("divergence that the KL's weight steers to", "nats per answer", low=0.001)
        ] = 3.0,
        kl_horizon: Annotated[
            float, Setting("how slowly the KL's weight follows", "episodes", low=1)
        ] = 10000.0,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
    ) -> None:
        self.mark_reward, self.outcome_weight, self.beta = mark_reward, outcome_weight, kl_weight
        self.kl_target, self.kl_horizon, self.gamma, self.lam = kl_target, kl_horizon, gamma, lam

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        away = drift(episodes, context)
        rewards = [self._reward(e) - self.beta * d for e, d in zip(episodes, away, strict=True)]
        if episodes:
            kl = float(np.mean([d.sum() for d in away]))
            error = float(np.clip(kl / self.kl_target - 1, -0.2, 0.2))
            self.beta = self.beta * (1 + error * (len(away) / self.kl_horizon))
        return token_gae(episodes, rewards, context, self.gamma, self.lam)

    def _reward(self, episode: Episode) -> Array:
        outcome = terminal(episode, self.outcome_weight * episode.reward)
        return self.mark_reward * np.array(episode.notes[MARKS]) + outcome

    def report(self) -> dict[str, float]:
        return {"beta": self.beta}

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.beta = state["beta"]


def _credited(reference: Sequence[float], **settings: float) -> tuple[list[float], float]:
    """Returns of a right attempt with marks +1, 0, -1, and beta after it. log pi_old = -1 everywhere."""
    (episode,) = example_answers((1.0, (2, 3, 4))).episodes
    group = Group(episode.task, (replace(episode, notes={MARKS: [0, 1, 0, -1]}),))
    context = GivenContext(GivenModel(value=0.0), {"reference": GivenModel(logp=reference)})
    credit = given_stage(RECIPE, "credit", lam=1.0, **settings)
    return beyond_prompt(credit([group], context), "returns"), credit.beta


RECIPE = Recipe(
    name="text2grad",
    paper=Paper("Text2Grad: Reinforcement Learning from Natural Language Feedback", "2505.22338", 2025),
    published_lr=1e-6,
    idea="A critic reads each answer and quotes its good and its poor passages. "
    "Words of good passages are rewarded, words of poor ones punished, all others left alone. "
    "So feedback in words reaches the very tokens it is about.",
    equation="r_t = [token t in a good span] - [in a poor span] - beta (log pi_old - log pi_ref);  GAE, PPO",
    departures=(
        "no reward model is trained on annotated critiques: the critic is the task's reference, or a model that is asked (group_rollout.marked_by)",
        "KL is read from the sampled tokens, not from full distributions",
        "guess: gamma = 1, lambda = 0.95; beta follows its target with a horizon of 10,000 episodes",
    ),
    stages={
        "group_rollout": stage(criticised),
        "credit": stage(MarkedTokens),
        "objective": stage(clipped_with_value),
        "update": stage(Update, passes=2),
    },
    needs=("answer", "text"),
    auxiliary={"reference": AuxiliaryModel("start")},
    claim="With a critic that marks the wrong line it learns faster than from a scalar reward of equal information.",
    manipulation=(Manipulated("a token in fifty is marked", "noted/marks", 0.02),),
    examples=(
        ByHand("a quotation with a slip", lambda: find_span("so 3 + 4 = 8 now", "3 + 4 = 9", 0.7), [3, 12]),
        # r = 1, 0 - 0.05 x 2, -1: their sums from the end.
        ByHand(
            "marks +1, 0, -1, and two nats from the start at the second token",
            lambda: _credited((-1.0, -3.0, -1.0))[0],
            [-0.1, -1.1, -1.0],
        ),
        ByHand(
            "half the marks and half the outcome",
            lambda: _credited((-1.0, -1.0, -1.0), mark_reward=0.5, outcome_weight=0.5)[0],
            [0.5, 0.0, 0.0],
        ),
        ByHand(
            "twice the target divergence, 1 of 100 episodes: 0.05 (1 + 0.2 / 100)",
            lambda: 100 * _credited((-3.0, -3.0, -3.0), kl_horizon=100.0)[1],
            100 * 0.05 * 1.002,
        ),
        ByHand(
            "a tenth below the target, in one episode: 0.05 (1 - 0.1)",
            lambda: _credited((-1.9, -1.9, -1.9), kl_horizon=1.0)[1],
            0.045,
        ),
        # Surrogate: (-1.2 - 0.9 + 1.1) / 3. Halved squared errors of V, the larger of plain and clipped: 0.3^2 (0
        # plain), 1/4, 1; a tenth of their mean.
        OffPolicy(
            "PPO's loss",
            ratio=(1.5, 0.9, 1.1),
            advantage=(1.0, 1.0, -1.0),
            lengths=(1, 2),
            extras={"returns": (1.0, 1.0, 1.0), "values": (0.5, 0.5, 0.1)},
            heads={"value": (1.0, 0.5, 0.0)},
            loss=-1.0 / 3 + 0.1 * (0.3**2 + 0.5**2 + 1) / 2 / 3,
            gradient=(0, -0.9 / 3, 1.1 / 3),
        ),
        Reduction(
            "no marks, the outcome at the end: PPO",
            "ppo",
            {"credit.mark_reward": 0.0, "credit.outcome_weight": 1.0, "credit.kl_weight": 0.0},
        ),
    ),
)
