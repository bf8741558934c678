"""Does a model know the questions themselves? Given the beginning of a question, its likeliest continuation is compared with the
rest: a model that was trained on the question goes on as it was written (Wu et al. 2025, arXiv 2507.10532).

The conversation is laid out as the model is used to, and ends in the middle of the user's words. Two numbers a question: ROUGE-L
(F1 of the longest common subsequence of the continuation's tokens and the rest's), and whether both are equal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from etude import seeds
from etude.errors import UserError
from etude.event_loop import run as run_coroutine
from etude.rollout.conversation import Generator
from etude.types import Array, Message, Task

LONGEST = 128  # tokens of a rest that are asked for


@dataclass(frozen=True)
class Completed:
    """`rouge` in [0, 1]; `exact`: the continuation is the rest, token by token. `said`: the continuation."""

    task: Task
    rouge: float
    exact: bool
    said: str


def completed(generator: Generator, tasks: Sequence[Task], share: float) -> list[Completed]:
    """How a model goes on after the first `share`, in (0, 1), of the tokens of each question. Tasks of fewer than four tokens
    are left out, and so are those that play a world. UserError where none is left."""
    if not 0 < share < 1:
        raise ValueError(f"the share of a question that is shown lies between 0 and 1; got {share}")
    cuts = [(task, *cut) for task in tasks if not task.environment and (cut := _cut(generator, task, share))]
    if not cuts:
        raise UserError("no question is long enough to be cut: four tokens are the least")

    async def all_of_them() -> list[Array]:
        async def one(task: Task, begun: Array, rest: Array) -> Array:
            params = replace(generator.params, greedy=True, max_tokens=len(rest), stop=())
            sample = await generator.sampler.sample(begun, params, seeds.key("completion", task.key))
            return np.asarray(sample.tokens)

        return list(await asyncio.gather(*(one(*cut) for cut in cuts)))

    found = []
    for (task, _, rest), said in zip(cuts, run_coroutine(all_of_them()), strict=True):
        same = len(said) >= len(rest) and bool((said[: len(rest)] == rest).all())
        found.append(Completed(task, rouge_l(said, rest), same, generator.renderer.decode(said)))
    return found


def _cut(generator: Generator, task: Task, share: float) -> tuple[Array, Array] | None:
    """(what is shown, the rest), int32 each; None where the question is too short, or what is shown does not fit."""
    renderer = generator.renderer
    *before, last = task.prompt
    words = renderer.tokenizer.encode(last.content)
    shown = round(share * len(words))
    if len(words) < 4 or not 0 < shown < len(words):
        return None
    opening = renderer.opening([*before, Message(last.role, "")])
    begun = np.concatenate([opening, words[:shown]]).astype(np.int32)
    rest = np.asarray(words[shown : shown + LONGEST], np.int32)
    return (begun, rest) if len(begun) + len(rest) < generator.limit else None


def rouge_l(said: Sequence[int] | Array, rest: Sequence[int] | Array) -> float:
    """F1 of the longest common subsequence, in [0, 1]. Source: Lin 2004, "ROUGE"."""
    try:
        from rapidfuzz.distance import LCSseq
    except ImportError:
        raise UserError("ROUGE-L needs rapidfuzz; pip install 'etude[data]'") from None
    a, b = list(map(int, said)), list(map(int, rest))
    if not a or not b:
        return 0.0
    return 2 * int(LCSseq.similarity(a, b)) / (len(a) + len(b))
