"""The conversation in which an episode is written, as tokens.

A rollout is a coroutine that talks to a conversation; the sampler batches the requests of all that wait. What was
sampled stays as it was sampled: later turns are appended to the tokens that are held, never tokenised anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from etude import seeds
from etude.rollout.calls import ATTEMPTS, RESULT, with_calls
from etude.rollout.full import DROP_OLDEST, FULL, REFUSE, SUMMARISE, leave_out, sum_up
from etude.sampling.protocol import Sample, Unanswered
from etude.text.chat_template import Renderer
from etude.text.stream import Pause
from etude.text.stream import before as before_stop
from etude.text.tool_calls import TOOL, Call, Offer
from etude.tools.kit import CALLS, Kit, ToolSession
from etude.types import Array, Environment, Episode, Failure, Message, SamplingParams, Span, Task, Verdict


class CheckRunner(Protocol):
    """Runs a task's checker. An error of the checker raises `Failed`: it never becomes a reward of 0."""

    async def __call__(self, task: Task, answer: str) -> Verdict: ...


@dataclass(frozen=True)
class Generator:
    """A model that replies: its sampler, its renderer (chat template), and how it is sampled."""

    sampler: Any  # sampling.protocol.Sampler; None where nothing is sampled
    renderer: Renderer
    params: SamplingParams
    name: str = "policy"
    limit: int = 1 << 30  # longest conversation, tokens
    kit: Kit = field(default_factory=Kit)  # what it may call
    when_full: str = REFUSE  # or DROP_OLDEST, SUMMARISE
    summary_tokens: int = 128  # longest summary
    summariser: Generator | None = None  # who writes summaries; None: this model


class Failed(Exception):
    """Raised where an episode cannot be finished through no fault of the policy; becomes its `Failure`."""

    def __init__(self, where: str, error: BaseException | str, traceback: str = ""):
        super().__init__(str(error))
        self.failure = Failure(where, repr(error) if isinstance(error, BaseException) else error, traceback)


