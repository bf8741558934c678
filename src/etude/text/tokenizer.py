"""A tokenizer as `tokenizers` reads it from disk, with the chat template and the stop tokens that go with it.
Nothing here imports transformers, unless a directory holds no `tokenizer.json`."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from etude.errors import UserError
from etude.types import Array, Message

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


@dataclass(frozen=True)
class Tokenizer:
    backend: Backend
    config: Mapping[str, Any]  # tokenizer_config.json
    template: str | None  # Jinja source
    stops: tuple[int, ...]  # tokens that end a reply; the first is the one that is written
    files: Mapping[str, bytes]  # what `save` writes back

    def encode(self, text: str, special: bool = False) -> Array:
        """int32[n]; `special` adds what the tokenizer puts around a whole text (BOS)."""
        return np.array(self.backend.encode(text, add_special_tokens=special).ids, np.int32)

    def decode(self, tokens: Sequence[int] | Array, special: bool = False) -> str:
        """The text of tokens; numbers outside the vocabulary are left out. Never raises."""
        known = self._size
        ids = [int(t) for t in tokens if 0 <= int(t) < known]
        try:
            return self.backend.decode(ids, skip_special_tokens=not special)
        except Exception:
            return ""

    @cached_property
    def _size(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def _compiled(self) -> Any:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        def now(form: str) -> str:
            return "2026-01-01"  # a date that moved would change prompts from day to day

        place = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        place.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
        place.globals.update(raise_exception=refuse, strftime_now=now)
        return place.from_string(self.template or "")

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """The text of a conversation under the chat template. Raises `UserError` when the template refuses it."""
        specials = {
            k: _text(self.config.get(k)) for k in ("bos_token", "eos_token", "pad_token", "unk_token")
        }
        given = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return str(self._compiled.render(messages=given, add_generation_prompt=generate, **specials))
        except Exception as error:
            roles = ", ".join(m.role for m in messages)
            raise UserError(f"the chat template refuses a conversation of roles {roles}: {error}") from error

    def save(self, directory: Path) -> None:
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def read(directory: Path) -> Tokenizer:
    """Reads the tokenizer of a model directory. Raises `UserError` when there is none."""
    path = directory / "tokenizer.json"
    if not path.exists():
        return _through_transformers(directory)
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:
        raise UserError(f"{path} is not a tokenizer: {error}") from error
    config = _json(directory / "tokenizer_config.json")
    files = {name: (directory / name).read_bytes() for name in FILES if (directory / name).exists()}
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    if (directory / "chat_template.jinja").exists():
        template = (directory / "chat_template.jinja").read_text()
    return Tokenizer(backend, config, template, _stops(directory, config, backend), files)


def _stops(directory: Path, config: Mapping[str, Any], backend: Backend) -> tuple[int, ...]:
    """End-of-turn tokens: the tokenizer's own EOS first, then those of the generation and model settings."""
    out: list[int] = []
    own = _text(config.get("eos_token"))
    number = backend.token_to_id(own) if own else None
    if number is not None:
        out.append(number)
    for name in ("generation_config.json", "config.json"):
        found = _json(directory / name).get("eos_token_id")
        out += found if isinstance(found, list) else [found] if found is not None else []
    return tuple(dict.fromkeys(out))


def _through_transformers(directory: Path) -> Tokenizer:
    """Older formats (sentencepiece), converted by transformers to a `tokenizer.json` in a temporary directory."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as place:
        warnings.simplefilter("ignore")
        try:
            from transformers import AutoTokenizer

            AutoTokenizer.from_pretrained(directory).save_pretrained(place)
        except Exception as error:
            raise UserError(f"{directory} holds no tokenizer that can be read: {error}") from error
        if not (Path(place) / "tokenizer.json").exists():
            raise UserError(f"{directory} holds a tokenizer without a fast (tokenizer.json) form")
        for name in ("generation_config.json", "config.json"):
            if (directory / name).exists():
                (Path(place) / name).write_bytes((directory / name).read_bytes())
        return read(Path(place))


def _text(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
