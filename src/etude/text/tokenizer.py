"""A tokenizer as `tokenizers` reads it from disk, with the chat template and the stop tokens that go with it.
Nothing here imports transformers, unless a directory holds no `tokenizer.json`."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from etude.errors import UserError
from etude.files import read_json, read_text
from etude.text.jinja import compiled
from etude.types import Array, Message

MARK = "\u241fsystem\u241f"
TAG = re.compile(
    r"</?(?!user|assistant|system|model|tool)[a-zA-Z]+>"
)  # <answer>, </think>; not <end_of_turn>, <|im_start|>
STANDARD = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
ROLES = ("user", "assistant", "system", "tool")

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
        try:
            return np.array(self.backend.encode(text, add_special_tokens=special).ids, np.int32)
        except TypeError:  # from what the terminal or a file held instead of UTF-8
            raise UserError(f"no tokenizer reads {text[:60]!r}: it holds half a character") from None

    def decode(self, tokens: Sequence[int] | Array, special: bool = False) -> str:
        """The text of tokens, without those that structure a conversation (`structural`) unless `special`; numbers
        outside the vocabulary are left out. Never raises."""
        known, left_out = self._size, frozenset() if special else self.structural
        ids = [int(t) for t in tokens if 0 <= int(t) < known and int(t) not in left_out]
        try:
            return self.backend.decode(ids, skip_special_tokens=False)
        except Exception:
            return ""

    @cached_property
    def _size(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def structural(self) -> frozenset[int]:
        """Special tokens that are no part of what was said: ends, beginnings, padding, and those that the chat template
        writes around turns. Tags that somebody added as special tokens, <answer> or <think>, are part of it."""
        special = {n: t.content for n, t in self.backend.get_added_tokens_decoder().items() if t.special}
        ends = {self.specials.get(f"{name}_token") for name in STANDARD}
        named = {n for n, text in special.items() if text in ends}
        around: set[int] = set()
        if self.template is not None:
            for said in ([Message("system", "a")], []):
                turns = [*said, Message("user", "a"), Message("assistant", "a"), Message("user", "a")]
                with suppress(UserError):
                    around |= set(self.encode(self.render(turns, generate=True)).tolist())
        around = {n for n in around & special.keys() if not TAG.fullmatch(special[n])}
        roles = {n for n, text in special.items() if text.strip("</>|") in ROLES}
        return frozenset(named | around | roles | set(self.stops))

    @cached_property
    def specials(self) -> dict[str, str]:
        """Special tokens by what they are for, where there is one."""
        found = {k: _text(v) for k, v in self.config.items() if k.endswith("_token") and _is_token(v)}
        return {k: v for k, v in found.items() if v}

    @cached_property
    def _compiled(self) -> Any:
        return compiled(self.template or "")

    @cached_property
    def _merges(self) -> bool:
        """Whether the template refuses or drops a system message: its text then opens the first user message."""
        try:
            return MARK not in self._rendered([Message("system", MARK), Message("user", "a")], True)
        except Exception:
            return True

    def render(
        self,
        messages: Sequence[Message],
        generate: bool,
        thinking: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The text of a conversation under the chat template. `thinking`: on or off where the template knows both; None
        leaves it at the template's default. `tools`: functions as OpenAI's interface describes them, where
        `knows_tools`. Raises `UserError` when the template refuses the conversation."""
        try:
            if messages and messages[0].role == "system" and self._merges:
                messages = merged(messages)
            return self._rendered(messages, generate, thinking, tools)
        except Exception as error:
            roles = ", ".join(m.role for m in messages)
            raise UserError(f"the chat template refuses a conversation of roles {roles}: {error}") from error

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the chat template tells of tools, and takes their results as messages of the role `tool`."""
        if self.template is None or "tools" not in self.template:
            return False
        tool = {"name": MARK, "description": "a", "parameters": {"type": "object", "properties": {}}}
        asked, result = [Message("user", "a")], [Message("assistant", "a"), Message("tool", MARK)]
        try:
            told = self._rendered(asked, True, tools=[{"type": "function", "function": tool}])
            return MARK in told and MARK in self._rendered([*asked, *result], True)
        except Exception:
            return False

    def calling(
        self,
        before: Sequence[Message],
        said: str,
        calls: Sequence[tuple[str, Mapping[str, Any]]],
        tools: Sequence[Mapping[str, Any]],
        thinking: bool | None = None,
    ) -> str | None:
        """The text of a reply after `before` that says something and makes calls (name, arguments), as the chat template writes
        it; None where it does not write calls, or not these."""
        made = [{"type": "function", "function": {"name": n, "arguments": dict(a)}} for n, a in calls]
        try:
            start = self._rendered(before, True, thinking, tools)
            plain = self._rendered([*before, Message("assistant", MARK)], False, thinking, tools)
            whole = self._told(before, self._typed, False, thinking, tools, (said, made))
        except Exception:
            return None
        end = plain.rpartition(MARK)[2]
        fits = whole.startswith(start) and whole.endswith(end)
        return whole[len(start) : len(whole) - len(end)] if fits else None

    def _rendered(
        self,
        messages: Sequence[Message],
        generate: bool,
        thinking: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Documents are left at the template's own default."""
        return self._told(messages, self._typed, generate, thinking, tools)

    @cached_property
    def _typed(self) -> bool:
        """Whether the template writes what is said only as a list of typed parts, as those of models that see images do;
        plain text would be left out without a word."""
        asked = [Message("user", MARK)]
        try:
            return MARK not in self._told(asked, False, True) and MARK in self._told(asked, True, True)
        except Exception:
            return False

    def _told(
        self,
        messages: Sequence[Message],
        typed: bool,
        generate: bool,
        thinking: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        calling: tuple[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> str:
        given: list[dict[str, Any]] = [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if typed else m.content}
            for m in messages
        ]
        if calling is not None:
            given.append({"role": "assistant", "content": calling[0], "tool_calls": list(calling[1])})
        names: dict[str, Any] = {"tools": tools, "documents": None, **self.specials}
        if thinking is not None:
            names["enable_thinking"] = thinking
        return str(self._compiled.render(messages=given, add_generation_prompt=generate, **names))

    def save(self, directory: Path) -> None:
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def merged(messages: Sequence[Message]) -> list[Message]:
    """A conversation without its system message, whose text opens the first user message."""
    system, *rest = messages
    if rest and rest[0].role == "user":
        return [Message("user", f"{system.content}\n\n{rest[0].content}"), *rest[1:]]
    return [Message("user", system.content), *rest]


def read(directory: Path, settings: Path | None = None) -> Tokenizer:
    """Reads the tokenizer of a model directory; its stop tokens from the `settings` of another where it has none of its
    own (an adapter's). Raises `UserError` when there is none."""
    path = directory / "tokenizer.json"
    if not path.exists():
        return _through_transformers(directory, settings or directory)
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:
        raise UserError(f"{path} is not a tokenizer: {error}") from error
    named = {k: v for k, v in _json(directory / "special_tokens_map.json").items() if _is_token(v)}
    config = {**named, **_json(directory / "tokenizer_config.json")}
    files = {name: (directory / name).read_bytes() for name in FILES if (directory / name).is_file()}
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    if (directory / "chat_template.jinja").is_file():
        template = read_text(directory / "chat_template.jinja")
    return Tokenizer(backend, config, template, _stops(settings or directory, config, backend), files)


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


def _through_transformers(directory: Path, settings: Path) -> Tokenizer:
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
            if (settings / name).exists():
                (Path(place) / name).write_bytes((settings / name).read_bytes())
        return read(Path(place))


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


def _text(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object")
    return found
