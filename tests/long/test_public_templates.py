"""Chat templates of published models, as TRL ships them (72 in 1.16), against transformers. TRL's own environment, which
`bench/peers.py` makes, or an installed TRL; run with `make long`."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from etude.errors import UserError
from etude.models.tiny import tiny_directory
from etude.text.tokenizer import read
from etude.types import Message

TALKS = (
    [("user", "What is <b> \N{LATIN SMALL LETTER E WITH ACUTE}?")],
    [("user", "a"), ("assistant", "b"), ("user", "c")],
    [("user", "a"), ("assistant", "b")],
    [("system", "Be brief."), ("user", "a")],
)
IMAGES = ("idefics", "smolvlm", "llava")  # leave text out that is no list of typed parts
DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d [A-Z][a-z][a-z] \d{4}")  # ours is fixed


def templates() -> list[Path]:
    spec = importlib.util.find_spec("trl")
    places = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    if not places:
        from peers import peer_python

        places = list(Path(peer_python("trl")).parents[1].glob("lib/*/site-packages/trl"))
    return sorted(file for place in places for file in place.glob("chat_templates/*.jinja"))


@pytest.mark.long
def test_templates_of_published_models_are_rendered_as_transformers_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    found = templates()
    assert len(found) > 60
    directory = tiny_directory(tmp_path / "m")
    settings: dict[str, Any] = json.loads((directory / "tokenizer_config.json").read_text())
    different = []
    for file in found:
        settings["chat_template"] = file.read_text(encoding="utf-8")
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        theirs, ours = AutoTokenizer.from_pretrained(directory), read(directory)
        for talk in TALKS:
            typed = file.name.startswith(IMAGES)
            given = [
                {"role": role, "content": [{"type": "text", "text": text}] if typed else text}
                for role, text in talk
            ]
            for generate in (True, False):
                try:
                    wanted = theirs.apply_chat_template(given, tokenize=False, add_generation_prompt=generate)
                except (
                    Exception
                ):  # a template that refuses: ours merges a system message, or refuses in a sentence
                    wanted = None
                try:
                    got = ours.render([Message(role, text) for role, text in talk], generate)
                except UserError:
                    got = None
                same = wanted is None or (got is not None and DATE.sub("", got) == DATE.sub("", wanted))
                if not same:
                    different.append((file.name, talk, generate))
    assert not different
