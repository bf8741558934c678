"""One vLLM server, as etude speaks with it: token ids over HTTP, and the calls that change its weights.

The routes and answers are those of vLLM 0.32; nothing else in etude knows them. Every call has a deadline, every answer's
status is read, and whatever goes wrong names the server.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.errors import UserError
from etude.types import SamplingParams

# Plain sampling, whatever the model's generation_config.json suggests to the server.
NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}
CONNECT = 10.0  # seconds for a connection


class Lost(Exception):
    """A server gave no answer, or one that cannot be used. Another one may be asked."""


@dataclass(frozen=True)
class Reply:
    """What a server sampled."""

    tokens: list[int]
    logp: list[float]
    stop: str  # "end" | "length"
    versions: tuple[str, ...]  # labels of the weights that sampled it


@dataclass
class Server:
    """`deadline`: seconds for one call. `key`: sent as a bearer token. `connections`: requests under way at once."""

    address: str
    deadline: float = 600.0
    key: str | None = None
    connections: int = 128
    _clients: dict[asyncio.AbstractEventLoop, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.address = self.address.rstrip("/")
        if not self.address.startswith(("http://", "https://")):
            raise UserError(f"an engine's address looks like http://127.0.0.1:8000; got '{self.address}'")

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        why: str = "",
        within: float | None = None,
    ) -> Any:
        """The JSON of an answer. `why`: what is waited for, in words. Raises `Lost`, and `UserError` for a request that
        the server refuses (4xx): asking again would not help."""
        client = self._client()
        from aiohttp import ClientError, ClientTimeout

        seconds = within or self.deadline
        timeout = ClientTimeout(total=None, sock_connect=min(seconds, CONNECT), sock_read=seconds)
        try:
            async with client.request(
                method, self.address + path, json=body, params=params, timeout=timeout
            ) as answer:
                status, content = answer.status, await answer.read()
        except TimeoutError as error:
            raise Lost(f"{self.address} did not {why or path} within {seconds:g} s") from error
        except ClientError as error:
            raise Lost(
                f"{self.address}: {str(error) or type(error).__name__} (asked to {why or path})"
            ) from error
        if status >= 400:
            text = " ".join(content.decode(errors="replace").split())[:300]
            sentence = f"{self.address} answered {status} when asked to {why or path}: {text}"
            raise (Lost if status >= 500 else UserError)(sentence)
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise Lost(f"{self.address} did not answer in JSON when asked to {why or path}") from error

    def _client(self) -> Any:
        """A client belongs to the event loop in which it is used."""
        try:
            from aiohttp import ClientSession, TCPConnector
        except ImportError as error:
            raise UserError("engines need aiohttp; run: pip install 'etude[remote]'") from error
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            self._clients[loop] = ClientSession(
                connector=TCPConnector(limit=self.connections), headers=headers
            )
        return self._clients[loop]

    async def close(self) -> None:
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    # ---- what a server says of itself ----------------------------------------------------------------

    async def healthy(self, within: float = 5.0) -> bool:
        try:
            await self.call("GET", "/health", why="say that it is well", within=within)
        except (Lost, UserError):
            return False
        return True

    async def version(self) -> str:
        return str((await self.call("GET", "/version", why="tell its version"))["version"])

    async def longest(self) -> int:
        """Tokens of the longest sequence that it serves."""
        found = await self.call("GET", "/v1/models", why="name its model")
        return int(found["data"][0]["max_model_len"])

    async def holds(self) -> str:
        """The label of the weights that it samples with."""
        found = await self.call("GET", "/weight_info", why="name its weights")
        return str(found["weight_version"])

    # ---- sampling ------------------------------------------------------------------------------------

    async def sample(
        self, prompt: Sequence[int], params: SamplingParams, seed: int, limit: int, stops: Sequence[int]
    ) -> Reply:
        """Continues `prompt` by at most `limit` tokens, or until one of `stops`, which is kept."""
        wanted: dict[str, Any] = {
            "temperature": 0.0 if params.greedy else params.temperature,
            "top_k": 0 if params.greedy else params.top_k,
            "top_p": 1.0 if params.greedy else params.top_p,
            "max_tokens": limit,
            "seed": seed,
            "logprobs": 0,
            "detokenize": False,
            "ignore_eos": True,  # the model's own, which may not be among `stops`
            "stop_token_ids": list(stops),
            **NEUTRAL,
        }
        body = {"token_ids": [int(t) for t in prompt], "sampling_params": wanted}
        found = await self.call("POST", "/inference/v1/generate", body, why="sample a reply")
        return self._reply(found)

    def _reply(self, found: Any) -> Reply:
        try:
            choice = found["choices"][0]
            tokens = [int(t) for t in choice["token_ids"]]
            logp = [float(entry["logprob"]) for entry in choice["logprobs"]["content"]]
            versions = tuple(str(span["version"]) for span in choice.get("weight_versions") or ())
            stop = {"stop": "end", "length": "length"}[choice["finish_reason"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Lost(f"{self.address} gave a reply without its tokens, log-probabilities or end") from error
        if not tokens or len(tokens) != len(logp):
            raise Lost(f"{self.address} gave {len(tokens)} tokens with {len(logp)} log-probabilities")
        if not all(math.isfinite(x) and -9000 < x < 1e-3 for x in logp):
            raise Lost(f"{self.address} gave a log-probability that is none: {min(logp)}")
        return Reply(tokens, logp, stop, versions)

    async def score(self, tokens: Sequence[int]) -> list[float]:
        """Log-probabilities of all tokens but the first, of the model's own softmax."""
        wanted = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False, **NEUTRAL}
        body = {"token_ids": [int(t) for t in tokens], "sampling_params": wanted}
        found = await self.call("POST", "/inference/v1/generate", body, why="score a text")
        try:
            rows = found["prompt_logprobs"][1:]
            return [float(row[str(t)]["logprob"]) for row, t in zip(rows, tokens[1:], strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise Lost(f"{self.address} did not give the log-probabilities of a prompt") from error

    # ---- new weights ---------------------------------------------------------------------------------

    async def load(self, directory: str, label: str) -> None:
        """Takes the weights in `directory` and calls them `label`. What it computed of earlier prompts is forgotten: vLLM
        keeps it on purpose."""
        why = f"load the weights {label}"
        await self.call("POST", "/pause", params={"mode": "wait"}, why="finish what it samples")
        try:
            body = {"method": "reload_weights", "kwargs": {"weights_path": directory}}
            await self.call("POST", "/collective_rpc", body, why=f"{why} from {directory}")
            await self.call("POST", "/update_weight_version", {"new_version": label}, why=why)
            forgotten = await self.call("POST", "/reset_prefix_cache", why="forget its prompts")
            if not forgotten["success"]:
                raise Lost(f"{self.address} did not forget what the old weights made of its prompts")
        finally:
            await self.call("POST", "/resume", why="go on")
        if (held := await self.holds()) != label:
            raise Lost(f"{self.address} holds the weights '{held}' after it was given '{label}'")
