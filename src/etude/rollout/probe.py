"""Step boundaries of an answer, branches sampled from its prefixes, and Monte-Carlo values of those prefixes.

Probes are sampled and judged but never trained on; what they showed is left as numbers in `Episode.notes`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting
from etude.text.tokenizer import Tokenizer
from etude.types import Array, Episode, Task

Separator = Annotated[str, Setting("text that ends a step; empty: every token is a step")]
MaxSteps = Annotated[int, Setting("steps that an answer is cut into at most; others are merged", low=1)]
Probes = Annotated[int, Setting("continuations sampled after each step", low=1)]

PROBE = "probe"  # the tag of spans sampled from a prefix
CUTS = "cuts"  # note: numbers of tokens after which a step ends (`step_cuts`)

BROKEN = "\ufffd"  # what a decoder writes for bytes that are not yet a character


def text_ends(tokenizer: Tokenizer, tokens: Array) -> Array:
    """int64[n]: how many characters of the decoded text stand after each of int32[n] `tokens`. A character of
    several tokens belongs to the last of them; special tokens have none."""
    ends, base, read, length = [], 0, 0, 0
    for t in range(1, len(tokens) + 1):  # decoded with the token before, since some decoders trim the first
        known, more = tokenizer.decode(tokens[base:read]), tokenizer.decode(tokens[base:t])
        if not more.endswith(BROKEN):
            length += len(more) - len(known)
            base, read = read, t
        ends.append(length)
    return np.array(ends, np.int64)


def step_cuts(tokenizer: Tokenizer, episode: Episode, separator: str, max_steps: int) -> list[int]:
    """Numbers of tokens of the episode after which a step of a reply is over and another one follows: at most
    `max_steps` - 1 of them, evenly chosen."""
    cuts: list[int] = []
    start = 0
    for span in episode.spans:
        if span.sampled:
            cuts += [start + cut for cut in _cuts(tokenizer, span.tokens, separator)]
        start += len(span)
    if len(cuts) >= max_steps:
        cuts = [cuts[i] for i in np.linspace(0, len(cuts) - 1, max_steps - 1).round().astype(int)]
    return cuts


def _cuts(tokenizer: Tokenizer, tokens: Array, separator: str) -> list[int]:
    if not separator:
        return list(range(1, len(tokens)))
    ends, text = text_ends(tokenizer, tokens), tokenizer.decode(tokens)
    return sorted({int(np.searchsorted(ends, end)) + 1 for end in step_ends(text, separator)})


def step_ends(text: str, separator: str) -> list[int]:
    """Numbers of characters after which a step of a text is over and another one follows: behind each run of separators."""
    over = [m.end() for m in re.finditer(f"(?:{re.escape(separator)})+", text)] if separator else []
    return [end for end in over if text[end:].strip()]


def steps_of(tokenizer: Tokenizer, episode: Episode, separator: str) -> tuple[list[int], list[str]]:
    """Where an answer begins, where each of its steps ends (numbers of tokens, K + 1 of them), and the K steps."""
    start = int(np.flatnonzero(episode.sampled)[0])
    cuts = [start, *step_cuts(tokenizer, episode, separator, 1 << 20), len(episode.tokens)]
    return cuts, [tokenizer.decode(episode.tokens[a:b]) for a, b in pairwise(cuts)]


def step_index(episode: Episode, cuts: Sequence[int]) -> Array:
    """int64[T]: the step (from 0) that each token belongs to."""
    return np.searchsorted(np.asarray(cuts, np.int64), np.arange(len(episode.tokens)), side="right")


async def branches(
    rollouts: GroupRollout,
    episode: Episode,
    cut: int,
    number: int,
    forced: Array | None = None,
    **params: Any,
) -> list[Conversation]:
    """`number` continuations of the first `cut` tokens, after the tokens `forced` where given. `params` as for
    `Conversation.reply`."""
    start = rollouts.resume_from(episode, cut, seeds.key("probe", episode.index, cut))
    if forced is not None:
        start.force_prefix(forced, tag="forced")
    return await continued(start, number, **params)


async def continued(start: Conversation, number: int, **params: Any) -> list[Conversation]:
    """`number` forks of a conversation, each after one reply of its own."""
    conversations = [start.fork(k) for k in range(number)]
    await asyncio.gather(*(p.reply(tag=PROBE, **params) for p in conversations))
    return conversations


def last_turn(conversation: Conversation) -> str:
    """The text of the assistant's turn that the conversation ends with, forced tokens included."""
    words: list[Array] = []
    for span in conversation.spans:
        words = [*words, span.tokens] if span.role == "assistant" else []
    return conversation.generator.renderer.decode(np.concatenate(words)) if words else ""


def tokens_left(rollouts: GroupRollout, episode: Episode, cut: int) -> int:
    """Tokens that are left of a reply's limit after `cut` tokens of the episode."""
    written = 0
    for span, end in zip(episode.spans, np.cumsum([len(s) for s in episode.spans]), strict=True):
        if end >= cut:
            written = cut - (int(end) - len(span)) if span.role == "assistant" else 0
            break
    return max(1, rollouts.generator.params.max_tokens - written)


async def noting(
    rollouts: GroupRollout,
    episodes: Sequence[Episode],
    look: Callable[[Episode], Awaitable[Mapping[str, Any]]],
) -> list[Episode]:
    """The episodes, with what `look` finds added to their notes. Errors of `look` fail its episode alone
    (`GroupRollout.play`)."""

    async def again(episode: Episode) -> list[Episode]:
        async def noted(task: Task, conversation: Conversation) -> Episode:
            return replace(episode, notes={**episode.notes, **await look(episode)})

        return [episode] if episode.failure else await rollouts.play(episode.index, noted)

    return [e for found in await asyncio.gather(*map(again, episodes)) for e in found]
