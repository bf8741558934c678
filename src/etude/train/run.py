"""A run: a plan brought to life, with its directory, its checkpoints and its guards."""

from __future__ import annotations

import asyncio
import copy
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.batch import pack
from etude.errors import Refused, UserError
from etude.recipe import Recipe
from etude.report.health import Health
from etude.report.run import RunDirectory
from etude.rollout.conversation import Generator
from etude.train import checkpoint
from etude.train.config import Plan, RunSettings
from etude.train.context import Context
from etude.train.loop import play
from etude.train.metrics import step_metrics
from etude.train.preflight import Diagnosis, diagnose
from etude.train.rescore import rescored
from etude.train.step import alive_share
from etude.types import Group, Request, Signal

AUDIT = 20  # steps
Progress = Callable[[int, dict[str, Any]], None]


@dataclass
class Run:
    """Built by `train.setup.start` or `train.setup.resume`; `train.loop.train` moves it."""

    plan: Plan
    settings: RunSettings
    recipe: Recipe
    directory: RunDirectory
    context: Context
    tasks: Any
    stages: dict[str, Any]  # the built stages by name
    generator: Generator
    generators: dict[str, Generator]
    check_runner: Any
    pool: Any
    loop: asyncio.AbstractEventLoop
    holdout: list[Any]
    on_step: Progress | None = None
    health: Health = field(default_factory=Health)
    spent: dict[str, float] = field(default_factory=lambda: {"seconds": 0.0, "barren": 0.0, "generated": 0.0})
    times: dict[str, float] = field(default_factory=dict)
    ended: str = ""  # why the run ended before its budget did

    def __getattr__(self, name: str) -> Any:
        """`run.credit` is the stage of that name."""
        try:
            return self.__dict__["stages"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def learner(self) -> Any:
        return self.context.learner

    @property
    def policies(self) -> list[Any]:
        """The policy and its companions."""
        return [getattr(c, "policy", c) for c in (self.learner, *self.context.auxiliary.values())]

    @property
    def finished(self) -> bool:
        return bool(self.ended) or self.context.progress >= 1.0

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - begin

    def recording(self) -> AbstractContextManager[None]:
        """Sampling is kept for the gradient, but for one step in `AUDIT`: there, sampler and trainer are compared. Nothing
        that was sampled before is at hand, so that a run that was resumed here costs the same."""
        for companion in self.policies[1:]:
            companion.forget()
        kept: AbstractContextManager[None] = self.learner.policy.recording(self.context.step % AUDIT != 0)
        return kept

    # ---- what a step leaves behind -------------------------------------------------------------------

    def tell(self, drawn: Sequence[Group], signals: Sequence[Signal]) -> None:
        """What happened, to every stage that wants to hear of it: the curriculum, a memory."""
        for part in self.stages.values():
            if hasattr(part, "observe"):
                part.observe(drawn, signals)

    def record(
        self,
        groups: Sequence[Group],
        drawn: Sequence[Group],
        signals: Sequence[Signal],
        learnt: dict[str, float],
    ) -> None:
        """Writes the step down, advances the budget and watches the run's health."""
        metrics = step_metrics(drawn, learnt)
        self._spend(metrics)
        for name, part in self.stages.items():
            if report := part.report() if hasattr(part, "report") else None:
                metrics[name] = report
        step = self.context.step
        if self.settings.rescore_every and (step - 1) % self.settings.rescore_every == 0:
            signals, metrics["rescored"] = rescored(self.context, drawn, signals)
            self.times["begin"] = time.perf_counter()  # charged to no budget
        self.directory.write_step(step, metrics, signals, drawn, self.decode)
        for finding in self.health.observe(step, metrics):
            self.directory.write_finding(finding.to_dict())
        alive = metrics["signal_tokens"]
        self.spent["barren"] = 0.0 if alive > 0 else self.spent["barren"] + 1
        if self.on_step:
            self.on_step(step, metrics)
        if self.spent["barren"] >= self.settings.patience:
            self._stalled(drawn, alive)

    def decode(self, tokens: Any) -> str:
        """Tokens as text, special tokens included."""
        return self.learner.policy.tokenizer.decode(tokens, special=True)

    def _spend(self, metrics: dict[str, Any]) -> None:
        now = time.perf_counter()
        whole = now - self.times.pop("begin", now)
        self.times["begin"] = now
        rollout, check, train = (self.times.pop(k, 0.0) for k in ("rollout", "check", "train"))
        self.spent["seconds"] += whole
        other = max(0.0, whole - rollout - train)
        split = {"rollout": rollout - check, "check": check, "train": train, "other": other}
        metrics |= {f"time/{k}": v for k, v in split.items()}
        tokens, flops = self.cost()
        generated = tokens["generated"] - self.spent["generated"]
        self.spent["generated"] = tokens["generated"]
        metrics |= {f"tokens/{k}": v for k, v in tokens.items()}
        metrics |= {
            "tokens_per_second": generated / rollout if rollout else 0.0,
            "flops": flops,
            "seconds": self.spent["seconds"],
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        used = tokens["generated"] + tokens["trained"]
        self.context.progress = self.plan.budget.progress(
            self.context.step, self.spent["seconds"], used, flops
        )

    def cost(self) -> tuple[dict[str, float], float]:
        """Tokens by use, and model FLOPs (2N a token forward, 6N a token trained), companions included."""
        meters = [p.meter for p in self.policies]
        names = ("generated", "prefilled", "scored", "trained")
        return {n: float(sum(getattr(m, n) for m in meters)) for n in names}, float(
            sum(m.flops for m in meters)
        )

    @property
    def evaluation_due(self) -> bool:
        """Whether this step crossed one of the `evals` marks that lie evenly within the budget."""
        before, now = self.spent.get("progress", 0.0), self.context.progress
        self.spent["progress"] = now
        parts = self.settings.evals + 1
        return now < 1 and int(now * parts) > int(before * parts)

    def checkpoint(self) -> None:
        checkpoint.save(self.directory.path / "checkpoints", self.context.step, self.state_dict())

    # ---- guards --------------------------------------------------------------------------------------

    def guard(self, groups: Sequence[Group]) -> None:
        """Stops a run whose episodes fail with errors more often than is allowed; names the first error."""
        failed = [e for g in groups for e in g.failed]
        total = len(failed) + sum(len(g.episodes) for g in groups)
        if total and len(failed) / total > self.settings.error_rate:
            first = failed[0].failure
            assert first is not None
            raise Refused(
                f"{len(failed)} of {total} attempts failed with an error (allowed: {self.settings.error_rate:.0%}); "
                f"the first, in {first.where}: {first.error}\n{first.traceback}".rstrip()
            )

    def preflight(self) -> Diagnosis:
        """Plays a few groups before step 1 and asks what the objective would make of them."""
        requests = [Request() for _ in range(self.settings.preflight)]
        drawn = self.context.drawn
        learning = {n: copy.deepcopy(part.state_dict()) for n, part in self._learning.items()}
        groups = play(self, requests, "preflight")
        self.context.drawn = drawn
        self.guard(groups)
        kept = self.filter([g for g in groups if g.episodes or g.demonstrations], self.context)
        signals = self.credit(kept, self.context)
        alive = alive_share(pack(signals, self.context.sampling), self.objective)
        for name, state in learning.items():  # what the rehearsal taught is forgotten
            self._learning[name].load_state_dict(state)
        return self.diagnose(groups, alive)

    @property
    def _learning(self) -> dict[str, Any]:
        """Stages and companions with a state."""
        named = {**self.stages, **self.context.auxiliary}
        return {n: part for n, part in named.items() if hasattr(part, "state_dict")}

    def diagnose(self, groups: Sequence[Group], alive: float) -> Diagnosis:
        return diagnose(groups, alive, self.settings.max_tokens, self.generator.renderer.decode)

    def _stalled(self, drawn: Sequence[Group], alive: float) -> None:
        found = self.diagnose(drawn, alive)
        self.ended = f"no signal for {self.settings.patience} steps: {found.sentence}"
        if found.pass_rate < 0.9:
            self.checkpoint()
            raise Refused(f"stopped at step {self.context.step}, {self.ended}")

    # ---- evaluation and state ------------------------------------------------------------------------

    def evaluate(self, rule: str) -> Any:
        """Held-out accuracy now, written to evals.jsonl. `rule` says by which rule this moment was chosen."""
        from etude.evaluate.run import evaluate_run

        result = evaluate_run(self, rule)
        self.times["begin"] = time.perf_counter()  # evaluation is not charged to the run
        return result

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.context.step,
            "drawn": self.context.drawn,
            "progress": self.context.progress,
            "spent": dict(self.spent),
            "ended": self.ended,
            "learner": self.learner.state_dict(),
            "stages": {k: v.state_dict() for k, v in self._learning.items()},
            "meters": [
                getattr(c, "policy", c).meter for c in (self.learner, *self.context.auxiliary.values())
            ],
            "health": self.health,
            "tasks": self.tasks.fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["tasks"] != self.tasks.fingerprint():
            raise UserError(
                f"the tasks '{self.plan.tasks}' are not those that the run was started with; "
                "restore them, or start a new run"
            )
        self.context.step, self.context.drawn = state["step"], state["drawn"]
        self.context.progress, self.ended = state["progress"], state["ended"]
        self.spent, self.health = dict(state["spent"]), state["health"]
        self.learner.load_state_dict(state["learner"])
        for name, value in state["stages"].items():
            self._learning[name].load_state_dict(value)
        for owner, meter in zip(
            (self.learner, *self.context.auxiliary.values()), state["meters"], strict=True
        ):
            getattr(owner, "policy", owner).meter = meter
        self.directory.truncate(self.context.step)

    def save_model(self) -> Path:
        path = self.directory.path / "model"
        self.learner.policy.save(path)
        return path

    def close(self) -> None:
        self.pool.close()
        self.loop.close()
