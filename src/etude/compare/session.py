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
from etude.train import plan_file
from etude.train.config import Budget, as_text

UNUSED = ("seed", "log")
"""Options of a plan that concern a single run."""


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
    arms: Sequence[str] | str,
    model: str | None = None,
    tasks: str = "",
    budget: str | Budget | int | None = None,
    *,
    seeds: int | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    tune: int | None = None,
    parallel: int | None = None,
    quiet: bool = False,
) -> FinishedComparison:
    """Which recipe makes `model` (default: smollm2) better at `tasks` within `budget` (of each run; default: 5m), and is the
    difference real?

    `arms`: "RECIPE", or "NAME=RECIPE:stage.field=value,..."; or a plan file with several recipes or a sweep, beside which what
    is given here counts more. Each arm is trained with `seeds` seeds (default: 3), in processes of their own;
    called again with the same arguments it goes on where it stopped. `tune`: learning rates to try per arm, from half of its
    budget (default: none). `parallel`: runs at once (default: one). Raises UserError for what cannot be used."""
    given: dict[str, Any] = {
        "model": model,
        "tasks": tasks or None,
        "budget": budget,
        "seeds": seeds,
        "out": out,
    }
    given |= {"tune": tune, "parallel": parallel}
    own = {name: value for name, value in given.items() if value is not None}
    if isinstance(arms, str) and plan_file.is_plan(arms):
        file = plan_file.read(arms)
        said = file.arguments((*given, *UNUSED), ("prompt", "system"))
        own = {**said, **own, "settings": {**said["settings"], **(settings or {})}}
        return compare(
            file.arms(), quiet=quiet, **{n: v for n, v in own.items() if n in (*given, "settings")}
        )
    for name, value, kind in (("arms", arms, list | tuple), ("tasks", tasks, str)):
        if not isinstance(value, kind) or not value:
            wanted = "a list of recipes" if name == "arms" else "text such as 'chain_sum' or 'mine.jsonl'"
            raise UserError(f"{name} is {value!r:.60}; it must be {wanted}")
    comparison = Comparison(
        parse_arms(arms),
        model or "smollm2",
        tasks,
        Budget.of(budget or "5m"),
        range(3 if seeds is None else seeds),
        Path(out or "runs/comparison"),
        {name: as_text(value) for name, value in (settings or {}).items()},
        1 if parallel is None else parallel,
        tune or 0,
    )
    run_comparison(comparison, (lambda text: None) if quiet else print)
    return FinishedComparison(comparison.out)
