"""What a measure sees: a model, problems to examine it on, and ways of asking it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from etude import seeds
from etude.evaluate.run import attempt, hold_out, unrewarded
from etude.event_loop import run as run_coroutine
from etude.models.policy import Policy
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.stages import Rollout
from etude.study.declare import Arm, Measured
from etude.tasks import TaskSet
from etude.tasks.isolate import Pool
from etude.train.settings import RunSettings
from etude.train.setup import task_set
from etude.types import Episode, Group, Task


@dataclass(frozen=True)
class Making:
    """What a study's `material` gets: where it writes, and what it may use."""

    place: Path
    model: str
    tasks: str
    settings: RunSettings
    problems: int
    samples: int
    open_model: Callable[[str], Policy]

    @cached_property
    def task_set(self) -> TaskSet:
        found = task_set(self.tasks)
        hold_out(found, self.problems)  # what is drawn from here on is none of the problems that decide
        return found

    def drawn(self, number: int, seed: int = 0) -> list[Task]:
        """Different tasks to train on."""
        return self.task_set.different(number, seed)

    def subject(self, pool: Pool, seed: int = 0) -> Subject:
        """The study's model, to be asked."""
        arm = Arm("material")
        return Subject(
            arm,
            seed,
            self.open_model(self.model),
            self.settings,
            self.task_set,
            self.problems,
            self.samples,
            self.place,
            pool,
        )


@dataclass(frozen=True)
class Subject:
    """One arm's model, with one seed. `problems` and `samples`: how many held-out problems, met how often each."""

    arm: Arm
    seed: int
    given_policy: Policy | None
    settings: RunSettings
    given_tasks: TaskSet | None
    problems: int
    samples: int
    material: Path
    pool: Pool

    @property
    def policy(self) -> Policy:
        if self.given_policy is None:
            raise TypeError("this study asks no model")
        return self.given_policy

    @property
    def tasks(self) -> TaskSet:
        if self.given_tasks is None:
            raise TypeError("this study has no tasks")
        return self.given_tasks

    @cached_property
    def generator(self) -> Generator:
        sampler = sampler_for(self.policy, self.settings.rows)
        limit = min(self.settings.context, self.policy.context)
        return Generator(sampler, self.policy.renderer, self.settings.exam, limit=limit)

    @cached_property
    def held(self) -> list[Task]:
        """The held-out problems, the same for every arm and seed."""
        return hold_out(self.tasks, self.problems)

    def drawn(self, number: int) -> list[Task]:
        """Different tasks, others for every seed, none of those held out."""
        assert self.held
        return self.tasks.different(number, seeds.key("study", self.seed) % 2**31)

    def attempts(
        self,
        tasks: Sequence[Task] | None = None,
        samples: int = 0,
        rollout: Rollout | None = None,
        **params: Any,
    ) -> list[Group]:
        """Every task (default: the held-out ones) `samples` times. `params`: of sampling, as in greedy=True."""
        generator = replace(self.generator, params=replace(self.generator.params, **params))
        checks = checks_in(self.pool, generator.sampler, {})
        asked = self.held if tasks is None else tasks
        number = samples or self.samples
        return run_coroutine(attempt(generator, checks, asked, number, self.seed, rollout, unrewarded))

    def noted(
        self, look: Callable[..., Any], tasks: Sequence[Task] | None = None, samples: int = 1, **params: Any
    ) -> Measured:
        """{name: {problem: mean}} of what the coroutine `look(task, conversation) -> {name: number}` finds in each attempt;
        a name that it leaves out does not count."""

        async def rollout(task: Task, conversation: Any) -> Episode:
            conversation.notes["found"] = dict(await look(task, conversation))
            return conversation.done()

        rows: dict[str, dict[str, list[float]]] = {}
        for group in self.attempts(tasks, samples, rollout, **params):
            if group.failed:
                raise RuntimeError(f"an attempt failed: {group.failed[0].failure}")
            for episode in group.episodes:
                for name, value in episode.notes["found"].items():
                    rows.setdefault(name, {}).setdefault(group.task.key, []).append(float(value))
        return {n: {k: sum(v) / len(v) for k, v in table.items()} for n, table in rows.items()}


def attempts(subject: Subject) -> Mapping[str, Any]:
    """accuracy, length (tokens), entropy (nats a token, of the tokens sampled), pass@k with k all of the samples, and cut (the
    share of replies that reached the limit), on the held-out problems."""
    return of_groups(subject.attempts())


def of_groups(groups: Sequence[Group]) -> Mapping[str, Any]:
    """The same of attempts that were made."""
    found: dict[str, dict[str, float]] = {
        name: {} for name in ("accuracy", "pass@k", "length", "cut", "entropy")
    }
    for group in groups:
        if not group.episodes:
            continue
        rights = [float(e.correct) for e in group.episodes]
        lengths = [int(e.sampled.sum()) for e in group.episodes]
        surprise = [-float(e.logp[e.sampled].mean()) for e in group.episodes if e.sampled.any()]
        key = group.task.key
        found["accuracy"][key] = sum(rights) / len(rights)
        found["pass@k"][key] = max(rights)
        found["length"][key] = sum(lengths) / len(lengths)
        found["cut"][key] = sum(e.stop == "length" for e in group.episodes) / len(rights)
        if surprise:
            found["entropy"][key] = sum(surprise) / len(surprise)
    return found
