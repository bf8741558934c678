"""A model behind OpenAI's interface: what its own client gets, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from etude import seeds
from etude.errors import UserError
from etude.models.policy import Policy
from etude.models.tiny import SPECIAL, tiny
from etude.sampling.engine import sampler_for
from etude.serve.replies import Speaker
from etude.serve.server import bound
from etude.serve.service import Service, make_app
from etude.types import Message, SamplingParams

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny(seed=3)


@contextmanager
def started(service: Service) -> Iterator[str]:
    place = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    yield f"http://127.0.0.1:{place.getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(policy: Policy) -> Iterator[str]:
    with started(Service(Speaker(policy), "tiny", longest=24)) as place:
        yield place


@pytest.fixture
def client(address: str) -> Any:
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0)


def sampled(policy: Policy, params: SamplingParams, key: int, messages: list[Message]) -> Any:
    sampler = sampler_for(policy)
    return asyncio.run(sampler.sample(policy.renderer.prompt(messages), params, key))


def test_the_models_are_named(client: Any) -> None:
    assert [m.id for m in client.models.list().data] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "etude"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.models.retrieve("other")


def test_a_chat_reply_is_the_samplers_own(client: Any, policy: Policy) -> None:
    """The same tokens as the engine gives for that key, with their text, log-probabilities and number."""
    asked = {"model": "tiny", "messages": [{"role": "system", "content": "be brief"}, *HELLO]}
    got = client.chat.completions.create(**asked, seed=5, max_tokens=9, temperature=0.7, n=2, logprobs=True)
    messages = [Message("system", "be brief"), Message("user", "hello")]
    total = 0
    for choice in got.choices:
        params = SamplingParams(0.7, max_tokens=9)
        wanted = sampled(policy, params, seeds.key(5, "serve", choice.index), messages)
        assert choice.message.content == policy.renderer.decode(wanted.tokens)
        rows = choice.logprobs.content
        assert [r.logprob for r in rows] == pytest.approx(wanted.logp.tolist(), abs=1e-5)
        assert choice.finish_reason == {"end": "stop", "length": "length"}[wanted.stop]
        total += len(wanted.tokens)
    prompt = len(policy.renderer.prompt(messages))
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (prompt, total)
    assert got.choices[0].message.content != got.choices[1].message.content


def test_a_stream_says_the_same_in_pieces(client: Any) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "seed": 1, "max_tokens": 30, "n": 2}
    whole = client.chat.completions.create(**asked, logprobs=True)
    chunks = list(
        client.chat.completions.create(
            **asked, logprobs=True, stream=True, stream_options={"include_usage": True}
        )
    )
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        rows = [row.logprob for c in mine if c.logprobs for row in c.logprobs.content]
        assert rows == pytest.approx([row.logprob for row in choice.logprobs.content])
        assert len(mine) > 5
    assert chunks[-1].usage == whole.usage


def test_completions_and_their_stop_strings(client: Any, policy: Policy) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": ["abc", "hello"], "seed": 3, "max_tokens": 40}
    plain = client.completions.create(**asked, logprobs=0)
    text = plain.choices[1].text
    stop = text[5:7]
    cut = client.completions.create(**asked, stop=[stop])
    assert cut.choices[1].text == text[: text.index(stop)]
    assert cut.choices[1].finish_reason == "stop"
    assert cut.usage.completion_tokens < plain.usage.completion_tokens
    streamed = client.completions.create(**asked, stop=stop, stream=True)
    assert "".join(c.choices[0].text for c in streamed if c.choices[0].index == 1) == cut.choices[1].text
    rows = plain.choices[1].logprobs
    assert "".join(t for t in rows.tokens if t not in SPECIAL) == text
    assert [text[at : at + 1] for at in rows.text_offset[:5]] == list(text[:5])
    ids = policy.tokenizer.encode("hello", special=True).tolist()
    same = client.completions.create(**asked, echo=True)
    assert same.choices[1].text == "hello" + text
    by_ids = client.completions.create(model="tiny", prompt=[ids, ids], seed=3, max_tokens=40)
    assert by_ids.choices[1].text == text


def test_temperature_0_is_the_likeliest_token(client: Any, policy: Policy) -> None:
    got = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0, max_tokens=12)
    wanted = sampled(policy, SamplingParams(greedy=True, max_tokens=12), 0, [Message("user", "hello")])
    assert got.choices[0].message.content == policy.renderer.decode(wanted.tokens)


def test_those_who_ask_together_are_sampled_together(client: Any, policy: Policy, monkeypatch) -> None:
    widths: list[int] = []
    speaker_step = type(sampler_for(policy))._advance

    def watched(self: Any) -> None:
        widths.append(len(self.live))
        speaker_step(self)

    monkeypatch.setattr(type(sampler_for(policy)), "_advance", watched)
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 300, "logprobs": True}
    with ThreadPoolExecutor(8) as crowd:
        got = list(crowd.map(lambda i: client.chat.completions.create(**asked, seed=i), range(8)))
    assert max(widths) > 1
    again = client.chat.completions.create(**asked, seed=4)
    assert again.choices[0].message.content == got[4].choices[0].message.content


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"model": "other"}, 404, "there is no model 'other' here; it is called 'tiny'"),
    ({"model": None}, 400, "'model' is missing"),
    ({"messages": []}, 400, "'messages' must be a list of at least one message"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "tool_call_id is that of no earlier call"),
    ({"messages": [{"role": "owner", "content": "x"}]}, 400, r"messages\[0\].role must be system, user, as"),
    ({"messages": [{"role": "user", "content": 3}]}, 400, r"messages\[0\].content must be text; got 3"),
    ({"messages": [{"role": "user", "content": "a" * 5000}]}, 400, "between 1 and 4095 tokens; this one has"),
    ({"temperature": 3}, 400, "'temperature' must be between 0 and 2; got 3"),
    ({"temperature": "warm"}, 400, "'temperature' must be a number; got 'warm'"),
    ({"temperature": float("nan")}, 400, "'temperature' must be between 0 and 2; got nan"),
    ({"max_tokens": 0}, 400, "'max_tokens' must be at least 1; got 0"),
    ({"max_tokens": True}, 400, "'max_tokens' must be an integer; got True"),
    ({"n": 1000}, 400, "'n' must be between 1 and 128"),
    ({"stop": ["", "b"]}, 400, "'stop' must be text, or a list of at most 16 texts"),
    ({"tools": [{"type": "function"}]}, 400, r"tools\[0\] must be an object with the type function"),
    ({"tools": 3}, 400, "'tools' must be a list; got 3"),
    ({"tool_choice": "required"}, 400, "'tool_choice' must be auto or none"),
    ({"functions": [{"name": "f"}]}, 400, "'functions' is not served"),
    ({"presence_penalty": 0.5}, 400, "'presence_penalty' is not served"),
    ({"temprature": 1}, 400, "there is no field 'temprature'; did you mean 'temperature'?"),
    ({"stream_options": {"usage": True}}, 400, "stream_options has no 'usage'"),
]


@pytest.mark.parametrize(("change", "status", "said"), BAD)
def test_a_bad_request_is_one_sentence(address: str, change: dict[str, Any], status: int, said: str) -> None:
    body = {"model": "tiny", "messages": HELLO, **change}
    got = httpx.post(f"{address}/chat/completions", content=json.dumps(body), headers=JSON)
    assert got.status_code == status
    error = got.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert re.search(said, error["message"]), error["message"]
    assert "\n" not in error["message"]


JSON = {"content-type": "application/json"}


def test_what_asks_for_nothing_is_accepted(client: Any) -> None:
    client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        max_completion_tokens=2,
        presence_penalty=0,
        response_format={"type": "text"},
        user="me",
        extra_body={"top_k": 5, "tools": []},
    )


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        ("{", JSON, 400),
        ("[1]", JSON, 400),
        ("[" * 100_000, JSON, 400),
        ("{}", {"content-type": "text/plain"}, 415),
        ("{}", {**JSON, "origin": "http://localhost.elsewhere.com"}, 403),
        ("{}", {**JSON, "host": "elsewhere.com"}, 403),
        (" " * (17 << 20), JSON, 413),
    ],
)
def test_what_is_no_request(address: str, content: str, headers: dict[str, str], status: int) -> None:
    got = httpx.post(f"{address}/completions", content=content, headers=headers)
    assert (got.status_code, list(got.json())) == (status, ["error"])


def test_unknown_paths_and_methods(address: str) -> None:
    assert "there is no /v1/embeddings here" in httpx.post(f"{address}/embeddings").text
    got = httpx.get(f"{address}/completions")
    assert (got.status_code, got.json()["error"]["type"]) == (405, "invalid_request_error")


def until(condition: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 20
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_is_not_sampled_for(policy: Policy, stream: bool) -> None:
    service = Service(Speaker(policy), "tiny")
    sampler: Any = service.speaker.sampler
    sampler.stops = frozenset()  # a reply has no end but its limit
    body = {"model": "tiny", "prompt": ["a"] * 8, "max_tokens": 4000, "stream": stream}
    with started(service) as address:
        before = policy.meter.generated
        asked = httpx.Request("POST", f"{address}/completions", json=body)
        with socket.create_connection((asked.url.host, asked.url.port)) as line:
            head = "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items())
            line.sendall(f"POST {asked.url.path} HTTP/1.1\r\n{head}\r\n".encode() + asked.content)
            assert until(lambda: policy.meter.generated > before + 8)
        assert until(lambda: not sampler.live)
        assert policy.meter.generated < before + 8 * 4000


def test_a_deadline_and_a_key(policy: Policy) -> None:
    service = Service(Speaker(policy), "tiny", timeout=0.05, key="sesame")
    with started(service) as address:
        with pytest.raises(openai.AuthenticationError, match="--api-key"):
            openai.OpenAI(base_url=address, api_key="wrong").models.list()
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 4000, "n": 32}
        mine = openai.OpenAI(base_url=address, api_key="sesame")
        with pytest.raises(openai.APIStatusError, match=r"no whole reply within 0.05 seconds") as late:
            mine.chat.completions.create(**asked)
        assert late.value.status_code == 504
        with pytest.raises(openai.APIError, match="no whole reply"):
            list(mine.chat.completions.create(**asked, stream=True))


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="choose another"):
        bound("127.0.0.1", taken.getsockname()[1])
