"""A chat model behind an OpenAI-compatible address."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import UserError
from etude.types import Message


@dataclass(frozen=True)
class ChatAddress:
    """`http://HOST/v1#MODEL`. `key`: the environment variable that holds the API key, where one is needed. Raises UserError."""

    text: str
    key: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        if not self.text.startswith(("http://", "https://")) or not self.model:
            raise UserError(
                f"the address of a remote model is '{self.text}'; it must read http://HOST/v1#MODEL"
            )

    @property
    def url(self) -> str:
        return self.text.partition("#")[0].rstrip("/") + "/chat/completions"

    @property
    def model(self) -> str:
        return self.text.partition("#")[2]

    def ask(self, messages: Sequence[Message], seconds: float, **settings: Any) -> tuple[str, int]:
        """The reply's text, and the tokens that were charged for it (0 where the server does not say). Blocks for at most
        `seconds`. Raises OSError (urllib's HTTPError is one), or ValueError, LookupError, TypeError for an odd answer."""
        said = [{"role": m.role, "content": m.content} for m in messages]
        headers = {"Content-Type": "application/json"}
        if secret := os.environ.get(self.key):
            headers["Authorization"] = f"Bearer {secret}"
        body = json.dumps({"model": self.model, "messages": said, **settings}).encode()
        request = urllib.request.Request(self.url, body, headers)
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            found = json.load(answer)
        text = found["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise ValueError("the answer holds no text")
        return text, int((found.get("usage") or {}).get("total_tokens", 0))
