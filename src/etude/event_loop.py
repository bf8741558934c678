"""An event loop of one's own that also runs where another one is running already, as in a notebook cell."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoop:
    """Runs coroutines to their end, one call at a time. In a thread with a running loop, where asyncio refuses a
    second one, they run in a thread of this object's own, and the caller waits; an interrupt cancels them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None and not _running():
            try:
                return self._loop.run_until_complete(work)
            except KeyboardInterrupt:
                self._abandon()
                raise
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="etude", daemon=True)
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _abandon(self) -> None:
        """After an interrupt: cancels what waits, and keeps asyncio from printing a traceback for each task that was hit."""
        self._loop.set_exception_handler(lambda loop, context: None)
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Exception):  # a second interrupt ends at once
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def close(self) -> None:
        """Ends the thread, if there is one, and the loop. May be called twice."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None
        self._loop.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, also where a loop is running in this thread."""
    loop = EventLoop()
    try:
        return loop.run(work)
    finally:
        loop.close()


def _running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
