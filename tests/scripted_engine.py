"""A server that speaks vLLM's routes and computes with etude's own sampler, so that what went over HTTP can be compared
with what did not, bit for bit. Its faults are attributes."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from etude.batch import pack
from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.types import Episode, SamplingParams, Signal, Span, Task


class Refusal(Exception):
    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Engine:
    model: str
    precision: str = "fp32"
    version: str = "0.32.0"
    longest: int = 4096
    key: str | None = None
    # faults
    raw: bool = False  # log-probabilities of the model, not of what is sampled
    deaf: bool = False  # pays no attention to seeds
    private: bool = True  # routes that change weights are there
    tokens: bool = True  # token ids are taken
    stale: bool = False  # acknowledges new weights and keeps the old ones
    garbled: bool = False  # loads the weights wrong
    keeps: bool = False  # does not forget its prompts
    mislabels: bool = False  # samples say another version
    failing: int = 0  # requests that will be answered with 500
    dropping: int = 0  # requests whose connection will be cut
    slow: float = 0.0  # seconds before an answer
    jitter: float = 0.0  # at most so many seconds before a sample, other ones every time
    calls: list[str] = field(default_factory=list)
    sampled: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # label and request
    label: str = "default"
    paused: bool = False

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.load(self.model)

    def load(self, place: str) -> None:
        self.policy = Policy.load(place, self.precision, device="cpu")
        if self.garbled:
            for _, p in self.policy.parameters():
                p.data.mul_(1.5)
            self.policy.publish()
        self.sampler = sampler_for(self.policy)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        self.calls.append(path)
        if self.slow:
            time.sleep(self.slow)
        routes = {
            ("GET", "/health"): lambda: None,
            ("GET", "/version"): lambda: {"version": self.version},
            ("GET", "/v1/models"): lambda: {"data": [{"id": "etude", "max_model_len": self.longest}]},
        }
        if self.tokens:
            routes["POST", "/inference/v1/generate"] = lambda: self.generate(body)
        if self.private:
            routes |= {
                ("GET", "/weight_info"): lambda: {"weight_version": self.label},
                ("POST", "/pause"): lambda: self.pause(query["mode"] == "wait"),
                ("POST", "/resume"): lambda: self.pause(False),
                ("POST", "/collective_rpc"): lambda: self.rpc(body),
                ("POST", "/update_weight_version"): lambda: self.name(body["new_version"]),
                ("POST", "/reset_prefix_cache"): lambda: {"success": not self.keeps},
            }
        if (method, path) not in routes:
            raise Refusal(404, "Not Found")
        return routes[method, path]()

    def pause(self, now: bool) -> dict[str, str]:
        self.paused = now
        return {"status": "paused" if now else "resumed"}

    def rpc(self, body: Any) -> dict[str, Any]:
        assert body["method"] == "reload_weights"
        assert self.paused
        place = body["kwargs"]["weights_path"]
        if not (Path(place) / "model.safetensors").exists():
            raise Refusal(500, f"Cannot find any model weights with {place}")
        if not self.stale:
            self.load(place)
        return {"results": [None]}

    def name(self, label: str) -> dict[str, bool]:
        self.label = label
        return {"success": True}

    def generate(self, body: Any) -> Any:
        wanted, prompt = body["sampling_params"], np.array(body["token_ids"], np.int32)
        time.sleep(random.random() * self.jitter)
        if prompt.max() >= self.policy.config["vocab_size"]:
            raise Refusal(400, f"Token id {prompt.max()} is out of vocabulary")
        if self.failing > 0:
            self.failing -= 1
            raise Refusal(500, "EngineDeadError")
        scores = None
        if "prompt_logprobs" in wanted:
            found = self.score(prompt, SamplingParams())
            scores = [
                None,
                *({str(t): {"logprob": float(x)}} for t, x in zip(prompt[1:], found[1:], strict=True)),
            ]
        greedy = wanted["temperature"] == 0
        cuts = {} if greedy else {"top_k": wanted["top_k"], "top_p": wanted["top_p"]}
        heat = 1.0 if greedy else wanted["temperature"]
        params = SamplingParams(heat, **cuts, greedy=greedy, max_tokens=wanted["max_tokens"])
        seed = time.monotonic_ns() if self.deaf else wanted.get("seed", 0)
        work = self.sampler.sample(prompt, params, seed)
        sample = asyncio.run_coroutine_threadsafe(work, self.loop).result(60)
        self.sampled.append((self.label, body))
        logp = sample.logp
        if self.raw and not greedy:
            logp = self.score(np.concatenate([prompt, sample.tokens]), SamplingParams())[len(prompt) :]
        span = {"version": "old" if self.mislabels else self.label, "start": 0, "end": len(sample.tokens)}
        choice = {
            "token_ids": sample.tokens.tolist(),
            "logprobs": {"content": [{"logprob": float(x)} for x in logp]},
            "finish_reason": "stop" if sample.stop == "end" else "length",
            "weight_versions": [span],
        }
        return {"choices": [choice], "prompt_logprobs": scores}

    def score(self, tokens: np.ndarray, params: SamplingParams) -> np.ndarray:
        span = Span("assistant", tokens, True, np.zeros(len(tokens), np.float32))
        episode = Episode(Task("scored", lambda answer: None), (span,))  # type: ignore[arg-type, return-value]
        batch = pack([Signal(episode, np.zeros(len(tokens), np.float32))], params)
        return self.policy.score(batch).logp.numpy()


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = (
            True  # head and body are two writes; the second must not wait 40 ms for the first
        )

        def _do(self, method: str) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            url = urlsplit(self.path)
            status, out = 200, b""
            if engine.dropping > 0 and "generate" in url.path:
                engine.dropping -= 1
                self.close_connection = True
                return
            if engine.key and self.headers.get("Authorization") != f"Bearer {engine.key}":
                status, out = 401, b'{"error": "Unauthorized"}'
            else:
                try:
                    query = {k: v[0] for k, v in parse_qs(url.query).items()}
                    found = engine.answer(method, url.path, query, body)
                    out = b"" if found is None else json.dumps(found).encode()
                except Refusal as refusal:
                    status, out = refusal.status, json.dumps({"error": str(refusal)}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def do_GET(self) -> None:
            self._do("GET")

        def do_POST(self) -> None:
            self._do("POST")

        def log_message(self, *_: Any) -> None: ...

    return Handler


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # of 5, a sixth connection at once is asked for again a second later


@contextmanager
def served(*engines: Engine) -> Iterator[list[str]]:
    """The addresses of engines while they are up."""
    servers = [Listener(("127.0.0.1", 0), handler(engine)) for engine in engines]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
