"""Replies in pieces, a chat that keeps its tokens, and `etude ask` and `etude serve` as programs."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from etude.models.policy import Policy
from etude.models.tiny import LETTERS, SPECIAL, tiny, tiny_directory
from etude.serve.chat import Chat, answer
from etude.serve.replies import Speaker
from etude.text.stream import TextStream
from etude.types import Message, SamplingParams

BYTES = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
BYTES.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES.decoder = decoders.ByteLevel()


def bytewise(tokens: list[int]) -> str:
    return str(BYTES.decode(tokens, skip_special_tokens=False))


def pieces(text: str, stops: list[str]) -> tuple[list[str], TextStream]:
    """The text in pieces, one token a byte."""
    stream = TextStream(bytewise, stops)
    found = []
    for token in BYTES.encode(text).ids:
        ended = stream.feed(token)
        found.append(stream.take())
        if ended:
            break
    return [*found, stream.rest()], stream


@settings(deadline=None)
@given(st.text(alphabet="aé€😀 b", max_size=20), st.lists(st.text(alphabet="aé b", min_size=1, max_size=3)))
def test_pieces_are_the_text_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    """As if the whole had been there at once: what ends first wins, and no half of it is shown."""
    found, stream = pieces(text, stops)
    ends = [(text.index(s) + len(s), text.index(s)) for s in stops if s in text]
    first = min((end for end, _ in ends), default=None)
    wanted = text if first is None else text[: min(begin for end, begin in ends if end == first)]
    assert "".join(found) == wanted
    assert stream.stopped == (first is not None)


def test_characters_come_whole_and_at_once() -> None:
    assert pieces("a€b", [])[0] == ["a", "", "", "€", "b", ""]
    assert pieces("a€b", ["bc", "€x"])[0] == ["a", "", "", "", "€", "b"]
    stream = TextStream(bytewise)
    stream.feed(BYTES.encode("€").ids[0])
    assert (stream.take(), stream.rest()) == ("", "\ufffd")  # cut in the middle of a character


MANY = [chr(0x4E00 + i) for i in range(3000)]  # among so many characters an end is rare: replies are long


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny([*LETTERS, *MANY], seed=3)


def test_a_chat_goes_on_from_the_tokens_it_holds() -> None:
    """The prompt of a later turn is all that was said, with what was sampled as it was sampled: here "o", "n" are often
    drawn one after the other, and would be read back as "on"."""
    letters = "onetwbkidrf "
    policy = tiny([*letters, *(a + b for a in letters for b in letters)], seed=3)
    chat = Chat(Speaker(policy), SamplingParams(max_tokens=40), seed=1)
    chat.reset("be kind")
    asked = []
    sample = chat.speaker.sampler.sample

    async def watched(prompt, *rest):  # type: ignore[no-untyped-def]
        got = await sample(prompt, *rest)
        asked.append((prompt, got.tokens))
        return got

    chat.speaker.sampler.sample = watched  # type: ignore[method-assign]

    async def say(text: str) -> str:
        return "".join([piece async for piece in chat.say(text)])

    async def talk() -> list[str]:
        return [await say("one"), await say("two"), await say("one")]

    said = asyncio.run(talk())
    renderer = policy.renderer
    first = renderer.prompt([Message("system", "be kind"), Message("user", "one")])
    assert asked[0][0].tolist() == first.tolist()
    assert said[0] == renderer.decode(asked[0][1])
    held = np.concatenate([first, asked[0][1]])
    assert renderer.tokenizer.encode(said[0]).tolist() != [t for t in asked[0][1] if t > len(SPECIAL)]
    assert asked[1][0][: len(held)].tolist() == held.tolist()
    assert renderer.tokenizer.decode(asked[1][0][len(held) :], special=True).endswith(
        "<user>two<end><assistant>"
    )
    assert [m.content for m in chat.messages if m.role == "user"] == ["one", "two", "one"]
    chat.reset()
    assert asyncio.run(talk()) == said  # named by the seed and what was said alone
    chat.reset("be brief")
    assert asyncio.run(say("one")) != said[0]


def test_what_is_said_before_an_interrupt_stays(policy: Policy) -> None:
    chat = Chat(Speaker(policy), SamplingParams(max_tokens=4000))

    async def cut() -> str:
        stream = chat.say("hello")
        said = "".join([await anext(stream) for _ in range(20)])
        await stream.aclose()
        return said

    said = asyncio.run(cut())
    assert chat.messages[-1] == Message("assistant", said)
    assert chat.finish == "interrupted"


# ---- as programs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory(tmp_path_factory.mktemp("ask") / "model", [*LETTERS, *MANY], seed=3)


def etude(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "etude", *map(str, words)]


def test_one_question_and_lines_of_questions(model: Path) -> None:
    """Without a terminal every line is a question of its own; the same question has the same answer."""
    one = subprocess.run(etude("ask", model, "2+3", "--max-tokens", "7"), capture_output=True, text=True)
    assert one.returncode == 0, one.stderr
    lines = subprocess.run(
        etude("ask", model, "--max-tokens", "7", "--json"),
        input="what\n\n2+3\n/reset\n",
        capture_output=True,
        text=True,
    )
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [f["question"] for f in found] == ["what", "2+3", "/reset"]
    assert one.stdout.splitlines() == found[1]["answer"].splitlines()
    assert ("cut after 7 tokens" in one.stderr) == (found[1]["finish"] == "length")


def test_a_chat_in_a_terminal(model: Path) -> None:
    """A reply that Ctrl-C ends, a command, another question, and Ctrl-D."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        etude("ask", model, "--max-tokens", "4000"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_owns_the_terminal,
    )
    os.close(theirs)
    screen = Screen(ours)
    screen.until("> ")
    os.write(ours, b"hello\n")
    screen.until("hello\r\n", more=20)
    os.write(ours, b"\x03")
    screen.until("[interrupted]")
    os.write(ours, b"/system be brief\n")
    screen.until("[begun anew with the system message: be brief]")
    os.write(ours, b"hello\n")
    screen.until("hello\r\n", more=20)
    os.write(ours, b"\x03")
    screen.until("[interrupted]")
    screen.until("> ")
    os.write(ours, b"\x04")
    assert child.wait(20) == 0
    assert "Traceback" not in screen.seen


