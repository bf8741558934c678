"""OpenAI's requests, read strictly, and the shapes of its answers. What cannot be served is refused by name, and never
ignored: a reply that was made under other settings than those asked for is wrong without looking so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.errors import UserError, nearest
from etude.models.policy import Policy
from etude.serve import tools
from etude.serve.refused import BadRequest
from etude.serve.replies import Piece
from etude.text.chat_template import Renderer
from etude.text.tool_calls import TOOL, Call, Offer
from etude.types import Array, Message, SamplingParams

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": TOOL}
NEUTRAL: dict[str, tuple[Any, ...]] = {  # what is not served, with the values that ask for nothing
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "suffix": ("",),
    "best_of": (1,),
}
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
BOTH = {
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "seed",
    "stop",
    "stream",
    "stream_options",
}
CHAT = BOTH | {"messages", "max_completion_tokens", "logprobs", "tools", "tool_choice", "parallel_tool_calls"}
TEXT = BOTH | {"prompt", "logprobs", "echo"}
MOST = 128  # choices of one request
PLAIN = SamplingParams()
UNNAMED = 16  # tokens of a completion that names no limit, as OpenAI has it


@dataclass(frozen=True)
class Wanted:
    """A request that can be served."""

    chat: bool
    prompts: Sequence[Array]  # int32[n] each
    texts: Sequence[str]  # what precedes each reply: with `echo` the prompt
    params: SamplingParams
    n: int
    seed: int | None
    stream: bool
    usage: bool  # a last chunk of the stream says how many tokens there were
    logprobs: bool
    messages: Sequence[Message] = ()  # of a chat
    offer: Offer | None = None  # tools that the client carries out
    several: bool = True  # calls of one reply


def read(
    body: Any, chat: bool, policy: Policy, name: str, longest: int, own: SamplingParams = PLAIN
) -> Wanted:
    """`body`: the JSON of a request for a chat completion, or for a completion. `name`: the model's; `longest`: tokens of
    a chat reply where no limit is named; `own`: how the model is sampled in a chat where the request does not say, and the
    stop strings that it was trained with. Raises `BadRequest`."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    _known(body, CHAT if chat else TEXT)
    _field(body, "model", str, None)
    if body["model"] != name:
        raise BadRequest(
            f"there is no model '{body['model']}' here; it is called '{name}'",
            "model",
            404,
            "model_not_found",
        )
    messages, offer = _conversation(body, policy) if chat else ([], None)
    prompts, texts = (_chat_prompt(messages, offer, policy), [""]) if chat else _prompts(body, policy)
    for prompt in prompts:
        if not 1 <= len(prompt) < policy.context:
            raise BadRequest(
                f"a prompt has between 1 and {policy.context - 1} tokens; this one has {len(prompt)}",
                "messages" if chat else "prompt",
                code="context_length_exceeded",
            )
    logprobs = _logprobs(body, chat)
    n = _field(body, "n", int, 1, 1, MOST)
    if n * len(prompts) > MOST:
        raise BadRequest(f"at most {MOST} replies are made at once; n x prompts is {n * len(prompts)}", "n")
    options = _field(body, "stream_options", dict, {})
    if extra := options.keys() - {"include_usage", "include_obfuscation"}:
        raise BadRequest(f"stream_options has no '{min(extra)}'", "stream_options")
    return Wanted(
        chat=chat,
        prompts=prompts,
        texts=texts,
        params=_sampling(body, longest if chat else UNNAMED, own if chat else PLAIN),
        n=n,
        seed=_field(body, "seed", int, None),
        stream=_field(body, "stream", bool, False),
        usage=options.get("include_usage") is True,
        logprobs=logprobs,
        messages=tuple(messages),
        offer=offer,
        several=_field(body, "parallel_tool_calls", bool, True),
    )


