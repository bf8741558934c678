"""Environments behind OpenEnv's protocol: `openenv:http://host:8000`. Every episode has a session of its own on the server, by
OpenEnv's own client; what several episodes ask at once is up to the server (`max_concurrent_envs`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from etude.errors import UserError
from etude.tasks.adapters.absent import Adapter, Catalogued, World, WorldSource
from etude.tasks.kind import FEEDBACK, feedback_text
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import command_of
from etude.types import Verdict

SECONDS = 60.0  # for one answer of the server
ADAPTER = Adapter(
    "openenv",
    "openenv",
    "openenv",
    "Environments behind OpenEnv's protocol, by openenv:ADDRESS (extra: openenv)",
    (
        Param("url", str, "", "the server's address"),
        Param("prompt", str, "", "what is asked; empty: to act in the environment that the server names"),
        Param("turns", int, 50, "turns allowed"),
        Param("low", float, 0.0, "the sum of rewards that counts as 0"),
        Param("high", float, 1.0, "the sum of rewards that counts as 1, and as right"),
        FEEDBACK,
    ),
)


@dataclass(frozen=True)
class Remote:
    """Makes a fresh episode of one seed on the server."""

    url: str
    seed: int
    field: str  # of an action that is one text
    turns: int
    low: float
    high: float
    feedback: str

    def __call__(self, seed: int = 0) -> Any:  # its methods are coroutines, which the protocol cannot say
        """A new episode from the same beginning, as far as the server follows the seed that it is told."""
        return RemoteWorld(self)


class RemoteWorld:
    """One episode: `etude.types.Environment`, asynchronous. A reply is an action as JSON, or, where actions have one field that must be
    there, its value."""

    def __init__(self, plan: Remote) -> None:
        from openenv.core.generic_client import GenericEnvClient

        self._plan = plan
        self._client = GenericEnvClient(base_url=plan.url, message_timeout_s=SECONDS)
        self._total, self._turns = 0.0, 0

    async def observe(self) -> str:
        """Begins the episode: what is seen first."""
        await self._client.connect()
        return said((await self._client.reset(seed=self._plan.seed)).observation)

    async def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the action that a reply gives. Raises what the server says of an action that it refuses."""
        plan = self._plan
        self._turns += 1
        action = _action(text, plan.field)
        if action is None:
            if self._turns < plan.turns:
                return "An action is a JSON object.", None
            return "", self._verdict()
        found = await self._client.step(action)
        self._total += float(found.reward or 0)
        over = bool(found.done) or self._turns >= plan.turns
        return said(found.observation), self._verdict() if over else None

    async def close(self) -> None:
        """Ends the session on the server."""
        await self._client.close()

    def _verdict(self) -> Verdict:
        plan = self._plan
        share = float(np.clip((self._total - plan.low) / (plan.high - plan.low), 0, 1))
        unary, hint = "You did not reach the goal.", f"You got {self._total:g}; {plan.high:g} was wanted."
        return Verdict(
            share, share == 1, feedback_text(plan.feedback, unary, hint, hint) if share < 1 else ""
        )


def said(observation: Any) -> str:
    """An observation in words: its only text, else its fields as JSON, without those that are empty."""
    if not isinstance(observation, Mapping):
        return str(observation)
    fields = {
        k: v for k, v in observation.items() if v not in (None, {}, [], "") and k not in ("done", "reward")
    }
    texts = [v for v in fields.values() if isinstance(v, str)]
    return texts[0] if len(fields) == len(texts) == 1 else json.dumps(fields, ensure_ascii=False)


def _action(text: str, field: str) -> dict[str, Any] | None:
    begin, end = text.find("{"), text.rfind("}")
    if 0 <= begin < end:
        try:
            found = json.loads(text[begin : end + 1])
        except json.JSONDecodeError:
            found = None
        if isinstance(found, dict):
            return found
    return {field: command_of(text, code=True)} if field else None


@lru_cache(maxsize=16)
def asked(url: str) -> tuple[str, str]:
    """What the server calls its environment, and the field of an action that is one text ("" where it has several).
    Raises UserError where nobody answers."""
    import httpx

    try:
        with httpx.Client(timeout=SECONDS) as client:
            schema = client.get(f"{url.rstrip('/')}/schema").raise_for_status().json()["action"]
            named = client.get(f"{url.rstrip('/')}/metadata").raise_for_status().json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"task 'openenv': no server of OpenEnv answers at {url}: {why}") from None
    needed = schema.get("required", [])
    return str(named.get("name", "an environment")), needed[0] if len(needed) == 1 else ""


def source(name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> Any:
    """The environment at `url` as a source. Raises UserError."""
    if not given:
        return Catalogued(ADAPTER)
    own = ADAPTER.read(given, "url")
    if not own["high"] > own["low"]:
        raise UserError(f"task 'openenv': high={own['high']:g} must be more than low={own['low']:g}")
    title, field = asked(own["url"])
    how = "reply with one action" if field else "reply with one action as a JSON object"
    prompt = own["prompt"] or f"You act in {title}. Each turn, {how}."

    def make(seed: int) -> World:
        plan = Remote(own["url"], seed % 2**31, field, own["turns"], own["low"], own["high"], own["feedback"])
        return World(prompt, plan, [title, seed % 2**31])

    return WorldSource(called or name, ADAPTER.info, make, sorted(own.items(), key=repr), own["feedback"])
