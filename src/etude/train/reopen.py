"""A run taken up again: exactly as if it had never stopped, or, where something is changed, as a branch that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude import __version__
from etude import tasks as sources
from etude.errors import UserError
from etude.evaluate.run import hold_out
from etude.event_loop import run as run_coroutine
from etude.recipe import Recipe
from etude.report.json_files import plain
from etude.report.run import RunDirectory
from etude.report.terminal import told
from etude.scale.place import Place
from etude.tasks import TaskSet
from etude.tasks.isolate import Pool
from etude.tools.spec import users_own
from etude.train import checkpoint
from etude.train.config import Budget, Plan, as_text, sealed
from etude.train.differences import (
    Differences,
    check_arithmetic,
    check_config,
    check_model,
    check_tasks,
    difference,
    engine_as_before,
)
from etude.train.fitting import fit, hide_labels
from etude.train.lineage import found_model, found_tasks, known_places, model_place
from etude.train.put import put, recorded
from etude.train.rewards import asked_for, rewarded, users_code, with_rewards
from etude.train.run import RewardFunction, Run
from etude.train.settings import EXAM, RunSettings
from etude.train.setup import (
    apart,
    assemble,
    describe,
    load_models,
    prepare,
    resolve,
    task_set,
)
from etude.train.validation import BEST_KIND
from etude.types import Task

FIXED = frozenset(
    {
        *("lora", "backbone", "precision", "teacher"),
        *(
            "eval_problems",
            "eval_samples",
            "tuning",
            "validation_problems",
            *(f"eval_{name}" for name in EXAM),
        ),
    }
)
"""Settings of the run that say what its weights are or what its evaluations measure."""


@dataclass(frozen=True)
class Change:
    """What a run goes on with that is other than it was. Nothing: exactly as if it had never stopped."""

    budget: str = ""  # in all (`200-steps`), or more (`+100-steps`)
    settings: Mapping[str, str] = field(default_factory=dict)  # stage.field -> value
    model: str = ""  # where the model lies that the run began with
    changed_tasks: bool = False  # go on although the tasks hold something else
    at: int | None = None  # the checkpoint to go back to


def resume(
    out: str | Path,
    tasks: str | TaskSet | Sequence[Task] | None = None,
    reward: RewardFunction | None = None,
    recipe: Recipe | None = None,
    reward_weights: Mapping[str, float] | None = None,
    change: Change | None = None,
    place: Place | None = None,
) -> tuple[Run, list[str]]:
    """The run in `out` as it stood at its last whole checkpoint, and warnings. What was recorded after that checkpoint is
    forgotten and, but for what `change` says, will be made again, bit for bit (by engines: the same requests, with bits of
    their own). `place`: where engines sample now; None: where they did. `tasks`: where they lie now. What was given as
    an object from Python, and cannot be found by its name, is given again. UserError for whatever is not as it was, before
    anything is changed on disk."""
    directory = RunDirectory.open(out)
    directory.lock()
    reopening: _Reopening | None = None
    try:
        reopening = _Reopening(directory, change or Change(), place)
        return reopening.run(tasks, reward, recipe, reward_weights)
    except BaseException:
        directory.release()
        if reopening is not None and reopening.pool is not None:
            reopening.pool.close()
        if reopening is not None and reopening.place is not None:
            run_coroutine(reopening.place.close())
        raise


class _Reopening:
    """One run that is being taken up."""

    def __init__(self, directory: RunDirectory, change: Change, place: Place | None) -> None:
        self.directory, self.change = directory, change
        self.pool: Pool | None = None
        self.config = directory.config
        self.found = Differences()
        before, self.place = self.config.get("placement"), place
        if place is not None:
            self.found.note("placement", before, place.to_dict())
        elif before is not None:
            self.place = Place.of(before, str(directory.path / "config.json"))

    def run(
        self,
        tasks: str | TaskSet | Sequence[Task] | None,
        reward: RewardFunction | None,
        recipe: Recipe | None,
        reward_weights: Mapping[str, float] | None,
    ) -> tuple[Run, list[str]]:
        path = self.directory.path
        check_config(path, self.config, self.change.at)
        plan, (found, settings, stages) = self._plan(recipe)
        step, state, warnings = checkpoint.load(path / "checkpoints", self.change.at)
        self.found.warnings += warnings
        where = known_places(self.config)
        if isinstance(tasks, str):
            self.found.note("tasks", where["tasks"], sources.absolute(tasks))
            plan, where["tasks"] = plan.but(tasks=tasks), sources.absolute(tasks)
        given = found_tasks(path, self.config) if tasks is None else task_set(tasks)
        holdout = hold_out(given, settings.eval_problems, settings.tuning)
        hide_labels(found, settings, given)
        prepare(stages, given)
        _, parts = with_rewards(plan, reward)
        self.pool = Pool(
            seconds=settings.check_seconds,
            known=[*users_code(given, holdout, parts), *users_own(settings.tools)],
        )
        rewarded(stages, parts, self.pool, settings, reward_weights)
        if self.change.model:
            self.found.note("model", where["model"], model_place(self.change.model))
            plan = plan.but(model=self.change.model)
        where["model"] = (
            model_place(self.change.model) if self.change.model else found_model(path, self.config)
        )
        if settings.teacher:
            where["teacher"] = found_model(path, self.config, "teacher")
        models = load_models(where, engine_as_before(settings, state), found, stages, self.place)
        put(models, settings, recorded(self.config))
        given, holdout = fit(given, holdout, models["policy"], settings, self.found.warnings.extend)
        run = assemble(plan, settings, found, stages, given, self.directory, models, self.pool, self.place)
        run.holdout, run.validation = apart(where["model"], given, holdout, settings, lambda said: None)
        run.own_reward, run.origin = asked_for(parts), where["model"]
        check_model(run, state, self.found)
        check_tasks(run, state, self.found, self.change.changed_tasks)
        check_arithmetic(run, state, self.found, step)
        self._load(run, state)
        then = state["config"].get("history", [])
        self._go_on(run, step, where, self.config.get("history", [])[len(then) :])
        return run, self.found.warnings

    @property
    def _asked(self) -> bool:
        """Whether the run is told to go on otherwise than it would."""
        return bool(self.change.budget or self.change.settings)

    # ---- the plan, with what shall change --------------------------------------------------------------

    def _plan(self, recipe: Recipe | None) -> tuple[Plan, tuple[Recipe, RunSettings, dict[str, Any]]]:
        """The plan with its changes, and what it resolves to. UserError for what a run cannot change."""
        config = {**self.config, "settings": {**plain(asdict(RunSettings())), **self.config["settings"]}}
        plan = Plan.from_dict(config["plan"])  # an earlier version may know fewer settings
        plan = plan if recipe is None else plan.but(recipe=recipe)
        resolved = _found_again(plan)
        now = describe(plan, resolved[0], resolved[1])
        for name in ("settings", "stages", "recipe"):
            if now[name] != config[name]:
                raise UserError(
                    f"the run's {name} differ from what its plan gives now: {difference(config[name], now[name])}; "
                    "resume with the version of etude that wrote it, or start a new run"
                )
        for path, was in config.get("methods", {}).items():
            if now["methods"].get(path) != was:
                self.found.note(path, was, now["methods"].get(path))
                self.found.warnings.append(
                    f"'{path}' has changed since the run began; the run goes on with it as it is now"
                )
        if not self.change.settings:
            return plan, resolved
        return self._with_settings(plan, resolved[1], now)

    def _with_settings(
        self, plan: Plan, settings: RunSettings, was: Mapping[str, Any]
    ) -> tuple[Plan, tuple[Recipe, RunSettings, dict[str, Any]]]:
        given = dict(self.change.settings)
        fresh = f"start a new run from its model: etude train {plan.recipe} -m {self.directory.path}"
        for name in given:
            if name.removeprefix("run.") in FIXED and name.startswith("run."):
                raise UserError(f"{name} cannot change within a run; {fresh}")
        for name in EXAM:  # an evaluation that follows the training's sampling stays what it was
            if f"run.{name}" in given and getattr(settings, f"eval_{name}") is None:
                given[f"run.eval_{name}"] = as_text(getattr(settings.exam, name))
        plan = plan.but(changes={**plan.changes, **given})
        resolved = resolve(plan)
        if resolved[1].validates != settings.validates:
            raise UserError(
                f"run.keep and run.stop_when need problems that were set aside at the start; {fresh}"
            )
        now = describe(plan, resolved[0], resolved[1])
        for name in given:
            stage, _, key = name.partition(".")
            old, new = (d["settings"] if stage == "run" else d["stages"][stage] for d in (was, now))
            self.found.note(name, old[key], new[key])
        return plan, resolved

    # ---- going on ------------------------------------------------------------------------------------

    def _load(self, run: Run, state: dict[str, Any]) -> None:
        try:
            run.load_state_dict(state)
        except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
            if not self.change.settings:
                raise
            raise UserError(
                f"the checkpoint does not fit with {', '.join(self.change.settings)} ({error}); start a new run from its "
                f"model: etude train {run.recipe.name} -m {self.directory.path}"
            ) from error
        place = self.directory.path / "checkpoints"
        if run.best and run.best["step"] not in checkpoint.steps(place, BEST_KIND):
            self.found.warnings.append(
                "the best weights until then are not kept any more; the present ones are the first to beat"
            )
            run.best = None

    def _go_on(
        self, run: Run, step: int, where: Mapping[str, str], later: Sequence[Mapping[str, Any]]
    ) -> None:
        """The budget that is left, and what is recorded of it all. `later`: changes that were made after the checkpoint was
        written, by a process that wrote no other."""
        old = run.plan.budget
        if self.change.budget:
            run.plan = run.plan.but(budget=Budget.further(self.change.budget, run.used()))
            self.found.note("budget", str(old), str(run.plan.budget))
            before, after = (run.update.rate(step, b.progress(run.used())) for b in (old, run.plan.budget))
            if abs(before - after) > 1e-9:
                self.found.warnings.append(
                    f"update.decay={run.update.decay} follows the budget: the rate goes from {before:.2g} to {after:.2g} of "
                    "update.lr"
                )
        if step:  # before the first step nothing counts as spent
            run.context.progress = run.spent["progress"] = run.plan.budget.progress(run.used())
        if self._asked and run.context.progress >= 1:
            raise UserError(
                f"the run has spent its budget of {old} at step {step}; lengthen it as well, as in --steps +100"
            )
        if self._asked or any(entry.get("asked") for entry in later):
            run.ended, run.spent["barren"] = "", 0.0
        self.directory.truncate(step)
        place = self.directory.path / "checkpoints"
        if self.found.changed or self.change.at is not None:
            checkpoint.remain(place, [s for s in checkpoint.steps(place) if s <= step])
        self._record(run, step, where)  # last: what follows a change must not stand beside what it replaces

    def _record(self, run: Run, step: int, where: Mapping[str, str]) -> None:
        before = self.config.get("history", [])
        history = [{**e, "step": min(e["step"], step)} for e in before]
        if history != before:
            self.found.warnings.append(
                f"what was changed at step {before[-1]['step']} holds from step {step} on"
            )
        entry = plain(
            {"step": step, "etude": __version__, "asked": self._asked, "changed": self.found.changed}
        )
        if self.found.changed and history[-1:] != [entry]:
            history.append(entry)
        if self.found.changed:
            self.found.warnings.append(f"from step {step} on this is a branch of the run: {told(entry)}")
        if history == before:
            return
        known = self.config.get("places", where)
        places = {k: v for k, v in where.items() if k in known or k in self.found.changed}
        config = {**describe(run.plan, run.recipe, run.settings), "places": places, "history": history}
        if self.place is not None:
            config["placement"] = self.place.to_dict()
        self.directory.write_config(sealed(config))


def _found_again(plan: Plan) -> tuple[Recipe, RunSettings, dict[str, Any]]:
    try:
        return resolve(plan)
    except UserError as error:
        if "there is no recipe" not in str(error):
            raise
        raise UserError(
            f"the recipe '{plan.recipe}' of this run cannot be found again; where it was made in Python, give it: "
            "etude.resume(run, recipe=...)"
        ) from error
