"""Copies of a run's metrics, evaluations and some episodes for the programs of `report.trackers`. The run directory stays
the truth: a copy that fails is given up with a warning.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etude.errors import UserError, nearest
from etude.report.run import RunDirectory
from etude.report.trackers import KNOWN, Tracker, need

TABLE_EVERY = 10  # steps between those whose episodes are copied
TABLE_ROWS = 64
TEXT = 2000  # characters of a question or a reply in a table


def known(names: str) -> list[str]:
    """The trackers named in `names`, separated by commas ("": none). Raises UserError when one is unknown, not installed, or
    wants a key that is not there."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in wanted:
        if name not in KNOWN:
            raise UserError(f"there is no tracker '{name}'{nearest(name, KNOWN)}")
        module = need(name, name) if name != "csv" else None
        if name == "wandb" and not _has_key(module):
            raise UserError("wandb has no key; `wandb login`, or WANDB_MODE=offline")
    return wanted


def _has_key(wandb: Any) -> bool:
    """Whether wandb can begin without asking: that would be in the middle of a run."""
    offline = os.environ.get("WANDB_MODE", "").lower() in ("offline", "disabled", "dryrun")
    return offline or bool(getattr(getattr(wandb, "api", None), "api_key", None))


class Trackers:
    """Those that are named, for one run. Raises UserError where one is not `known`, or cannot begin."""

    def __init__(self, names: str, run: RunDirectory) -> None:
        self.run = run
        self.open: dict[str, Tracker] = {}
        self._evals = len(run.evals()) if names else 0  # those that an earlier session has copied
        try:
            for name in known(names):
                self.open[name] = KNOWN[name](run)
        except BaseException:
            self.close()
            raise

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """After a step was recorded."""
        if not self.open:
            return
        self._examined()
        self._numbers(step, dict(flat(metrics)))
        if (step - 1) % TABLE_EVERY == 0 and (rows := episode_rows(self.run, step)):
            self._tell(lambda tracker: tracker.episodes(step, rows))

    def close(self) -> None:
        """May be called twice."""
        if self.open:
            self._examined()
        finished = self.run.ended is not None and self.run.ended[0] == "finished"
        self._tell(lambda tracker: tracker.close(finished))
        self.open = {}

    def _examined(self) -> None:
        """Copies the evaluations that are new."""
        evals = self.run.evals()
        for result in evals[self._evals :]:
            numbers = {f"eval/{name}": float(result[name]) for name in ("mean", "low", "high")}
            numbers |= {f"eval/pass_{k}": float(v[0]) for k, v in (result.get("pass") or {}).items()}
            self._numbers(int(result["step"]), numbers)
        self._evals = len(evals)

    def _numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self._tell(lambda tracker: tracker.metrics(step, numbers))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.open.items()):
            try:
                what(tracker)
            except Exception as error:
                del self.open[name]
                cause = re.sub(r"\s+", " ", str(error)).strip()[:200]
                print(
                    f"warning: {name} gets nothing more of this run: {type(error).__name__}: {cause}",
                    file=sys.stderr,
                )


def episode_rows(run: RunDirectory, step: int) -> list[dict[str, Any]]:
    """The first attempts of a step, as a person reads them."""
    names = ["id", "step", "kind", "difficulty", "prompt", "spans", "answer", "correct", "reward", "stop"]
    rows = []
    for row in run.episodes([step], names).slice(0, TABLE_ROWS).to_pylist():
        asked = [m["content"] for m in json.loads(row["prompt"]) if m["role"] == "user"]
        said = [span for span in row["spans"] if span["sampled"]]
        rows.append(
            {
                **{name: row[name] for name in ("step", "id", "kind", "difficulty")},
                "question": (asked[-1] if asked else "")[:TEXT],
                "reply": (said[-1]["text"] if said else "")[:TEXT],
                **{name: row[name] for name in ("answer", "correct", "reward", "stop")},
                "tokens": sum(span["end"] - span["start"] for span in said),
            }
        )
    return rows


def flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in `metrics`, those inside dictionaries as `outer/inner`."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
