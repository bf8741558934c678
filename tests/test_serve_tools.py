"""Tools in OpenAI's form: its own client offers them, is given calls, and brings what they gave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from etude.models.policy import Policy
from etude.models.tiny import TEMPLATE, tiny_directory
from etude.sampling.protocol import Sample
from etude.serve.replies import Speaker
from etude.serve.service import Service
from test_serve import started
from test_worlds_tools import CALLING

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tells {name}.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "time")
]
ASKED: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Oslo?"}],
    "max_tokens": 500,
}
CALL = '<tool_call>{"name": "%s", "arguments": {"city": "Oslo"}}</tool_call>'


class Told:
    """A sampler that says `reply`, whatever it is asked."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.reply, self.asked = policy, "", ""

    async def sample(self, prompt: Any, params: Any, key: int, watch: Any = None) -> Sample:
        self.asked = self.policy.tokenizer.decode(prompt, special=True)
        tokens, stop = self.policy.tokenizer.encode(self.reply).tolist(), "end"
        tokens.append(self.policy.tokenizer.stops[0])
        for i, token in enumerate(tokens):
            if watch is not None and watch(token, -0.5):
                tokens, stop = tokens[: i + 1], "cut"
                break
        return Sample(np.array(tokens, np.int32), np.full(len(tokens), -0.5, np.float32), stop, 0)

    async def close(self) -> None: ...


def speaker(place: Path, template: str) -> tuple[Speaker, Told]:
    letters = "".join(map(chr, range(32, 127))) + "\n"
    made = Speaker(Policy.load(str(tiny_directory(place, letters, template=template))))
    told = Told(made.policy)
    made.sampler = told  # type: ignore[assignment]
    return made, told


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Told]]:
    made, told = speaker(tmp_path_factory.mktemp("native"), CALLING)
    with started(Service(made, "tiny")) as address:
        yield openai.OpenAI(base_url=address, api_key="none", max_retries=0), told


def test_a_client_is_given_calls_and_brings_their_results(native: tuple[Any, Told]) -> None:
    client, told = native
    told.reply = f"I look it up.\n{CALL % 'weather'}\n{CALL % 'time'}"
    got = client.chat.completions.create(**ASKED, tools=TOOLS).choices[0]
    assert got.finish_reason == "tool_calls"
    assert got.message.content == "I look it up."
    assert [c.function.name for c in got.message.tool_calls] == ["weather", "time"]
    assert json.loads(got.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    assert '"name": "weather"' in told.asked, "the chat template tells of them"
    told.reply = "Rain."
    first, second = got.message.tool_calls
    results = [
        {"role": "tool", "tool_call_id": c.id, "content": said}
        for c, said in ((second, "noon"), (first, "rain"))
    ]
    again = {**ASKED, "messages": [*ASKED["messages"], got.message.model_dump(exclude_none=True), *results]}
    after = client.chat.completions.create(**again, tools=TOOLS).choices[0]
    assert (after.message.content, after.finish_reason, after.message.tool_calls) == ("Rain.", "stop", None)
    said = told.asked[told.asked.index("<user>Oslo?") :]
    assert said == (
        f"<user>Oslo?<end><assistant>I look it up.{CALL % 'weather'}{CALL % 'time'}<end>"
        "<user>[rain]<end><user>[noon]<end><assistant>"
    ), "as the template writes calls, and results in the order of the calls"


def test_a_stream_gives_the_same_calls(native: tuple[Any, Told]) -> None:
    client, told = native
    told.reply = f"So. {CALL % 'time'}"
    chunks = list(client.chat.completions.create(**ASKED, tools=TOOLS, stream=True, logprobs=True))
    deltas = [c.choices[0] for c in chunks if c.choices]
    assert "".join(d.delta.content or "" for d in deltas) == "So."
    (call,) = [c for d in deltas for c in d.delta.tool_calls or []]
    assert (call.index, call.function.name, json.loads(call.function.arguments)) == (
        0,
        "time",
        {"city": "Oslo"},
    )
    assert deltas[-1].finish_reason == "tool_calls"
    tokens = sum(len(d.logprobs.content) for d in deltas if d.logprobs)
    assert tokens == len(told.policy.tokenizer.encode(told.reply)) + 1


def test_at_most_one_call_and_none_where_that_is_asked(native: tuple[Any, Told]) -> None:
    client, told = native
    told.reply = f"{CALL % 'weather'}{CALL % 'time'}"
    got = client.chat.completions.create(**ASKED, tools=TOOLS, parallel_tool_calls=False).choices[0]
    assert [c.function.name for c in got.message.tool_calls] == ["weather"]
    assert got.message.content is None
    none = client.chat.completions.create(**ASKED, tools=TOOLS, tool_choice="none").choices[0]
    assert "weather" not in told.asked
    assert none.message.tool_calls is None
    assert none.message.content == told.reply


def test_what_is_no_call_stays_text(native: tuple[Any, Told]) -> None:
    client, told = native
    told.reply = '<tool_call>{"name": </tool_call>'
    got = client.chat.completions.create(**ASKED, tools=TOOLS).choices[0]
    assert (got.message.content, got.finish_reason, got.message.tool_calls) == (told.reply, "stop", None)


def test_a_model_whose_template_knows_no_tools_is_told_in_words(tmp_path: Path) -> None:
    made, told = speaker(tmp_path / "m", TEMPLATE)
    with started(Service(made, "tiny")) as address:
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        told.reply = "See: <weather>Oslo</weather> and much more"
        got = client.chat.completions.create(**ASKED, tools=TOOLS, stop=["much"]).choices[0]
        assert "<weather>city</weather>: Tells weather." in told.asked
        assert (got.message.content, got.finish_reason) == ("See:", "tool_calls")
        assert json.loads(got.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
        told.reply = "<weather>Oslo much more"
        cut = client.chat.completions.create(**ASKED, tools=TOOLS, stop=["much"]).choices[0]
        assert (cut.message.content, cut.message.tool_calls) == ("<weather>Oslo ", None), "no end is forged"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tools": [TOOLS[0], TOOLS[0]]}, "two of 'tools' have one name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "needs a name of letters"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "strict": True}}]},
            "'strict' is not served",
        ),
        ({"tool_choice": {"type": "function", "function": {"name": "time"}}}, "must be auto or none"),
    ],
)
def test_what_cannot_be_promised_is_refused(native: tuple[Any, Told], change: Any, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        native[0].chat.completions.create(**{**ASKED, "tools": TOOLS, **change})