def test_what_was_sampled_already_is_not_shown_after_an_interrupt() -> None:
    """The whole reply is there before its first piece is written; Ctrl-C comes with the third."""

    class Ready:
        async def say(self, question: str):  # type: ignore[no-untyped-def]
            for piece in "abcdefgh":
                yield piece

    class Terminal(io.StringIO):
        def flush(self) -> None:
            if self.getvalue() == "abc":
                signal.raise_signal(signal.SIGINT)

    out = Terminal()
    with asyncio.Runner() as runner, pytest.raises(KeyboardInterrupt):
        answer(Ready(), "", out, runner)  # type: ignore[arg-type]
    assert out.getvalue() == "abc"


def _owns_the_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Screen:
    """What a program writes to a terminal."""

    def __init__(self, terminal: int) -> None:
        self.terminal, self.seen, self.at = terminal, "", 0

    def until(self, text: str, more: int = 0) -> None:
        """Waits for `text` behind what was waited for before, and for so many characters after it."""
        ends = time.monotonic() + 60
        while text not in self.seen[self.at :] or len(self.seen) < self._end(text) + more:
            ready, _, _ = select.select([self.terminal], [], [], 1)
            assert time.monotonic() < ends, f"no {text!r} in {self.seen[self.at :]!r}"
            if ready:
                self.seen += os.read(self.terminal, 4096).decode(errors="replace")
        self.at = self._end(text)

    def _end(self, text: str) -> int:
        return self.seen.index(text, self.at) + len(text)


def test_a_server_that_is_interrupted(model: Path) -> None:
    """It says where it is, answers, and ends with 0 and without a traceback, also in the middle of a reply."""
    child = subprocess.Popen(
        etude("serve", model, "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    said = child.stdout.readline()
    address, _, about = said.partition("  ")
    assert about.startswith("model model")
    assert httpx.get(f"{address}/models", timeout=60).json()["data"][0]["id"] == "model"
    body = {"model": "model", "prompt": "a", "max_tokens": 4000, "stream": True, "n": 4}
    with httpx.stream("POST", f"{address}/completions", json=body, timeout=60) as got:
        lines = got.iter_lines()
        next(lines)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        assert "requests under way (1) get 5 seconds" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        *_, last, end = filter(None, lines)
        assert "the server was stopped before the reply was whole" in last
        assert end == "data: [DONE]"
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors
    assert "Traceback" not in errors
