"""Stages of training declared once: imitation, then preferences, then checked answers; or imitation, a reward model, and training on it.

    model = "smollm2"
    [[stage]]
    name = "sft"
    recipe = "sft"
    tasks = "solutions.jsonl"
    budget = "5m"
    [[stage]]
    name = "rm"
    recipe = "reward_model"
    pairs = "pairs.jsonl"
    budget = "5m"
    [[stage]]
    name = "rl"
    recipe = "grpo"
    model = "@sft"                            # default: what the stage before left
    tasks = "prompts.jsonl:check=none"
    reward = ["model:@rm", "length,weight=0"]
    budget = "10m"
    settings = {"update.lr" = 1e-6}

`@NAME` is the model that an earlier stage left. Every stage is a run of its own in OUT/NAME; a stage that has ended is not run again,
one that was cut off goes on.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError, nearest
from etude.files import read_text
from etude.report.run import RunDirectory, is_run
from etude.tasks.spec import as_pairs
from etude.train.config import Budget, Plan, as_text
from etude.train.reopen import resume
from etude.train.rewards import with_rewards
from etude.train.session import run_session
from etude.train.setup import start
from etude.train.watching import Watcher

KEYS = ("name", "recipe", "model", "tasks", "pairs", "reward", "budget", "seed", "settings")
_NAMED = re.compile(r"@([\w-]+)")


@dataclass(frozen=True)
class PipelineStage:
    """A run with a name; its texts may name earlier stages as `@NAME`."""

    name: str
    plan: Plan

    def at(self, out: Path) -> Plan:
        """The plan with the places of earlier stages' models."""

        def placed(text: str) -> str:
            return _NAMED.sub(lambda found: str((out / found[1] / "model").resolve()), text)

        rewards = tuple(placed(text) for text in self.plan.rewards)
        return self.plan.but(model=placed(self.plan.model), rewards=rewards)


def read(path: str | Path) -> list[PipelineStage]:
    """The stages in a TOML file, in order. Raises UserError in one sentence for what cannot be read."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"there is no pipeline '{path}'")
    try:
        data = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the pipeline '{path}' cannot be read: {error}") from None
    tables = data.get("stage")
    if not isinstance(tables, list) or not tables:
        raise UserError(f"the pipeline '{path}' holds no [[stage]]")
    if unknown := sorted(data.keys() - {"stage", "model", "seed"}):
        raise UserError(f"the pipeline '{path}': there is no '{unknown[0]}' beside its stages")
    stages: list[PipelineStage] = []
    for number, table in enumerate(tables, 1):
        stages.append(_stage(table, data, stages, f"the pipeline '{path}', stage {number}"))
    return stages


def _stage(
    table: Mapping[str, Any], common: Mapping[str, Any], before: list[PipelineStage], where: str
) -> PipelineStage:
    if unknown := sorted(table.keys() - set(KEYS)):
        raise UserError(f"{where}: there is no '{unknown[0]}'{nearest(unknown[0], KEYS)}")
    for needed in ("recipe", "budget"):
        if not isinstance(table.get(needed), str):
            raise UserError(f"{where} must name a {needed}, as text")
    if ("tasks" in table) == ("pairs" in table):
        raise UserError(f"{where} must name either tasks or pairs")
    name = str(table.get("name", table["recipe"]))
    if not re.fullmatch(r"[\w-]+", name) or name in (s.name for s in before):
        raise UserError(f"{where}: the name '{name}' must be a word that no earlier stage has")
    model = str(table.get("model", f"@{before[-1].name}" if before else common.get("model", "smollm2")))
    reward = table.get("reward", [])
    rewards = (reward,) if isinstance(reward, str) else tuple(reward)
    known = [s.name for s in before]
    for text in (model, *rewards):
        for found in _NAMED.findall(str(text)):
            if found not in known:
                raise UserError(f"{where}: '@{found}' names no earlier stage{nearest(found, known)}")
    changes = {name: as_text(value) for name, value in dict(table.get("settings", {})).items()}
    seed = table.get("seed", common.get("seed", 0))
    tasks = str(table["tasks"]) if "tasks" in table else as_pairs(str(table["pairs"]))
    return PipelineStage(
        name, Plan(table["recipe"], model, tasks, Budget.parse(table["budget"]), seed, changes, rewards)
    )


def run_pipeline(
    stages: list[PipelineStage],
    out: Path,
    watch: Callable[[PipelineStage], Watcher | None] = lambda stage: None,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Runs what is missing, in order; a summary of each stage. Raises UserError where a stage in `out` was made by another plan."""
    summaries = []
    for stage in stages:
        plan, place = with_rewards(stage.at(out), None)[0], out / stage.name
        if not is_run(place):
            run = start(plan, place, overwrite=place.exists(), wait=True)
            summaries.append(run_session(run, watcher=watch(stage), force=force))
            continue
        directory = RunDirectory.open(place)
        if directory.config["plan"] != plan.to_dict():
            raise UserError(
                f"'{place}' was made by another plan than stage '{stage.name}' has now; choose another --out, or remove it"
            )
        if (directory.ended or ("", ""))[0] == "finished":
            summaries.append(
                {"run": str(place), "recipe": directory.config["recipe"], "ended": "was there already"}
            )
            continue
        run, _ = resume(place, None)
        summaries.append(run_session(run, watcher=watch(stage), fresh=False))
    return summaries
