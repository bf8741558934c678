"""Ctrl-C while training: the step under way is finished and kept. A second one ends at once, with the last checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WAIT = (
    "stopping after this step; Ctrl-C again stops at once, and loses what was done since the last checkpoint"
)


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did after a step that is kept: nothing is lost."""


@contextmanager
def patient(tell: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether to stop after the step under way. `tell` hears so at the first interrupt; the second
    raises KeyboardInterrupt wherever the program is. Where somebody else already listens to interrupts, or another thread does,
    nothing is changed."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield lambda: False
        return
    asked = False

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        tell(WAIT)

    signal.signal(signal.SIGINT, heard)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, usual)
