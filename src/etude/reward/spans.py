"""Remarks about pieces of an answer, laid on its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from etude.rollout.probe import text_ends
from etude.types import Array


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