@dataclass
class Conversation:
    """One episode in the making. Not shared between coroutines; `fork` to branch."""

    task: Task
    generator: Generator
    check_runner: CheckRunner
    key: int  # names the random streams of this conversation
    index: int = 0  # sample number within its group
    messages: list[Message] = field(default_factory=list)  # as text, for the chat template
    spans: list[Span] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    stop: str = ""  # why the last reply ended: "end" (by a stop token or a stop string) | "length"
    turns: int = 0  # replies sampled so far
    version: int = -1  # of the policy that gave the last reply
    text: str = ""  # the last reply
    notes: dict[str, Any] = field(default_factory=dict)
    generators: Mapping[str, Generator] = field(default_factory=dict)  # auxiliary models that can be sampled
    _unsaid: list[Message] = field(default_factory=list)  # given to the policy, not yet tokenised
    _instead: list[Message] | None = None  # what training sees in place of `_unsaid`
    _new_context: bool = False  # the next message begins a new sequence
    question: str = ""  # what the first message of the user said, where turns after it were left out
    summary: str = ""  # of the turns that were left out
    full: bool = False  # no reply fits any more, until a new context begins
    samples: list[Sample] = field(default_factory=list)  # all replies as they were sampled
    session: ToolSession | None = None  # of the tools of this episode
    _offer: Offer | None = None  # the tools that the policy was told of in this context
    _attempts: bool = True  # the next reply is an attempt at the task, not a critique or a reflection

    # ---- what the policy is given --------------------------------------------------------------------

    def user(self, said: str | Sequence[Message], instead: str | Sequence[Message] | None = None) -> None:
        """Adds a message of the user (or several messages). With `instead`, sampling sees `said` and training sees
        `instead`: a hint is there when sampling and absent when training."""
        before = list(self._unsaid)
        self._unsaid += _messages(said)
        if instead is not None:
            self._instead = [*before, *_messages(instead)]
        elif self._instead is not None:
            self._instead += _messages(said)

    def new_context(self, said: str | Sequence[Message]) -> None:
        """Begins a new sequence within the same episode: what came before is no longer in the policy's context."""
        self.messages, self._unsaid, self._instead, self._new_context = [], [], None, True
        self.full, self.question, self.summary = False, "", ""
        self.user(said)

    def inject(self, text: str, tag: str) -> None:
        """Puts `text` where the policy's reply would stand, ended as a reply is. Not sampled."""
        self._render()
        words = self.generator.renderer.tokenizer.encode(text)
        tokens = np.concatenate([words, np.array(self.generator.renderer.stops[:1], np.int32)])
        self.spans.append(Span("assistant", tokens, tag=tag))
        self.messages.append(Message("assistant", text))
        self.text, self.stop = text, "end"

    def call(self, calls: Sequence[Call], said: str = "", tag: str = "") -> None:
        """Puts a reply that makes these calls, and says something before them, where the policy's would stand. Not sampled."""
        self._render()
        offer = self.offer
        assert offer is not None, "there is nothing to call"
        self.inject(self.generator.renderer.calling(self.messages, said, calls, offer), tag)

    def interject(self, text: str, tag: str) -> None:
        """Goes on with the assistant's turn, or begins it, in these words, as if it had not ended; the next reply goes on from
        there. Not sampled."""
        self._render()
        if self.messages[-1].role != "assistant":
            self.messages.append(Message("assistant", ""))
        last = self.spans[-1]
        if self.stop == "end" and last.sampled and int(last.tokens[-1]) in self.generator.renderer.stops:
            kept = None if last.logp is None else last.logp[:-1]
            self.spans[-1] = replace(last, tokens=last.tokens[:-1], logp=kept)
        words = self.generator.renderer.tokenizer.encode(text)
        self.spans.append(Span("assistant", np.asarray(words, np.int32), tag=tag))
        self.stop = "cut"

    def environment(self) -> Environment | None:
        """A new environment for the next attempt, with a seed that differs by attempt; None where the task has none."""
        make, key = self.task.environment, seeds.key(self.key, "luck", len(self.verdicts))
        if make is None:
            return None
        made = self.play(make, key)
        before, key = self.session, seeds.key(self.key, "tools", len(self.verdicts))
        self.session = self.generator.kit.session(self.task, key, made)
        if self.session is not None and before is not None:  # budgets are the episode's
            self.session.spent, self.session.record = before.spent, before.record
        return made

    def play(self, make: Callable[..., Environment], seed: int) -> Environment:
        """A new environment, where the check runner wants it to run (a user's may hang or end its process)."""
        elsewhere = getattr(self.check_runner, "environment", None)
        return make(seed) if elsewhere is None else elsewhere(make, seed)

    def force_prefix(self, tokens: Array, tag: str = "prefix") -> None:
        """int32[n] tokens that the next reply continues. Not sampled."""
        self._render()
        self.spans.append(Span("assistant", np.asarray(tokens, np.int32), tag=tag))

    def adopt(self, spans: Sequence[Span]) -> None:
        """Takes over what was written already, as it is: the next reply goes on after it."""
        self.spans = list(spans)

    # ---- what it replies -----------------------------------------------------------------------------

    async def reply(
        self, tag: str = "attempt", max_tokens: int | None = None, until: str = "", **params: Any
    ) -> str:
        """Samples a reply and returns it as text, a forced prefix included; of a stop string, which ends it, the tokens stay
        and the text goes. `max_tokens` and `params` override the generator's settings. `until`: the reply pauses with `stop`
        "cut" after a passage that ends with this text; the next reply goes on where it stopped, and the text is that of the
        whole turn. Without room left in the context the reply is empty, `stop` is "length" and the conversation is `full`: what
        is said to it from then on is not heard.

        An attempt at the task (`ATTEMPTS`) may call tools, where there are some: the calls are answered, and the policy replies
        again, until a reply calls nothing, whose text is returned."""
        self._attempts = tag.startswith(ATTEMPTS)
        tools = self.tools() if self._attempts and not until else None
        if tools is None:
            return await self.sample(tag, max_tokens, (until,) if until else (), params)
        return await with_calls(self, tools, tag, max_tokens, params)

    def tools(self) -> ToolSession | None:
        """The tools of this episode; None where there are none."""
        if self.session is None:
            self.session = self.generator.kit.session(self.task, seeds.key(self.key, "tools"))
        return self.session

    @property
    def offer(self) -> Offer | None:
        """What the policy is told that it may call, in the context that it is in or that begins now."""
        if not self.spans or self._new_context:
            tools = self.tools() if self._attempts else None
            self._offer = None if tools is None else tools.offer(self.generator.renderer)
        return self._offer

    async def sample(
        self, tag: str, max_tokens: int | None, until: Sequence[str], params: Mapping[str, Any]
    ) -> str:
        """One reply as `reply` samples it; whatever it calls is left alone."""
        spans = len(self.spans)
        goes_on = self.stop == "cut" and not self._unsaid
        self._render()
        settings = replace(self.generator.params, **params)
        context = self.context
        wanted, left = max_tokens or settings.max_tokens, self.generator.limit - len(context)
        if left < wanted and not goes_on and await self._shortened(wanted):
            context = self.context
            left = self.generator.limit - len(context)
        if self.full or left <= 0:
            del self.spans[
                max(1, spans) :
            ]  # what gets no reply is not part of the episode; what was asked first is
            self.full, self.stop, self.text = True, "length", ""
            self.notes[FULL] = self.generator.limit
            return ""
        settings = replace(settings, max_tokens=min(wanted, left))
        pause = Pause(until, self.generator.renderer.decode) if until else None
        watched = {"watch": pause} if pause else {}
        try:
            sample = await self.generator.sampler.sample(
                context, settings, seeds.key(self.key, self.turns), **watched
            )
        except Unanswered as error:
            raise Failed("sampler", error) from error
        self.turns += 1
        self.samples.append(sample)
        paused = pause is not None and pause.reached
        self.stop = "end" if sample.stop == "cut" and not paused else sample.stop
        if self.stop == "length" and left < wanted:
            self.notes[FULL] = self.generator.limit
        self.version = sample.version
        before = self._turn() if goes_on else self.spans[-1:]
        words = [s.tokens for s in before if goes_on or s.tag == "prefix"]
        self.spans.append(
            Span("assistant", sample.tokens, True, sample.logp, tag=tag, version=sample.version)
        )
        decode = self.generator.renderer.decode
        said = decode(np.concatenate(words)) if words else ""
        text = decode(np.concatenate([*words, sample.tokens]))
        if sample.stop == "cut" and not paused:
            text = before_stop(text, settings.stop, len(said))
        if goes_on:
            del self.messages[-1]
        self.messages.append(Message("assistant", text))
        self.text = text
        return text

    async def _shortened(self, room: int) -> bool:
        """Whether a new sequence has begun that leaves room for a reply, as the generator says it is to be done. Raises Failed."""
        try:
            if self.generator.when_full == SUMMARISE:
                return await sum_up(self, room)
        except Unanswered as error:
            raise Failed("sampler", error) from error
        return self.generator.when_full == DROP_OLDEST and leave_out(self, room)

    def _turn(self) -> list[Span]:
        """The spans of the assistant's turn that the conversation ends with."""
        last = next((i for i in reversed(range(len(self.spans))) if self.spans[i].role != "assistant"), -1)
        return self.spans[last + 1 :]

    async def check(self, answer: str) -> Verdict:
        """The task's verdict on `answer`, kept with the episode. An error of the checker raises `Failed`."""
        verdict = await self.check_runner(self.task, answer)
        return self.verdict(verdict)

    def verdict(self, verdict: Verdict) -> Verdict:
        """Keeps a verdict that came from elsewhere, such as an environment."""
        self.verdicts.append(verdict)
        return verdict

    # ---- branching and finishing ---------------------------------------------------------------------

    def fork(self, branch: int) -> Conversation:
        """An independent continuation of this conversation, with random streams named by `branch`."""
        self._render()
        return replace(
            self,
            key=seeds.key(self.key, "fork", self.turns, branch),
            messages=list(self.messages),
            spans=list(self.spans),
            verdicts=list(self.verdicts),
            samples=list(self.samples),
            session=self.session.fork() if self.session else None,
            notes=dict(self.notes),
            _unsaid=[],
        )

    def done(self, **notes: Any) -> Episode:
        """The finished episode; `notes` are left for the method's credit."""
        self._render(final=True)
        called = {CALLS: list(self.session.record)} if self.session is not None else {}
        return Episode(
            task=self.task,
            spans=tuple(self.spans),
            player=self.generator.name,
            index=self.index,
            verdicts=tuple(self.verdicts),
            stop=self.stop,
            policy_version=self.version,
            notes={"limit": self.generator.params.max_tokens, **called, **self.notes, **notes},
            text=self.text,
        )

    @property
    def context(self) -> Array:
        """int32[n]: the tokens that the next reply is conditioned on (without spans that only training sees)."""
        last = max((i for i, s in enumerate(self.spans) if s.restart and not s.unseen), default=0)
        seen = [s.tokens for s in self.spans[last:] if not s.unseen]
        return np.concatenate(seen) if seen else np.zeros(0, np.int32)

    @property
    def ended(self) -> bool:
        """Whether the last reply ended with a stop token (and not with a stop string)."""
        last = self.spans[-1].tokens
        return self.stop == "end" and len(last) > 0 and int(last[-1]) in self.generator.renderer.stops

    def asks(self, messages: Sequence[Message]) -> int:
        """How many messages at the beginning are the task's question; a method's own text is none."""
        asked = list(self.task.prompt)
        return len(asked) if list(messages[: len(asked)]) == asked else 0

    def prompt(self, messages: Sequence[Message]) -> Array:
        """int32[n]: what the policy is given where a context begins with `messages`, the tools that it has in this one included."""
        known = {"tools": self.offer} if self.offer else {}
        return self.generator.renderer.prompt(messages, self.asks(messages), **known)

    def _render(self, final: bool = False) -> None:
        """Tokenises what was added since the last reply, once. `final`: a message that got no reply is dropped; it is
        not part of the episode."""
        said, instead = self._unsaid, self._instead
        self._unsaid, self._instead = [], None
        if not said or final or self.full:
            return
        render = self.generator.renderer
        if not self.spans or self._new_context:
            tokens, rewrote = self.prompt(said), bool(self.spans)
            plain = None if instead is None else self.prompt(instead)
        else:
            ended, asks = self.ended, self.asks(self.messages)
            known = {"tools": self.offer} if self.offer else {}
            tokens, rewrote = render.extend(self.messages, said, ended, asks, **known)
            plain = (
                None if instead is None else render.extend(self.messages, instead, ended, asks, **known)[0]
            )
        role, what = (TOOL, RESULT) if all(m.role == TOOL for m in said) else ("user", "prompt")
        self.spans.append(Span(role, tokens, hidden=plain is not None, restart=rewrote, tag=what))
        if plain is not None:
            self.spans.append(Span("user", plain, unseen=True, restart=rewrote, tag="prompt"))
        self.messages += said
        self._new_context = False


def _messages(said: str | Sequence[Message]) -> list[Message]:
    return [Message("user", said)] if isinstance(said, str) else list(said)