def _known(body: Mapping[str, Any], served: set[str]) -> None:
    for key, value in body.items():
        if key in served or key in IGNORED or value is None:
            continue
        if key not in NEUTRAL:
            raise BadRequest(f"there is no field '{key}'{nearest(key, served)}", key)
        if value not in NEUTRAL[key]:
            raise BadRequest(f"'{key}' is not served; leave it out", key, code="unsupported_parameter")


def _field(
    body: Mapping[str, Any],
    name: str,
    kind: type,
    default: Any,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """`body[name]`, of type `kind` and within bounds; `default` where it is absent or null."""
    value = body.get(name)
    if value is None:
        if name == "model":
            raise BadRequest("'model' is missing", name)
        return default
    right = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not right or (isinstance(value, bool) and kind is not bool):
        words = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "an object"}
        raise BadRequest(f"'{name}' must be {words[kind]}; got {value!r:.60}", name)
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"between {low:g} and {high:g}" if high is not None else f"at least {low:g}"
        raise BadRequest(f"'{name}' must be {bounds}; got {value!r:.60}", name)
    return value


def _sampling(body: Mapping[str, Any], longest: int, own: SamplingParams) -> SamplingParams:
    limit = _field(body, "max_tokens", int, None, 1)
    limit = _field(body, "max_completion_tokens", int, limit, 1)
    temperature = float(_field(body, "temperature", float, own.temperature, 0, 2))
    top_p = float(_field(body, "top_p", float, own.top_p, 0, 1))
    return SamplingParams(
        temperature=temperature or 1.0,
        top_k=_field(body, "top_k", int, own.top_k, 0),
        top_p=max(top_p, 1e-6),  # 0 keeps the likeliest token
        greedy=temperature == 0,
        max_tokens=limit or longest,
        stop=tuple(dict.fromkeys([*own.stop, *_stops(body)])),
    )


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    given = body.get("stop")
    found = [given] if isinstance(given, str) else given or []
    if not isinstance(found, list) or not all(isinstance(s, str) and s for s in found) or len(found) > 16:
        raise BadRequest(f"'stop' must be text, or a list of at most 16 texts; got {given!r:.60}", "stop")
    return tuple(found)


def _logprobs(body: Mapping[str, Any], chat: bool) -> bool:
    if chat:
        return bool(_field(body, "logprobs", bool, False))
    value = body.get("logprobs")
    if value is None or value is False:
        return False
    if value != 0 and value is not True:
        raise BadRequest(
            f"'logprobs' must be 0: log-probabilities are given of the sampled tokens alone; got {value!r:.60}",
            "logprobs",
        )
    if body.get("echo"):
        raise BadRequest("'logprobs' of a prompt ('echo') are not served", "echo")
    return True


def _conversation(body: Mapping[str, Any], policy: Policy) -> tuple[list[Message], Offer | None]:
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise BadRequest("'messages' must be a list of at least one message", "messages")
    messages = [_message(m, i) for i, m in enumerate(given)]
    renderer = _asking(policy, messages)
    offer = tools.offered(body, renderer)
    return (messages if offer is None else tools.conversation(given, messages, renderer, offer)), offer


def _chat_prompt(messages: Sequence[Message], offer: Offer | None, policy: Policy) -> list[Array]:
    try:
        return [_asking(policy, messages).prompt(messages, _asks(messages), offer)]
    except UserError as error:
        raise BadRequest(str(error), "messages") from error


def _asking(policy: Policy, messages: Sequence[Message]) -> Renderer:
    """The model's renderer; a client's own system message stands in the place of the run's."""
    renderer = policy.renderer
    if messages[0].role != "system" or not renderer.framing.system:
        return renderer
    return Renderer(policy.tokenizer, replace(renderer.framing, system=""))


def _asks(messages: Sequence[Message]) -> int:
    """The messages up to the first of the user, which is the question that the run's text and examples go around."""
    return next((n for n, m in enumerate(messages, 1) if m.role == "user"), 0)


