"""Measuring a policy on held-out tasks, with the same rollouts and checkers as in training."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from etude import __version__, seeds
from etude.errors import UserError
from etude.evaluate.abstention import Abstaining
from etude.evaluate.result import Card
from etude.machine import commit
from etude.models.policy import Policy
from etude.rollout.basic import single
from etude.rollout.conversation import CheckRunner, Generator
from etude.rollout.group_rollout import GroupRollout, checked, independent, verdict
from etude.stages import Reward, Rollout
from etude.tasks import TaskSet
from etude.tasks.check import CheckError, judged, strict
from etude.tasks.extract import extract
from etude.tasks.files import Listed
from etude.tasks.isolate import Pool
from etude.text.chat_template import Renderer
from etude.types import Episode, Group, Request, SamplingParams, Task

EVAL_SAMPLING = 0  # evaluations of all runs and seeds meet the problems with the same random numbers
EVAL_SEED = 0  # held-out tasks are the same for every seed of a run, so that seeds can be compared
TUNING_SEED = 1


def hold_out(tasks: TaskSet, problems: int, tuning: bool = False) -> list[Task]:
    """The evaluation tasks; of finite sources at most those that were set aside (every result says how many), without
    those that have nothing to check. With `tuning`, as many other tasks, which are not trained on in that run; of finite
    sources at most a quarter of what there is to train on."""
    finite = [len(s.tasks("eval")) for s in tasks.sources if isinstance(s, Listed)]
    most = sum(finite) if len(finite) == len(tasks.sources) else problems
    held = tasks.holdout(min(problems, most), EVAL_SEED) if problems else []
    held = [task for task in held if judged(task)]
    if not tuning:
        return held
    if len(finite) == len(tasks.sources):
        return tasks.tuning(problems) if problems else []
    keys = {task.key for task in held}
    return [t for t in tasks.holdout(2 * problems, TUNING_SEED) if t.key not in keys][:problems]


def unrewarded(episode: Episode) -> dict[str, float]:
    """The reward of attempts that are looked at in another way, and need have no verdict."""
    return {"reward": episode.verdict.reward if episode.verdict else 0.0}


async def attempt(
    generator: Generator,
    check_runner: CheckRunner,
    tasks: Sequence[Task],
    samples: int,
    seed: int,
    rollout: Rollout | None = None,
    reward: Reward | None = None,
    told: Callable[[int, int], None] | None = None,
    generators: Mapping[str, Generator] | None = None,
) -> list[Group]:
    """Every task `samples` times. Keys depend on the seed and the task alone, so that the same problems are
    met with the same random numbers by every policy. `told`: hears after each task how many are done, of how many.
    `generators`: auxiliary models that the rollout may ask."""
    group_rollouts = [
        GroupRollout(
            task=task,
            request=Request(task=task),
            samples=samples,
            generator=generator,
            check_runner=check_runner,
            rollout=rollout or single(),
            reward=reward or verdict(),
            key=seeds.key(seed, "eval", task.key),
            generators=dict(generators or {}),
        )
        for task in tasks
    ]
    if generator.sampler is not None:
        await generator.sampler.refresh()
    done = 0

    async def one(rollouts: GroupRollout) -> Group:
        nonlocal done
        group = await rollouts.group(independent())
        done += 1
        if told is not None:
            told(done, len(group_rollouts))
        return group

    return list(await asyncio.gather(*map(one, group_rollouts)))


def last_reply(episode: Episode, renderer: Renderer) -> str:
    """The text of what was sampled last, without the stop string that ended it."""
    text = renderer.decode([s.tokens for s in episode.spans if s.sampled][-1])
    return episode.text if episode.text and text.startswith(episode.text) else text


def answers(renderer: Renderer) -> Callable[[Episode], str | None]:
    """What an episode answered, as its checker reads it: for majority votes."""

    def answer(episode: Episode) -> str | None:
        sampled = [s.tokens for s in episode.spans if s.sampled]
        if not sampled or episode.task.environment is not None:
            return None
        text = episode.text or last_reply(episode, renderer)
        if read := getattr(episode.task.check, "read", None):
            return cast(str | None, read(text))
        rule = getattr(episode.task.check, "extract", None)
        return extract(text, rule) if isinstance(rule, str) else text.strip()

    return answer


def abstaining(words: Sequence[str], measure: str, renderer: Renderer) -> Abstaining | None:
    """What `run.abstain` and `run.confidence` ask for; None where no words abstain."""
    return Abstaining(tuple(words), measure, answers(renderer)) if words else None


async def strictly(groups: Sequence[Group], renderer: Renderer, pool: Pool) -> float | None:
    """The share of episodes whose last reply passes a second, stricter check as well: a reward that rises while
    this falls is being gamed. Answers on which the check fails with an error count nowhere. None for environments, and
    where a check has no stricter variant."""
    passed = asked = 0
    for group in groups:
        if group.task.environment is not None:
            return None
        try:
            check = strict(group.task.check)
        except UserError:
            return None
        for episode in group.episodes:
            if not episode.correct:
                asked += 1
                continue
            try:
                passed += (await checked(pool, check, last_reply(episode, renderer))).correct
            except CheckError:
                continue
            asked += 1
    return passed / asked if asked else None


def card_of(tasks: str, model: str, policy: Policy, params: SamplingParams, seed: int, rule: str) -> Card:
    """The card of a result measured now."""
    return Card(
        name=tasks,
        model=model,
        seed=seed,
        sampling=params,
        prompt="chat template" if policy.tokenizer.template else "plain text",
        sampler=f"{type(policy.backbone).__name__} {policy.precision}, etude {__version__}",
        commit=commit(),
        rule=rule,
    )
