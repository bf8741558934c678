"""Who is told how a session goes, and the bar that shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from etude.printable import clean
from etude.report.terminal import left
from etude.train.config import Budget


class Watcher(Protocol):
    """Who is told how a session goes."""

    def __call__(self, step: int, metrics: Mapping[str, Any], fraction: float) -> None:
        """After step `step`, with `fraction` in [0, 1] of the budget spent."""
        ...

    def say(self, text: str) -> None: ...


class Examined:
    """Tells a watcher, now and then, how far a long evaluation is."""

    def __init__(self, watcher: Watcher, every: float = 30.0) -> None:
        self.watcher, self.every, self.begin, self.said = watcher, every, 0.0, 0.0

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if done == 1:
            self.begin = self.said = now
        if 1 < done < of and now - self.said > self.every:
            self.said = now
            self.watcher.say(
                f"problems examined: {done} of {of}{left(now - self.begin, (done - 1) / (of - 1))}"
            )


class Bar:
    """A progress bar of the budget, in a notebook as in a terminal."""

    def __init__(self, budget: Budget) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=100.0, desc="pre-flight", file=sys.stderr, bar_format=BAR.format(budget=budget))

    def __call__(self, step: int, metrics: Mapping[str, Any], fraction: float) -> None:
        self.bar.set_description(f"step {step}", refresh=False)
        shown = {name: f"{metrics[name]:.3g}" for name in ("reward", "signal") if name in metrics}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(100 * fraction - self.bar.n)

    def say(self, text: str) -> None:
        self.bar.write(clean(text), file=sys.stderr)

    def close(self) -> None:
        self.bar.close()


BAR = "{{desc}}: {{percentage:3.0f}}% of {budget} |{{bar}}| {{elapsed}}<{{remaining}}{{postfix}}"
