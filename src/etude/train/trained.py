"""What a session left on disk, to be looked at, saved, or gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.evaluate.result import BEST, EvalResult
from etude.report.page import write_report
from etude.report.run import RunDirectory


@dataclass(frozen=True)
class TrainedRun:
    """What a session left in `path`; everything is read from there."""

    path: Path

    @property
    def directory(self) -> RunDirectory:
        """Metrics, evaluations, findings and episodes."""
        return RunDirectory.open(self.path)

    @property
    def before(self) -> EvalResult | None:
        """Held-out accuracy of the model as it was given."""
        found = [e for e in self.directory.evals() if e.get("rule") == "before"]
        return EvalResult.from_dict(found[0]) if found else None

    @property
    def after(self) -> EvalResult | None:
        """Held-out accuracy of the trained model; None until the run has ended."""
        return next(
            (EvalResult.from_dict(e) for e in reversed(self.directory.evals()) if self.chosen(e)), None
        )

    def chosen(self, result: Mapping[str, Any]) -> bool:
        """Whether an evaluation is of the weights that were saved."""
        best = self.directory.config["settings"].get("keep") == "best"
        return str(result.get("rule")).startswith(BEST) if best else result.get("rule") == "last"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dictionary per step."""
        return self.directory.metrics()

    @property
    def model(self) -> Path:
        """The directory of the trained model, which transformers loads. UserError where none was saved."""
        model = self.path / "model"
        if not model.exists():
            raise UserError(f"'{self.path}' holds no trained model; resume the run to its end")
        return model

    def report(self) -> Path:
        """Writes the run's page, one HTML file that opens offline, and returns where it lies."""
        return write_report(self.path)

    def save(self, directory: str | Path) -> Path:
        """Copies the trained model to `directory`, which must not exist or be empty."""
        place = Path(directory)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise UserError(f"'{place}' exists already; name a new directory")
        shutil.copytree(self.model, place, dirs_exist_ok=True)
        return place

    def __repr__(self) -> str:
        shown = [f"{100 * r.mean.mean:.1f} %" for r in (self.before, self.after) if r is not None]
        accuracy = f", held-out accuracy {' -> '.join(shown)}" if shown else ""
        return f"<run '{self.path}': {self.directory.config['recipe']}, {len(self.metrics)} steps{accuracy}>"
