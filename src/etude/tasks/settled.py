"""What an environment returns, for callers without an event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def settled(found: Any) -> Any:
    """`found` itself, or what it comes to where it is awaitable; in a loop of its own, so that it may be called in one."""
    if not inspect.isawaitable(found):
        return found
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _awaited(found)).result()


async def _awaited(found: Awaitable[Any]) -> Any:
    return await found
