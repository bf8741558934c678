"""Who a judge is: the policy itself, the frozen start, a second model, or an address that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from etude import seeds
from etude.errors import UserError
from etude.models.policy import Policy
from etude.rollout.conversation import Generator
from etude.rollout.remote import ChatAddress
from etude.sampling.engine import sampler_for
from etude.types import Message, SamplingParams


class JudgeError(Exception):
    """A judge that gave no judgement: no answer in time, a budget that is spent, or words that say nothing. Never a zero."""


class Asked(Protocol):
    """Answers messages with text. `name` tells it from others in a cache; "" where the same words may get another answer."""

    name: str

    async def reply(self, messages: Sequence[Message], max_tokens: int) -> str: ...


@dataclass
class OfRun:
    """A model of the run, greedy: "policy", as it is now, or "reference", the frozen start."""

    which: str
    generator: Generator | None = None

    @property
    def name(self) -> str:
        return "" if self.which == "policy" else f"start {id(self)}"

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"reference"}) if self.which == "reference" else frozenset()

    def bind(self, generators: Mapping[str, Generator]) -> None:
        self.generator = generators[self.which]

    async def reply(self, messages: Sequence[Message], max_tokens: int) -> str:
        if self.generator is None:
            raise JudgeError("the policy judges only within a run; name a model or an address")
        return await _sampled(self.generator, messages, max_tokens)


@dataclass
class SecondModel:
    """A model of its own: a directory, a name on the hub, or smollm2. Greedy."""

    name: str
    policies: list[Policy] = field(default_factory=list)
    generator: Generator | None = None

    def load(self, precision: str = "bf16", device: str = "cpu", **others: Any) -> None:
        if self.generator is None:
            policy = Policy.load(self.name, precision, device=device).clone(frozen=True)
            self.policies.append(policy)
            self.generator = Generator(
                sampler_for(policy), policy.renderer, SamplingParams(), self.name, policy.context
            )

    async def reply(self, messages: Sequence[Message], max_tokens: int) -> str:
        self.load()
        assert self.generator is not None
        return await _sampled(self.generator, messages, max_tokens)


async def _sampled(generator: Generator, messages: Sequence[Message], max_tokens: int) -> str:
    tokens = generator.renderer.prompt(list(messages), len(messages))
    room = generator.limit - len(tokens)
    if room <= 0:
        raise JudgeError(f"what is to be judged is longer than the judge reads ({generator.limit} tokens)")
    params = SamplingParams(greedy=True, max_tokens=min(max_tokens, room))
    await generator.sampler.refresh()
    sample = await generator.sampler.sample(tokens, params, seeds.key("judge", tokens.tobytes().hex()))
    return generator.renderer.decode(sample.tokens)


@dataclass
class Address:
    """`http://HOST/v1#MODEL`, temperature 0. `seconds`: deadline of one judgement, retries included. `budget`: tokens in all,
    prompts included; 0: no bound. `at_once`: requests under way. `key`: environment variable that holds the key."""

    name: str
    seconds: float = 60.0
    budget: int = 0
    at_once: int = 8
    key: str = "OPENAI_API_KEY"
    spent: int = 0
    _gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    def __post_init__(self) -> None:
        self._address = ChatAddress(self.name, self.key)

    async def reply(self, messages: Sequence[Message], max_tokens: int) -> str:
        if self.budget and self.spent >= self.budget:
            raise JudgeError(f"the judge's budget of {self.budget} tokens is spent")
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = loop, asyncio.Semaphore(self.at_once)
        async with self._gate[1]:
            return await self._retried(messages, max_tokens)

    async def _retried(self, messages: Sequence[Message], max_tokens: int) -> str:
        loop = asyncio.get_running_loop()
        end, pause, last = loop.time() + self.seconds, 0.25, "no answer"
        while (left := end - loop.time()) > 0:
            try:
                return await asyncio.wait_for(
                    asyncio.to_thread(self._post, messages, max_tokens, left), timeout=left
                )
            except _Hopeless as error:
                raise JudgeError(str(error)) from None
            except (OSError, ValueError, KeyError, IndexError, TypeError, TimeoutError) as error:
                last = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            await asyncio.sleep(min(pause, max(0.0, end - loop.time())))
            pause *= 2
        raise JudgeError(
            f"the judge at {self._address.url} gave no answer within {self.seconds:g} s ({last})"
        )

    def _post(self, messages: Sequence[Message], max_tokens: int, seconds: float) -> str:
        try:
            text, tokens = self._address.ask(messages, seconds, temperature=0, max_tokens=max_tokens)
        except urllib.error.HTTPError as error:
            if 400 <= error.code < 500 and error.code not in (408, 409, 429):
                where = self._address.url
                raise _Hopeless(f"the judge at {where} refuses: {error.code} {error.reason}") from None
            raise
        self.spent += tokens
        return text


class _Hopeless(Exception):
    """Asking again would not help."""


def asked(place: str, options: Mapping[str, str]) -> Any:
    """Who `judge:PLACE` names: policy, frozen, an address, or a model. Raises UserError for an option that does not fit."""
    if place.startswith(("http://", "https://")):
        given: dict[str, Any] = {}
        for name, kind in (("seconds", float), ("budget", int), ("at_once", int), ("key", str)):
            if name in options:
                try:
                    given[name] = kind(options[name])
                except ValueError:
                    raise UserError(f"{name} is '{options[name]}'; it must be a number") from None
                if kind is not str and given[name] <= 0:
                    raise UserError(f"{name} is {options[name]}; it must be above 0")
        return Address(place, **given)
    if wrong := sorted(options):
        raise UserError(f"the option '{wrong[0]}' goes with an address (http://HOST/v1#MODEL)")
    if place in ("policy", "frozen"):
        return OfRun({"policy": "policy", "frozen": "reference"}[place])
    return SecondModel(place)
