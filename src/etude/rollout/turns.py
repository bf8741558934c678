"""How an environment is called: what is asynchronous is awaited, what says `blocking` waits in a thread of its own, all else is
called where it stands. While one episode waits, the sampler and the other episodes go on."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback
from typing import Any

from etude.rollout.conversation import Failed
from etude.tasks.check import CheckError
from etude.types import Environment, Verdict


async def observe(environment: Environment) -> str:
    """What the policy sees first. Raises Failed."""
    return str(await _call(environment, "observe"))


async def act(environment: Environment, text: str) -> tuple[str, Verdict | None]:
    """What comes of a reply, and the verdict once the episode is over. Raises Failed, also for what is neither."""
    found = await _call(environment, "act", text)
    pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], str)
    if pair and (found[1] is None or isinstance(found[1], Verdict)):
        said, verdict = found
        return said, verdict
    raise Failed(
        "environment",
        f"act() of {type(environment).__name__} returned {found!r:.80}; it must return (text, a Verdict or None)",
    )


async def ask(environment: Environment, name: str, *arguments: Any) -> Any:
    """What another of its methods gives (`expert`, `actions`, `solve`); None where it has no such method. Raises Failed."""
    return await _call(environment, name, *arguments) if hasattr(environment, name) else None


async def close(environment: Environment) -> None:
    """Lets an environment that has a `close` go: a connection, a browser. What it raises harms nobody."""
    if hasattr(environment, "close"):
        with contextlib.suppress(Exception):
            await _call(environment, "close")


async def _call(environment: Environment, name: str, *arguments: Any) -> Any:
    method = getattr(environment, name)
    try:
        if getattr(environment, "blocking", False) and not inspect.iscoroutinefunction(method):
            return await asyncio.to_thread(method, *arguments)
        found = method(*arguments)
        return await found if inspect.isawaitable(found) else found
    except CheckError:
        raise  # of a user's environment beside the run; it says where it happened
    except (Exception, SystemExit) as error:
        raise Failed("environment", error, "".join(traceback.format_exception(error))) from error
