"""Text2Grad: a critic quotes what is good and what is poor, and exactly those words are rewarded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.kl_penalty import drift
from etude.objective.policy import clipped_with_value
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.rollout.probe import noting, text_ends
from etude.settings import Setting, stage
from etude.train.step import Update
from etude.types import Array, Episode, Group, Signal, Task

Spans = tuple[list[str], list[str]]  # good and poor


ASK = (
    "{task}\n\nResponse:\n{response}\n\nCriticise the response. Quote its good and its poor passages word for word, "
    'as JSON: {{"good_spans": [...], "poor_spans": [...]}}'
)


def against_reference(task: Task, text: str, separator: str) -> Spans:
    """Steps that stand in the reference are good, up to the first that does not: that one is poor."""
    known = {step.strip() for step in (task.reference or task.answer or "").split(separator)}
    good: list[str] = []
    for step in filter(None, (s.strip() for s in text.split(separator))):
        if step not in known:
            return good, [step]
        good.append(step)
    return good, []


def read_critique(text: str) -> Spans:
    """The spans of a critique in JSON; none where it cannot be read."""
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
        good, poor = (
            [s for s in found.get(f"{k}_spans", []) if isinstance(s, str)] for k in ("good", "poor")
        )
    except (ValueError, AttributeError, TypeError):
        return [], []
    return good, poor


def find_span(text: str, span: str, threshold: float) -> tuple[int, int] | None:
    """Where `span` stands in the text (first and last character + 1): as it is, or the run of equally many words
    that resembles it most, by at least `threshold` (difflib's ratio). None where nothing does."""
    span = span.strip()
    start = text.find(span)
    if not span or start >= 0:
        return (start, start + len(span)) if span else None
    words, size = list(re.finditer(r"\S+", text)), len(span.split())
    runs = [(words[i].start(), words[i + size - 1].end()) for i in range(len(words) - size + 1)]
    likeness = [SequenceMatcher(None, span, text[a:b]).ratio() for a, b in runs]
    best = int(np.argmax(likeness)) if runs else -1
    return runs[best] if runs and likeness[best] >= threshold else None


def token_marks(
    tokenizer: Any, tokens: Array, good: Sequence[str], poor: Sequence[str], threshold: float
) -> Array:
    """int64[n]: +1 on tokens of words inside good spans, -1 inside poor ones (which win), 0 elsewhere: on
    punctuation, on special tokens, and wherever a span was not found."""
    text = tokenizer.decode(tokens)
    marks = np.zeros(len(text), np.int64)
    for spans, mark in ((good, 1), (poor, -1)):
        for found in (find_span(text, span, threshold) for span in spans):
            for word in re.finditer(r"\w+", text):
                if found and word.start() < found[1] and word.end() > found[0]:
                    marks[word.start() : word.end()] = mark
    ends = text_ends(tokenizer, tokens)
    starts = np.append(0, ends[:-1])
    pieces = [marks[a:b][marks[a:b] != 0] for a, b in zip(starts, ends, strict=True)]
    return np.array([piece[0] if len(piece) else 0 for piece in pieces], np.int64)


def criticised(
    critic: Annotated[
        str, Setting("the reference, or run.teacher (else the policy) asked", choices=("reference", "model"))
    ] = "reference",
    separator: Annotated[
        str, Setting("what separates the steps that are compared with the reference")
    ] = "\n",
    threshold: Annotated[
        float, Setting("likeness at which a quotation counts as found", low=0, high=1)
    ] = 0.7,
):
    """Attempts, with a mark of +1, 0 or -1 for each of their tokens (note `marks`)."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        renderer = rollouts.generator.renderer

        async def spans_of(episode: Episode, text: str) -> Spans:
            if critic == "reference":
                return against_reference(rollouts.task, text, separator or "\n")
            conversation = rollouts.conversation(
                seeds.key("critic", episode.index), generator=rollouts.generators.get("teacher")
            )
            conversation.user(ASK.format(task=rollouts.task.prompt[-1].content, response=text))
            return read_critique(await conversation.reply(tag="critique"))

        async def look(episode: Episode) -> dict[str, Any]:
            said = episode.tokens[episode.sampled]
            spans = await spans_of(episode, renderer.decode(said))
            marks = np.zeros(len(episode.tokens), np.int64)
            marks[episode.sampled] = token_marks(renderer.tokenizer, said, *spans, threshold)
            return {"marks": marks.tolist()}

        return await noting(rollouts, await rollouts.plays(range(rollouts.samples)), look)

    return group_rollout


def followed(beta: float, kl: float, target: float, part: float) -> float:
    """beta x (1 + clip(KL / target - 1, -0.2, 0.2) part): dearer while the divergence lies above its target."""
    return beta * (1 + float(np.clip(kl / target - 1, -0.2, 0.2)) * part)


class SpanRewards:
    """GAE of the marks (and, if asked, the outcome at the end) minus beta (log pi_old - log pi_ref). beta follows
    the divergence, as in arXiv 1909.08593: beta *= 1 + clip(KL / target - 1, -0.2, 0.2) episodes / horizon
    (Text2Grad, arXiv 2505.22338)."""

    def __init__(
        self,
        spans: Annotated[float, Setting("reward of a marked token", low=0)] = 1.0,
        outcome: Annotated[float, Setting("weight of the verdict, at the last token", low=0)] = 0.0,
        beta: Annotated[float, Setting("price of leaving the start, at first", "per nat", low=0)] = 0.05,
        target: Annotated[
            float, Setting("divergence that beta steers to", "nats per answer", low=0.001)
        ] = 3.0,
        horizon: Annotated[float, Setting("how slowly beta follows", "episodes", low=1)] = 10000.0,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
    ) -> None:
        self.spans, self.outcome, self.beta = spans, outcome, beta
        self.target, self.horizon, self.gamma, self.lam = target, horizon, gamma, lam

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        away = drift(episodes, context)
        rewards = [self._reward(e) - self.beta * d for e, d in zip(episodes, away, strict=True)]
        if episodes:
            self.beta = followed(
                self.beta, float(np.mean([d.sum() for d in away])), self.target, len(away) / self.horizon
            )
        return token_gae(episodes, rewards, context, self.gamma, self.lam)

    def _reward(self, episode: Episode) -> Array:
        return self.spans * np.array(episode.notes["marks"]) + terminal(
            episode, self.outcome * episode.reward
        )

    def report(self) -> dict[str, float]:
        return {"beta": self.beta}

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.beta = state["beta"]


RECIPE = Recipe(
    name="text2grad",
    n=125,
    paper=Paper("Text2Grad: Reinforcement Learning from Natural Language Feedback", "2505.22338", 2025),
    idea="A critic reads each answer and quotes its good and its poor passages. "
    "Words of good passages are rewarded, words of poor ones punished, all others left alone. "
    "So feedback in words reaches the very tokens it is about.",
    equation="r_t = [token t in a good span] - [in a poor span] - beta (log pi_old - log pi_ref);  GAE, PPO",
    departures=(
        "no reward model is trained on annotated critiques: the critic is the task's reference, or a model that is asked (gather.critic)",
        "KL is read from the sampled tokens, not from full distributions",
        "guess: gamma = 1, lambda = 0.95; beta follows its target with a horizon of 10,000 episodes",
    ),
    stages={
        "group_rollout": stage(criticised),
        "credit": stage(SpanRewards),
        "objective": stage(clipped_with_value),
        "update": stage(Update, passes=2),
    },
    needs=("answer", "text"),
    auxiliary={"reference": AuxiliaryModel("start")},
    claim="With a critic that marks the wrong line it learns faster than from a scalar reward of equal information.",
    examples=(
        ByHand("a quotation with a slip", lambda: find_span("so 3 + 4 = 8 now", "3 + 4 = 9", 0.7), [3, 12]),
        ByHand(
            "twice the target divergence, 100 of 10,000 episodes",
            lambda: followed(0.05, 6.0, 3.0, 0.01),
            0.0501,
        ),
        Reduction(
            "no marks, the outcome at the end: PPO",
            "ppo",
            {"credit.spans": 0.0, "credit.outcome": 1.0, "credit.beta": 0.0},
        ),
    ),
)
