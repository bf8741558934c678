"""A comparison from Python.

found = etude.compare(["grpo", "rloo"], tasks="chain_sum:max_terms=2", budget="5m")
found.verdict, found.report()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.compare.arms import parse_arms
from etude.compare.comparison import Comparison, run_comparison
from etude.compare.table import screen
from etude.errors import UserError
from etude.files import read_json
from etude.report.page import write_report
from etude.train.config import Budget, as_text


@dataclass(frozen=True)
class FinishedComparison:
    """What a comparison left in `path`."""

    path: Path

    @property
    def results(self) -> dict[str, Any]:
        """Everything that `results.json` holds."""
        return dict(read_json(self.path / "results.json", "verdict"))

    @property
    def verdict(self) -> str:
        """What can be said of the arms, in sentences."""
        return str(self.results["verdict"])

    def report(self) -> Path:
        """Writes the page, one HTML file that opens offline, and returns where it lies."""
        return write_report(self.path)

    def __str__(self) -> str:
        return screen(self.results)

    def __repr__(self) -> str:
        return f"<comparison '{self.path}': {self.verdict}>"


def compare(
    arms: Sequence[str],
    model: str = "smollm2",
    tasks: str = "",
    budget: str | Budget | int = "5m",
    *,
    seeds: int = 3,
    out: str | Path = "runs/comparison",
    settings: Mapping[str, Any] | None = None,
    tune: int = 0,
    parallel: int = 1,
    quiet: bool = False,
) -> FinishedComparison:
    """Which recipe makes `model` better at `tasks` within `budget` (of each run), and is the difference real?

    `arms`: "RECIPE", or "NAME=RECIPE:stage.field=value,...". Each arm is trained with `seeds` seeds, in processes of
    their own; called again with the same arguments it goes on where it stopped. `tune`: learning rates to try per arm,
    from half of its budget. `parallel`: runs at once. Raises UserError for what cannot be used."""
    for name, value, kind in (("arms", arms, list | tuple), ("tasks", tasks, str)):
        if not isinstance(value, kind) or not value:
            wanted = "a list of recipes" if name == "arms" else "text such as 'chain_sum' or 'mine.jsonl'"
            raise UserError(f"{name} is {value!r:.60}; it must be {wanted}")
    comparison = Comparison(
        parse_arms(arms),
        model,
        tasks,
        Budget.of(budget),
        range(seeds),
        Path(out),
        {name: as_text(value) for name, value in (settings or {}).items()},
        parallel,
        tune,
    )
    run_comparison(comparison, (lambda text: None) if quiet else print)
    return FinishedComparison(comparison.out)
