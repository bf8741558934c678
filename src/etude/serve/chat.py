"""`etude ask`: one answer, or a chat in the terminal. What was sampled is kept as tokens; the next turn is appended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any, TextIO

import numpy as np

from etude import seeds
from etude.errors import UserError
from etude.evaluate.inference import Played
from etude.report.terminal import clean
from etude.serve.methods import answer as answer_by
from etude.serve.replies import Speaker
from etude.text.stream import before
from etude.tools.kit import Kit
from etude.types import Array, Message, SamplingParams

HELP = "/reset forgets what was said; /system TEXT begins anew with a system message; Ctrl-C ends a reply; Ctrl-D ends"


@dataclass
class Chat:
    """A conversation with a model, whose renderer says how it is asked: the first question has the text, the system message and
    the examples of the run around it. `seed` names the random draws: the same words are answered the same."""

    speaker: Speaker
    params: SamplingParams
    seed: int = 0
    method: Played | None = None  # of inference, by which it answers
    kit: Kit | None = None  # tools that it may call
    messages: list[Message] = field(default_factory=list)
    held: Array = field(default_factory=lambda: np.zeros(0, np.int32))  # all tokens so far
    spent: dict[str, Any] = field(default_factory=dict)  # on the last answer of a method, and what was called
    finish: str = ""  # how the last reply ended: "stop" | "length" | "interrupted"

    def reset(self, system: str | None = None) -> None:
        self.messages, self.held = [], np.zeros(0, np.int32)
        if system is not None:
            renderer = self.speaker.policy.renderer
            renderer.framing = replace(renderer.framing, system=system)

    async def say(self, text: str) -> AsyncGenerator[str, None]:
        """The reply to `text`, piece by piece. A reply that is interrupted stays in the conversation as far as it went;
        one that cannot be begun (UserError) leaves no trace."""
        prompt, new = self._prompt(text)
        if self.method is not None or self.kit is not None:
            yield await self._at_once(prompt, new)
            return
        key = seeds.key(self.seed, "ask", prompt.tolist())
        tokens: list[int] = []
        said, self.finish = "", "interrupted"
        try:
            async with aclosing(self.speaker.stream(prompt, self.params, key)) as pieces:
                async for piece in pieces:
                    tokens += [] if piece.token is None else [piece.token]
                    said += piece.text
                    self.finish = piece.finish or self.finish
                    yield piece.text
        finally:
            if tokens:
                text = self.speaker.policy.renderer.decode(tokens)
                self.messages += [*new, Message("assistant", before(text, self.params.stop))]
                self.held = np.concatenate([prompt, np.array(tokens, np.int32)])

    async def _at_once(self, prompt: Array, new: list[Message]) -> str:
        """The answer of a method, or one that may call tools, when it is found."""
        key, said = seeds.key(self.seed, "ask", prompt.tolist()), [*self.messages, *new]
        self.finish = "interrupted"
        found, self.spent = await answer_by(self.speaker, self.method, said, self.params, key, self.kit)
        self.messages, self.finish = [*said, Message("assistant", found)], "stop"
        words = self.speaker.policy.tokenizer.encode(found)
        self.held = np.concatenate(
            [prompt, words, np.array(self.speaker.policy.renderer.stops[:1], np.int32)]
        )
        return found

    def _prompt(self, text: str) -> tuple[Array, list[Message]]:
        renderer = self.speaker.policy.renderer
        new = [Message("user", text)]
        if not self.messages:
            return renderer.prompt(new, 1), new
        ended = int(self.held[-1]) in renderer.stops
        more, rewrote = renderer.extend(self.messages, new, ended, 1)
        return (more if rewrote else np.concatenate([self.held, more])), new


def answer(chat: Chat, question: str, out: TextIO, runner: asyncio.Runner) -> str:
    """Asks, and writes the reply to `out` while it is sampled; returns it."""

    async def work() -> str:
        said = ""
        async with aclosing(chat.say(question)) as pieces:
            async for piece in pieces:
                said += piece
                out.write(clean(piece))
                out.flush()
                await asyncio.sleep(0)  # here Ctrl-C ends a reply of which more was sampled than is shown
        return said

    return runner.run(work())


def answer_lines(chat: Chat, lines: Iterable[str], as_json: bool) -> None:
    """Every line is a question of its own, answered at once; blank ones are passed over."""
    with asyncio.Runner() as runner:
        for line in lines:
            if question := line.strip():
                chat.reset()
                answer_one(chat, question, as_json, runner)


def answer_one(chat: Chat, question: str, as_json: bool, runner: asyncio.Runner) -> None:
    """One answer on standard output; why it is cut, where it is, on standard error."""
    if as_json:
        text = answer(chat, question, StringIO(), runner)
        said = {"question": question, "answer": text, "finish": chat.finish}
        print(json.dumps({**said, **({"spent": chat.spent} if chat.spent else {})}), flush=True)
        return
    answer(chat, question, sys.stdout, runner)
    print(flush=True)
    _say_end(chat)


def _say_end(chat: Chat) -> None:
    for call in chat.spent.get("calls", ()):
        said = ", ".join(f"{name}={value!r:.60}" for name, value in call["arguments"].items())
        print(clean(f"[called {call['name']}({said}): {call['result']:.200}]"), file=sys.stderr, flush=True)
    if chat.finish == "length":
        print(f"[cut after {chat.params.max_tokens} tokens; --max-tokens]", file=sys.stderr, flush=True)


def talk(chat: Chat, about: str) -> None:
    """A chat in the terminal until Ctrl-D (or Ctrl-C while nothing is being said)."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - lines can be edited and called back

    print(f"{about}\n{HELP}", file=sys.stderr)
    with asyncio.Runner() as runner:
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if line.startswith("/"):
                print(_command(chat, line), file=sys.stderr)
            elif line:
                _turn(chat, line, runner)


def _turn(chat: Chat, line: str, runner: asyncio.Runner) -> None:
    try:
        answer(chat, line, sys.stdout, runner)
        print(flush=True)
        _say_end(chat)
    except KeyboardInterrupt:
        print("\n[interrupted]", file=sys.stderr)
    except UserError as error:
        print(f"etude: {error}; /reset begins anew", file=sys.stderr)


def _command(chat: Chat, line: str) -> str:
    name, _, rest = line.partition(" ")
    if name == "/reset":
        chat.reset()
        return "[begun anew]"
    if name == "/system":
        chat.reset(rest.strip())
        return (
            f"[begun anew with the system message: {rest.strip()}]" if rest.strip() else "[no system message]"
        )
    return HELP if name == "/help" else f"there is no {name}; {HELP}"
