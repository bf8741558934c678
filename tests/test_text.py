"""Tokenizers and chat templates: turns extend the tokens that were sampled."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import AddedToken

from etude.errors import UserError
from etude.models.policy import Policy
from etude.models.tiny import TEMPLATE, _characters, tiny, tiny_directory
from etude.text.chat_template import Renderer
from etude.text.framing import Framing
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
    tokens, rewrote = renderer.extend(
        [Message("user", "a"), Message("assistant", "b")], [Message("user", "c")]
    )
    assert rewrote
    assert renderer.decode(tokens) == "a\nB\nc\n"


def test_without_a_chat_template_the_prompt_is_as_written(tmp_path: Path) -> None:
    renderer = Renderer(read(tiny_directory(tmp_path / "m", "abc \n", template=None)))
    assert renderer.decode(renderer.prompt([Message("user", "ab")])) == "ab"
    assert renderer.decode(renderer.prompt([Message("system", "ab"), Message("user", "c")])) == "ab\nc"
    held = [Message("user", "a"), Message("assistant", "b")]
    more, rewrote = renderer.extend(held, [Message("user", "c")])
    assert (renderer.decode(more), rewrote) == ("\nc\n", False)
    assert renderer.decode(renderer.prompt([*held, Message("user", "c")])) == "ab\nc\n"
    with pytest.raises(ValueError, match="reply"):
        renderer.extend([Message("user", "a")], [Message("user", "c")])


def test_the_format_of_text_without_a_template_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tiny_directory(tmp_path / "m", template=None), tiny_directory(tmp_path / "n")):
        for _ in range(2):
            Policy.load(str(place))
    said = capsys.readouterr().err
    assert said.count("no chat template") == said.count("\n") == 1


def test_the_generation_tag_means_nothing(tmp_path: Path) -> None:
    tagged = (
        LINES.replace("m.content", "m.content")
        .replace("{{ '<' + m.role", "{% generation %}{{ '<' + m.role")
        .replace("{% endfor %}", "{% endgeneration %}{% endfor %}")
    )
    said = [Message("user", "a"), Message("assistant", "b")]
    plain, marked = (read(tiny_directory(tmp_path / n, template=t)) for n, t in (("p", LINES), ("t", tagged)))
    assert marked.render(said, True) == plain.render(said, True)


@pytest.mark.parametrize(
    "template",
    [
        LINES,
        STRIPS,
        TEMPLATE,
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}\n"
        "  {% set ns.n = ns.n + 1 %}{% set x = 1 %}{{ m.content }}{{ ns.n }}\n  {% endgeneration %}{% endif %}"
        "{{ x is defined }}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m | tojson(indent=2) }}{% endfor %}"
        "{% if tools %}t{% endif %}{{ bos_token }}{{ eos_token is defined }}{{ add_generation_prompt }}",
    ],
)
def test_templates_are_rendered_as_transformers_does(template: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    path = tiny_directory(tmp_path / "m", template=template)
    said = [Message("user", "a <b> \u00e9"), Message("assistant", "c"), Message("user", "d")]
    given = [{"role": m.role, "content": m.content} for m in said]
    theirs = AutoTokenizer.from_pretrained(path)
    for generate in (True, False):
        wanted = theirs.apply_chat_template(given, tokenize=False, add_generation_prompt=generate)
        assert read(path).render(said, generate) == wanted


def test_a_template_of_typed_parts_is_given_them(tmp_path: Path) -> None:
    """As of models that see images: what is said in plain text they leave out."""
    typed = (
        "{% for m in messages %}{{ m.role }}: {% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}"
    )
    tokenizer = read(tiny_directory(tmp_path / "m", template=typed))
    said = [Message("system", "Be brief."), Message("user", "a")]
    assert tokenizer.render(said, True) == "system: Be brief.;user: a;"


def test_a_date_is_fixed_and_in_the_form_that_is_asked_for(tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}" + LINES
    assert read(tiny_directory(tmp_path / "m", template=dated)).render([], False) == "01 Jan 2026"


def test_thinking_tools_and_documents_stay_at_the_templates_default(tmp_path: Path) -> None:
    template = (
        "{% if enable_thinking is defined %}x{% endif %}{% if tools is not none %}y{% endif %}"
        "{% if documents is not none %}z{% endif %}{% if pad_token is defined %}p{% endif %}"
        "{% if sep_token is defined %}s{% endif %}{{ messages[0].content | tojson(indent=none) }}"
    )
    tokenizer = read(tiny_directory(tmp_path / "m", template=template))
    assert tokenizer.render([Message("user", "\u00e9<")], False) == 'p"\u00e9<"'


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + LINES
DROPS = LINES.replace("{{ '<' + m.role", "{% if m.role != 'system' %}{{ '<' + m.role").replace(
    "{% endfor %}", "{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [REFUSES, DROPS])
def test_a_system_message_that_a_template_has_no_place_for_opens_the_first_user_message(
    template: str, tmp_path: Path
) -> None:
    renderer = Renderer(read(tiny_directory(tmp_path / "m", template=template)))
    said = [Message("system", "be brief"), Message("user", "a")]
    assert renderer.tokenizer.render(said, False) == "<user>be brief\n\na<end>\n"
    assert renderer.tokenizer.render(said[:1], False) == "<user>be brief<end>\n"
    _, rewrote = renderer.extend([*said, Message("assistant", "b")], [Message("user", "c")])
    assert not rewrote
    kept = read(tiny_directory(tmp_path / "n", template=LINES))
    assert kept.render(said, False) == "<system>be brief<end>\n<user>a<end>\n"


@pytest.mark.parametrize("template", [LINES, None])
def test_tags_that_are_special_tokens_are_part_of_what_was_said(template: str | None, tmp_path: Path) -> None:
    backend = _characters("abc42")
    tags = ["<answer>", "</answer>", "<|begin_of_thought|>"]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tags])
    tokenizer = read(tiny_directory(tmp_path / "m", backend, template=template))
    said = tokenizer.encode("<bos><assistant><|begin_of_thought|>a<answer>42</answer><end><pad>")
    assert tokenizer.decode(said) == "<|begin_of_thought|>a<answer>42</answer>"


def test_files_of_a_model_are_utf8_in_every_locale(tmp_path: Path) -> None:
    path = tiny_directory(tmp_path / "m", template=None)
    (path / "chat_template.jinja").write_bytes("\ufeff<\uff5cUser\uff5c>\u2581".encode())
    code = "import sys, pathlib; from etude.text.tokenizer import read;"
    code += "print(ascii(read(pathlib.Path(sys.argv[1])).template))"
    settings = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=settings, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == r"'<\uff5cUser\uff5c>\u2581'"
    (path / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read(path)


def test_decoding_never_raises() -> None:
    policy = tiny("abc")
    end = policy.tokenizer.stops[0]
    assert policy.renderer.decode([7, 8, end]) == "ab"
    assert policy.renderer.decode([7, 10**6, -1, 8]) == "ab"


def test_the_character_tokenizer_knows_every_character() -> None:
    text = "ab<end>+?c\\d\n"
    backend = _characters("abcd+?\\\n")
    assert backend.decode(backend.encode(text).ids, skip_special_tokens=False) == text


# ---- framing ---------------------------------------------------------------------------------------------

FEW = Framing("Q: {question}\nA:", examples=(("1+1=", "2"),))
LETTERS = sorted({*"abcdefghijklmnopqrstuvwxyz<>/ \n0123456789?:+=QAB."})


def seen(renderer: Renderer, tokens) -> str:
    return renderer.tokenizer.decode(tokens, special=True)


def test_a_question_is_framed_and_a_methods_own_text_is_not(tmp_path: Path) -> None:
    tokenizer = read(tiny_directory(tmp_path / "m", LETTERS, template=LINES))
    renderer = Renderer(tokenizer, replace(FEW, system="be brief"))
    asked = [Message("user", "2+2=")]
    start = "<system>be brief<end>\n"
    framed = f"{start}<user>Q: 1+1=\nA:<end>\n<assistant>2<end>\n<user>Q: 2+2=\nA:<end>\n<assistant>"
    assert seen(renderer, renderer.prompt(asked, 1)) == framed
    assert seen(renderer, renderer.prompt(asked)) == f"{start}<user>2+2=<end>\n<assistant>"
    more, rewrote = renderer.extend([*asked, Message("assistant", "5")], [Message("user", "no")], asks=1)
    assert not rewrote
    whole = [*renderer.prompt(asked, 1), *tokenizer.encode("5"), tokenizer.stops[0], *more]
    assert seen(renderer, whole) == f"{framed}5<end>\n<user>no<end>\n<assistant>"


def test_examples_without_a_template_are_text(tmp_path: Path) -> None:
    renderer = Renderer(read(tiny_directory(tmp_path / "m", LETTERS, template=None)), FEW)
    said = [Message("user", "2+2=")]
    assert seen(renderer, renderer.prompt(said, 1)).endswith("Q: 1+1=\nA: 2\n\nQ: 2+2=\nA:")


def test_a_system_message_takes_the_place_of_the_tasks() -> None:
    framing = Framing(system="ours")
    said = framing.framed([Message("system", "theirs"), Message("user", "a")], 2, False)
    assert [(m.role, m.content) for m in said] == [("system", "ours"), ("user", "a")]


def test_thinking_is_switched_where_the_template_knows_it(tmp_path: Path) -> None:
    shut = (
        "{{ '<assistant>' }}{% if not enable_thinking | default(true) %}{{ '<think>no</think>' }}{% endif %}"
    )
    switch = LINES.replace("{{ '<assistant>' }}", shut)
    assert switch != LINES
    tokenizer = read(tiny_directory(tmp_path / "m", LETTERS, template=switch))
    on, off = (Renderer(tokenizer, Framing(thinking=t)) for t in (None, False))
    asked = [Message("user", "a")]
    assert not seen(on, on.prompt(asked)).endswith("<think>no</think>")
    assert seen(off, off.prompt(asked)).endswith("<think>no</think>")


def test_a_prompt_must_hold_the_question() -> None:
    with pytest.raises(UserError, match=r"must hold .question."):
        Framing("no place for it")
