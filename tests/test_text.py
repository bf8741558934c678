"""Tokenizers and chat templates: turns extend the tokens that were sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.models.tiny import _characters, tiny, tiny_directory
from etude.text.chat_template import Renderer
from etude.text.tokenizer import read
from etude.types import Message

WORDS = ["hello", "he", "llo", "l", "o", "h", "e", " ", "\n", "a", "b", "c"]
STRIPS = (
    "{% for m in messages %}{% set c = m.content %}"
    "{% if m.role == 'assistant' and not loop.last %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{{ '<' + m.role + '>' + c + '<end>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
LINES = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@pytest.mark.parametrize("stopped", [True, False])
def test_five_turns_extend_the_tokens_that_were_sampled(tmp_path: Path, stopped: bool) -> None:
    path = tiny_directory(tmp_path / "m", WORDS, template=LINES)
    renderer = Renderer(read(path))
    table = renderer.tokenizer.backend.token_to_id
    end, sampled = table("<end>"), [table("he"), table("llo")]
    assert renderer.tokenizer.encode("hello").tolist() == [table("hello")]
    assert renderer.extends
    messages = [Message("user", "a")]
    held = renderer.prompt(messages).tolist()
    for turn in range(5):
        reply = [*sampled, end] if stopped else sampled
        held += reply
        messages.append(Message("assistant", renderer.decode(reply)))
        assert messages[-1].content == "hello"
        new = [Message("user", "abc"[turn % 3])]
        more, rewrote = renderer.extend(messages, new, ended=stopped)
        assert not rewrote
        held += more.tolist()
        messages += new
        assert held[-1] == table("<assistant>")
        assert renderer.tokenizer.decode(held, special=True) == renderer.tokenizer.render(messages, True)
        assert held.count(end) == 2 * (turn + 1) + 1


def test_a_template_that_rewrites_history_is_found_out(tmp_path: Path) -> None:
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz<>/ \n0123456789?"})
    renderer = Renderer(read(tiny_directory(tmp_path / "m", letters, template=STRIPS)))
    assert not renderer.extends
    start = [Message("user", "a")]
    plain = [*start, Message("assistant", "b")]
    tokens, rewrote = renderer.extend(plain, [Message("user", "c")])
    assert not rewrote
    thought = [*start, Message("assistant", "x</think>b")]
    tokens, rewrote = renderer.extend(thought, [Message("user", "c")])
    assert rewrote
    assert (
        renderer.tokenizer.decode(tokens, special=True)
        == "<user>a<end>\n<assistant>b<end>\n<user>c<end>\n<assistant>"
    )


def test_a_reply_that_a_template_changes_counts_as_rewritten(tmp_path: Path) -> None:
    """Here the reply cannot even be found in the text."""
    shouts = LINES.replace("m.content", "(m.content if m.role == 'user' else m.content | upper)")
    renderer = Renderer(read(tiny_directory(tmp_path / "m", template=shouts)))
    assert not renderer.extends
    tokens, rewrote = renderer.extend(
        [Message("user", "a"), Message("assistant", "b")], [Message("user", "c")]
    )
    assert rewrote
    assert renderer.decode(tokens) == "a\nB\nc\n"


def test_without_a_chat_template_contents_are_lines(tmp_path: Path) -> None:
    renderer = Renderer(read(tiny_directory(tmp_path / "m", "abc \n", template=None)))
    assert renderer.decode(renderer.prompt([Message("user", "ab"), Message("user", "c")])) == "ab\nc\n"
    more, rewrote = renderer.extend([Message("user", "a"), Message("assistant", "b")], [Message("user", "c")])
    assert (renderer.decode(more), rewrote) == ("\nc\n", False)
    with pytest.raises(ValueError, match="reply"):
        renderer.extend([Message("user", "a")], [Message("user", "c")])


def test_decoding_never_raises() -> None:
    policy = tiny("abc")
    end = policy.tokenizer.stops[0]
    assert policy.renderer.decode([7, 8, end]) == "ab"
    assert policy.renderer.decode([7, 10**6, -1, 8]) == "ab"


def test_the_character_tokenizer_knows_every_character() -> None:
    text = "ab<end>+?c\\d\n"
    backend = _characters("abcd+?\\\n")
    assert backend.decode(backend.encode(text).ids, skip_special_tokens=False) == text