def _message(given: Any, place: int) -> Message:
    where = f"messages[{place}]"
    if not isinstance(given, dict):
        raise BadRequest(f"{where} must be an object with role and content", "messages")
    role, content = given.get("role"), given.get("content")
    if role not in ROLES:
        raise BadRequest(
            f"{where}.role must be system, user, assistant or tool; got {role!r:.60}", "messages"
        )
    if content is None and role == "assistant" and given.get(tools.CALLED):
        content = ""
    if isinstance(content, list):
        texts = [p.get("text") for p in content if isinstance(p, dict) and p.get("type") == "text"]
        parts = [text for text in texts if isinstance(text, str)]
        if len(parts) < len(content):
            raise BadRequest(f"{where}.content may hold parts of type text only", "messages")
        content = "".join(parts)
    if not isinstance(content, str):
        raise BadRequest(f"{where}.content must be text; got {content!r:.60}", "messages")
    return Message(ROLES[role], content)


def _prompts(body: Mapping[str, Any], policy: Policy) -> tuple[list[Array], list[str]]:
    """Text, a list of texts, token ids, or a list of lists of them."""
    given = body.get("prompt")
    several = [given] if isinstance(given, str) or _ids(given) else given
    if not isinstance(several, list) or not several:
        raise BadRequest("'prompt' must be text, token ids, or a list of either", "prompt")
    prompts = []
    for one in several:
        if isinstance(one, str):
            prompts.append(policy.tokenizer.encode(one, special=True))
        elif _ids(one) and max(one) < policy.config["vocab_size"] and min(one) >= 0:
            prompts.append(np.array(one, np.int32))
        else:
            raise BadRequest(f"'prompt' must be text or token ids of the model; got {one!r:.60}", "prompt")
    echo = _field(body, "echo", bool, False)
    return prompts, [policy.renderer.decode(p) if echo else "" for p in prompts]


def _ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(t) is int for t in value)


# ---- answers -----------------------------------------------------------------------------------------


def choice(
    wanted: Wanted, index: int, text: str, finish: str | None, logprobs: Any, calls: Sequence[Call] = ()
) -> dict[str, Any]:
    said: dict[str, Any] = {"text": text}
    if wanted.chat:
        content = text if text or not calls else None
        called = {tools.CALLED: tools.written(calls)} if calls else {}
        said = {"message": {"role": "assistant", "content": content, "refusal": None, **called}}
    return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish}


def delta(
    wanted: Wanted,
    index: int,
    text: str,
    finish: str | None,
    logprobs: Any,
    first: bool,
    calls: Sequence[Call] = (),
) -> dict[str, Any]:
    """A choice of a chunk."""
    said: dict[str, Any] = {"text": text}
    if wanted.chat:
        content = {"content": text} if text or first else {}
        called = {tools.CALLED: tools.written(calls, numbered=True)} if calls else {}
        said = {"delta": {**({"role": "assistant"} if first else {}), **content, **called}}
    return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish}


def log_probabilities(wanted: Wanted, policy: Policy, pieces: Sequence[Piece], offset: int = 0) -> Any:
    """Those of sampled tokens; `offset`: characters before them. None where they were not asked for."""
    drawn = [p for p in pieces if p.token is not None]
    if not wanted.logprobs or not drawn:
        return None
    texts = [policy.tokenizer.decode([p.token or 0], special=True) for p in drawn]
    if wanted.chat:
        rows = [
            {"token": t, "logprob": p.logp, "bytes": list(t.encode()), "top_logprobs": []}
            for t, p in zip(texts, drawn, strict=True)
        ]
        return {"content": rows, "refusal": None}
    starts = np.cumsum([offset, *(len(t) for t in texts[:-1])]).tolist()
    logps = [p.logp for p in drawn]
    return {"tokens": texts, "token_logprobs": logps, "top_logprobs": None, "text_offset": starts}


def usage(prompt: int, said: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
