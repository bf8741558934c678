"""A player: the conversation in which an episode is written, as tokens.

A rollout is a coroutine against a player; the sampler batches whatever all of them wait for. What was sampled
stays as it was sampled: later turns append to the tokens that are held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from etude import seeds
from etude.types import Array, Environment, Episode, Failure, Message, SamplingParams, Span, Task, Verdict


class CheckRunner(Protocol):
    """Runs a task's checker behind the boundary that keeps errors from becoming zeros."""

    async def __call__(self, task: Task, answer: str) -> Verdict: ...


@dataclass(frozen=True)
class Generator:
    """Who speaks: a sampler with the renderer of its model."""

    sampler: Any  # policy.sampler.Sampler
    renderer: Any  # policy.render.Renderer
    params: SamplingParams
    name: str = "policy"
    limit: int = 1 << 30  # the most tokens that a conversation may have


class Failed(Exception):
    """An episode that cannot be finished, through no fault of the policy."""

    def __init__(self, where: str, error: BaseException | str, traceback: str = ""):
        super().__init__(str(error))
        self.failure = Failure(where, repr(error) if isinstance(error, BaseException) else error, traceback)


@dataclass
class Conversation:
    """Writes one episode. Not shared between coroutines; `fork` to branch."""

    task: Task
    generator: Generator
    check_runner: CheckRunner
    key: int  # names this player's random stream
    index: int = 0
    messages: list[Message] = field(default_factory=list)  # the conversation as text, for templates
    spans: list[Span] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    stop: str = ""
    turns: int = 0
    version: int = -1
    notes: dict[str, Any] = field(default_factory=dict)
    generators: Mapping[str, Generator] = field(default_factory=dict)  # companions that can be asked to speak
    _unsaid: list[Message] = field(default_factory=list)  # said to the policy, not yet tokenised
    _instead: list[Message] | None = None  # what training sees in place of `_unsaid`
    _new_context: bool = False  # what is said next begins a new conversation

    # ---- saying things to the policy -----------------------------------------------------------------

    def user(self, said: str | Sequence[Message], instead: str | Sequence[Message] | None = None) -> None:
        """Something the policy is told. `instead` is what training shall see in its place: with it, a hint is
        there when sampling and absent when training."""
        before = list(self._unsaid)
        self._unsaid += _messages(said)
        if instead is not None:
            self._instead = [*before, *_messages(instead)]
        elif self._instead is not None:
            self._instead += _messages(said)

    def new_context(self, said: str | Sequence[Message]) -> None:
        """A new conversation within the same episode: what came before is out of view, and a new sequence begins."""
        self.messages, self._unsaid, self._instead, self._new_context = [], [], None, True
        self.user(said)

    def inject(self, text: str, tag: str) -> None:
        """Words of somebody else where the policy's reply would stand. Not sampled."""
        self._render()
        words = self.generator.renderer.tokenizer.encode(text)
        tokens = np.concatenate([words, np.array(self.generator.renderer.stops[:1], np.int32)])
        self.spans.append(Span("assistant", tokens, tag=tag))
        self.messages.append(Message("assistant", text))
        self.stop = "end"

    def environment(self) -> Environment | None:
        """A fresh world for the next attempt, with a luck of its own; None where the task is answered in words."""
        make = self.task.environment
        return None if make is None else make(seeds.key(self.key, "luck", len(self.verdicts)))

    def force_prefix(self, tokens: Array, tag: str = "prefix") -> None:
        """Words put in the policy's mouth: the next reply continues them. Not sampled."""
        self._render()
        self.spans.append(Span("assistant", np.asarray(tokens, np.int32), tag=tag))

    # ---- hearing from it -----------------------------------------------------------------------------

    async def reply(self, tag: str = "attempt", max_tokens: int | None = None, **params: Any) -> str:
        """Samples the policy's next words and returns them as text. Their tokens are what is trained."""
        self._render()
        settings = replace(self.generator.params, **params)
        context = self.context
        room = min(max_tokens or settings.max_tokens, self.generator.limit - len(context))
        if room <= 0:
            self.stop = "length"
            return ""
        settings = replace(settings, max_tokens=room)
        sample = await self.generator.sampler.sample(context, settings, seeds.key(self.key, self.turns))
        self.turns += 1
        self.stop = sample.stop
        self.version = sample.version
        prefix = (
            self.spans[-1].tokens if self.spans and self.spans[-1].tag == "prefix" else np.zeros(0, np.int32)
        )
        self.spans.append(Span("assistant", sample.tokens, sampled=True, logp=sample.logp, tag=tag))
        text = self.generator.renderer.decode(np.concatenate([prefix, sample.tokens]))
        self.messages.append(Message("assistant", text))
        return text

    async def check(self, answer: str) -> Verdict:
        """The verdict on an answer, kept with the episode. An error of the checker raises `Failed`."""
        verdict = await self.check_runner(self.task, answer)
        return self.verdict(verdict)

    def verdict(self, verdict: Verdict) -> Verdict:
        """Keeps a verdict that came from elsewhere, such as a world."""
        self.verdicts.append(verdict)
        return verdict

    # ---- branching and finishing ---------------------------------------------------------------------

    def fork(self, branch: int) -> Conversation:
        """An independent continuation of this conversation; the prefix is shared by the sampler."""
        self._render()
        return replace(
            self,
            key=seeds.key(self.key, "fork", self.turns, branch),
            messages=list(self.messages),
            spans=list(self.spans),
            verdicts=list(self.verdicts),
            notes=dict(self.notes),
            _unsaid=[],
        )

    def done(self, **notes: Any) -> Episode:
        self._render(final=True)
        return Episode(
            task=self.task,
            spans=tuple(self.spans),
            player=self.generator.name,
            index=self.index,
            verdicts=tuple(self.verdicts),
            stop=self.stop,
            policy_version=self.version,
            notes={"limit": self.generator.params.max_tokens, **self.notes, **notes},
        )

    @property
    def context(self) -> Array:
        """int32[n]: what the policy has in view now (without spans that only training sees)."""
        last = max((i for i, s in enumerate(self.spans) if s.restart), default=0)
        seen = [s.tokens for s in self.spans[last:] if not s.unseen]
        return np.concatenate(seen) if seen else np.zeros(0, np.int32)

    def _render(self, final: bool = False) -> None:
        """Tokenises what was said since the last reply, once. A trailing remark that nobody answered is not
        part of the episode (`final`)."""
        said, instead = self._unsaid, self._instead
        self._unsaid, self._instead = [], None
        if not said or final:
            return
        render = self.generator.renderer
        if not self.spans or self._new_context:
            tokens, rewrote = render.prompt(said), bool(self.spans)
            plain = None if instead is None else render.prompt(instead)
        else:
            tokens, rewrote = render.extend(self.messages, said, ended=self.stop == "end")
            plain = (
                None
                if instead is None
                else render.extend(self.messages, instead, ended=self.stop == "end")[0]
            )
        self.spans.append(Span("user", tokens, hidden=plain is not None, restart=rewrote, tag="prompt"))
        if plain is not None:
            self.spans.append(Span("user", plain, unseen=True, restart=rewrote, tag="prompt"))
        self.messages += said
        self._new_context = False


def _messages(said: str | Sequence[Message]) -> list[Message]:
    return [Message("user", said)] if isinstance(said, str) else list(said)
