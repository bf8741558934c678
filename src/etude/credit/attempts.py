"""Credit for the parts of an episode: first attempt, critique, reflection, second attempt, and the second attempt as
if it had needed no help. A part is trained where a weight row names it; every other token has weight 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from etude.credit.group import centred, standardised
from etude.credit.imitate import tagged
from etude.rollout.attempts import UNAIDED
from etude.types import Array, Episode, Group, Signal, Span

DISTILLED = "distilled"
"""Weight row of text that had help when it was sampled, to be learnt without."""


def compared(values: Sequence[float | None], std: bool = False) -> list[float]:
    """Each value minus the mean of those that are there (over their standard deviation); 0 for one that is absent."""
    known = np.array([v for v in values if v is not None])
    advantages = iter((standardised if std else centred)(known).tolist())
    return [0.0 if v is None else next(advantages) for v in values]


def scores_of(group: Group, name: str) -> list[float | None]:
    """A score of each episode of a group; None where it has none."""
    return [e.scores.get(name) for e in group.episodes]


def on_parts(episode: Episode, advantages: Mapping[str, float], weight: str = "policy") -> Signal:
    """One advantage for each named part, on the tokens that the policy sampled there; nothing on other parts."""
    row, on = np.zeros(len(episode.tokens), np.float32), np.zeros(len(episode.tokens), np.float32)
    for tag, advantage in advantages.items():
        where = tagged(episode, tag) & episode.sampled
        row[where], on[where] = advantage, 1.0
    return Signal(episode, row, {weight: on})


def without_help(episode: Episode, tag: str) -> Episode | None:
    """The part `tag` behind the prompt that shows none of the help it had (notes `UNAIDED`), as text that was
    not sampled. None where the episode has no such part."""
    prompt = episode.notes.get(UNAIDED, {}).get(tag)
    if prompt is None:
        return None
    sequence: list[Span] = []
    for span in episode.spans:
        if span.restart and any(s.tag == tag for s in sequence):
            break
        sequence = [span] if span.restart else [*sequence, span]
    if not any(s.tag == tag for s in sequence):
        return None
    kept = [replace(s, sampled=False, logp=None, restart=False) for s in sequence[1:]]
    return replace(episode, spans=(Span("user", np.array(prompt, np.int32), tag="prompt"), *kept))


def distilled(episode: Episode, tag: str, weight: str, advantage: float = 0.0) -> list[Signal]:
    """`without_help`, to be learnt: weight 1 in the row `weight`, and an advantage, on the part's tokens. A list of
    one, or of none."""
    unaided = without_help(episode, tag)
    if unaided is None:
        return []
    on = tagged(unaided, tag).astype(np.float32)
    return [Signal(unaided, on * np.float32(advantage), {weight: on})]


def adopted(episode: Episode, where: Array, logp: Array) -> Episode:
    """The episode as if the policy had sampled the spans at `where` (bool[T], whole spans), with f32[T] `logp`."""
    starts = np.cumsum([0, *(len(s) for s in episode.spans)])
    spans = [
        replace(span, sampled=True, logp=logp[start:end]) if where[start:end].any() else span
        for span, start, end in zip(episode.spans, starts, starts[1:], strict=False)
    ]
    return replace(episode, spans=tuple(spans))
