"""A run: its models, stages, directory, budget and guards. `train.loop` moves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etude.evaluate.result import EvalResult
from etude.event_loop import EventLoop
from etude.models.policy import Policy
from etude.objective.terms import Objective
from etude.recipe import STAGES, Recipe
from etude.report.health import Health
from etude.report.run import RunDirectory
from etude.rollout.conversation import CheckRunner, Generator
from etude.scale.place import Place
from etude.stages import Credit, Curriculum, Filter, GroupRolloutStage, Reward, Rollout
from etude.tasks import TaskSet
from etude.tasks.content import contents, plain
from etude.tasks.isolate import Pool
from etude.tasks.source import digest
from etude.tools.kit import Kit
from etude.train import checkpoint, guards, shards
from etude.train.config import Plan
from etude.train.context import RunContext
from etude.train.drift import Drift
from etude.train.examine import examined, examined_start
from etude.train.identity import arithmetic
from etude.train.meters import Metered
from etude.train.metrics import lengths, step_metrics
from etude.train.put import write_asking
from etude.train.rescore import rescored
from etude.train.settings import RunSettings
from etude.train.step import Learner
from etude.train.validation import BEST_KIND, validate
from etude.types import Array, Episode, Group, Signal, Task
from etude.update import Update

DRIFT_EVERY = 20  # steps between measurements of the distance from the starting weights
AUDIT = 20  # steps between those in which sampler and trainer are compared
OnStep = Callable[[int, dict[str, Any]], None]
Beside = Callable[[Policy, Generator, Sequence[Group]], Mapping[str, Any]]
"""Measures more at an evaluation: (policy, generator, attempts) -> what is written beside the accuracy."""
RewardFunction = Callable[[Episode], Any] | str | Sequence[Any]
"""A function of an episode (`reward.function.from_function`), or parts (`reward.parts.read`)."""


@dataclass(frozen=True)
class Collected:
    """What a step is trained on, and when it was sampled: while which step was trained, by which version of the policy."""

    groups: list[Group]
    drawn: list[Group]
    step: int
    version: int


@dataclass
class Run(Metered):
    """Built by `train.setup.start` or `train.setup.resume`; `train.loop.train` moves it. The stages are fields of the
    same names."""

    plan: Plan
    settings: RunSettings
    recipe: Recipe
    directory: RunDirectory
    context: RunContext
    tasks: TaskSet
    curriculum: Curriculum
    rollout: Rollout
    group_rollout: GroupRolloutStage
    reward: Reward
    filter: Filter
    credit: Credit
    objective: Objective
    update: Update
    generator: Generator
    generators: dict[str, Generator]
    check_runner: CheckRunner
    pool: Pool
    kit: Kit  # what the policy may call
    loop: EventLoop
    holdout: list[Task]
    validation: list[Task]  # apart from both training and `holdout`; empty where nothing is decided on them
    origin: str  # where the model lies that the run began with
    identity: dict[str, str]  # of that model (`train.identity`)
    times: dict[str, float]  # seconds by use, of the step in progress; "begin": when it began
    place: Place | None = None  # where engines sample and ranks train; None: this process does both
    on_step: OnStep | None = None
    stopping: Callable[[], bool] = lambda: False  # asked after every step
    on_examined: Callable[[int, int], None] | None = (
        None  # hears how many problems of an evaluation are done, of how many
    )
    beside: Beside | None = None
    health: Health = field(default_factory=Health)
    drift: Drift = field(default_factory=Drift)
    spent: dict[str, float] = field(default_factory=lambda: {"seconds": 0.0, "barren": 0.0, "generated": 0.0})
    ended: str = ""  # why the run ended before its budget did
    own_reward: Any = None  # the user's function or parts, where the reward stage is made of them
    best: dict[str, Any] | None = (
        None  # the step with the best accuracy on `validation`, and what it had cost
    )
    ahead: Collected | None = None  # of the next step, where run.lag is 1
    recent: list[tuple[int, int]] = field(default_factory=list)  # of the last steps: (failed, all) attempts

    @property
    def stages(self) -> Mapping[str, Any]:
        """The built stages by name. To replace one, assign the field."""
        return MappingProxyType({name: getattr(self, name) for name in STAGES})

    @property
    def learner(self) -> Learner:
        return self.context.learner

    @property
    def policies(self) -> list[Any]:
        """The policy, the auxiliary models, and the models of the reward."""
        held = [getattr(c, "policy", c) for c in (self.learner, *self.context.auxiliary.values())]
        return [*held, *getattr(self.reward, "policies", ())]

    @cached_property
    def contents(self) -> dict[str, str]:
        """Hashes of the tasks, by what of them it is; and of the user's reward function."""
        reward = {"reward": digest(plain(self.own_reward))} if self.own_reward else {}
        return {**self.tasks.contents(), **reward}

    @property
    def finished(self) -> bool:
        return bool(self.ended) or self.context.progress >= 1.0

    @property
    def ending(self) -> str:
        """Why the run is over."""
        if not self.ended and self.context.step <= self.update.warmup > 0:
            return (
                f"budget spent within the warm-up of {self.update.warmup} steps: the learning rate never arrived at "
                f"{self.update.lr:g}"
            )
        return self.ended or "budget spent"

    def recording(self) -> AbstractContextManager[None]:
        """What is sampled inside is kept for the gradient, but for one step in `AUDIT`: there the trainer computes it
        again, and the two are compared. Nothing that was sampled before is reused, so that a run that was resumed here
        costs the same."""
        for policy in self.policies[1:]:
            policy.forget()
        ours = self.place is None and not self.settings.lag and self.context.step % AUDIT != 0
        kept: AbstractContextManager[None] = self.learner.policy.recording(ours)
        return kept

    # ---- what a step leaves behind -------------------------------------------------------------------

    def tell(self, drawn: Sequence[Group], signals: Sequence[Signal]) -> None:
        """What the step brought, to every stage that has `observe`: the curriculum, a memory."""
        for part in self.stages.values():
            if hasattr(part, "observe"):
                part.observe(drawn, signals, self.context)

    def fix_start(self, drawn: Sequence[Group]) -> None:
        """Notes what the starting weights say of a few tokens (`train.drift`)."""
        with self.uncharged():
            self.drift.begin(self.context, drawn)

    def record(
        self,
        groups: Sequence[Group],
        drawn: Sequence[Group],
        signals: Sequence[Signal],
        learnt: dict[str, float],
    ) -> None:
        """Writes the step down, advances the budget and watches the run's health."""
        metrics = step_metrics(drawn, learnt) | lengths(drawn, signals)
        guards.remember(self, drawn)
        self.charge(metrics)
        for name, part in self.stages.items():
            if report := part.report() if hasattr(part, "report") else None:
                metrics[name] = report
        step = self.context.step
        if self.settings.rescore_every and (step - 1) % self.settings.rescore_every == 0:
            with self.uncharged():
                signals, found = rescored(self.context, drawn, signals)
            metrics |= found
        if step % DRIFT_EVERY == 0:
            with self.uncharged():
                metrics |= self.drift.measure(self.context)
        if self.validation and (step % self.settings.validate_every == 0 or self.context.progress >= 1):
            metrics |= validate(self)
        news = [n for part in self.stages.values() if hasattr(part, "news") for n in part.news()]
        self.directory.write_step(step, metrics, signals, drawn, self.decode, news)
        for finding in self.health.observe(step, metrics, labelled=not self.settings.unlabelled):
            self.directory.write_finding(finding.to_dict())
        alive = metrics["signal_tokens"]
        self.spent["barren"] = 0.0 if alive > 0 else self.spent["barren"] + 1
        if self.on_step:
            self.on_step(step, metrics)
        if self.spent["barren"] >= self.settings.patience:
            guards.stop_barren(self, drawn, alive, metrics)

    def decode(self, tokens: Array) -> str:
        """int32[n] tokens as text, special tokens included."""
        text: str = self.learner.policy.tokenizer.decode(tokens, special=True)
        return text

    @property
    def evaluation_due(self) -> bool:
        """Whether this step crossed one of the `evals` marks that lie evenly within the budget."""
        before, now = self.spent.get("progress", 0.0), self.context.progress
        self.spent["progress"] = now
        parts = self.settings.evals + 1
        return now < 1 and int(now * parts) > int(before * parts)

    def checkpoint(self) -> None:
        """Saves all state. The newest checkpoint of a sound policy stays, however long ago that was."""
        place = self.directory.path / "checkpoints"
        ranks = self.place.ranks if self.place is not None else None
        more = None if ranks is None else partial(shards.write, ranks)
        state = self.state_dict()
        checkpoint.save(place, self.context.step, state, sound=self.health.last_good - 1, more=more)
        checkpoint.remain(place, {self.best["step"]} if self.best else set(), BEST_KIND)

    @property
    def learning(self) -> dict[str, Any]:
        """Stages and auxiliary models with a state."""
        named = {**self.stages, **self.context.auxiliary}
        return {n: part for n, part in named.items() if hasattr(part, "state_dict")}

    # ---- evaluation and state ------------------------------------------------------------------------

    def evaluate(self, rule: str, spent: Mapping[str, Any] | None = None) -> EvalResult:
        """Held-out accuracy of the policy now, by single attempts, appended to evals.jsonl. `rule` says by which rule
        these weights were chosen (`evaluate.result.Card`), `spent` what had been spent when they were made (default: all
        until now). What it costs is kept apart from the run's budget."""
        found = examined(self, self.learner.policy, self.generator, rule, spent or self.spent_so_far())
        if self.settings.unlabelled and rule in ("during", "last"):
            finding = self.health.examined(self.context.step, found.mean.mean)
            if finding is not None:
                self.directory.write_finding(finding.to_dict())
        return found

    def evaluate_start(self) -> EvalResult:
        """The evaluation "before", of the weights that the run began with, however far it is now."""
        return self.evaluate("before") if self.context.step == 0 else examined_start(self)

    @property
    def arithmetic(self) -> dict[str, str]:
        """What decides the bits of this run's computations."""
        count = self.place.count if self.place is not None else 1
        return {**arithmetic(self.learner.policy.device), **({"ranks": str(count)} if count > 1 else {})}

    def state_dict(self) -> dict[str, Any]:
        return {
            "config": self.directory.config,
            "arithmetic": self.arithmetic,
            "model": self.identity,
            "holdout": {"keys": [task.key for task in self.holdout], **contents(self.holdout)},
            "best": self.best,
            "step": self.context.step,
            "drawn": self.context.drawn,
            "progress": self.context.progress,
            "spent": dict(self.spent),
            "ended": self.ended,
            "learner": shards.brief(self.learner),
            "stages": {k: shards.brief(v) for k, v in self.learning.items()},
            "meters": [policy.meter for policy in self.policies],
            "health": self.health,
            "drift": self.drift,
            "tasks": self.contents,
            "ahead": self.ahead,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.context.step, self.context.drawn = state["step"], state["drawn"]
        self.context.progress, self.ended = state["progress"], state["ended"]
        self.spent, self.health = dict(state["spent"]), state["health"]
        folder = state.get("folder", Path())
        shards.put_back(self.learner, state["learner"], folder)
        for name, value in state["stages"].items():
            shards.put_back(self.learning[name], value, folder)
        self.drift, self.best = state["drift"], state["best"]
        self.ahead = state.get("ahead")
        for policy, meter in zip(self.policies, state["meters"], strict=True):
            policy.meter = meter

    def save_model(self) -> Path:
        path = self.directory.path / "model"
        self.learner.policy.save(path)
        write_asking(path, self.directory.config)
        return path

    def close(self) -> None:
        self.directory.release()
        self.kit.close()
        self.pool.close()
        if self.place is not None:
            self.loop.run(self.place.close())
        self.loop.close()
