"""What a step is trained on: tasks are drawn, attempted all at once, scored and filtered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from etude import seeds
from etude.reward.noise import without_noise
from etude.rollout.group_rollout import GroupRollout
from etude.train.context import RunContext
from etude.train.guards import check_errors
from etude.train.run import Collected, Run
from etude.types import Group, Request


def collected(run: Run, context: RunContext, refresh: bool = True) -> Collected:
    """The batch of the step that `context` stands at."""
    version = run.learner.policy.version
    with run.clock("rollout"), run.recording():
        groups, drawn = collect(run, context, refresh)
    return Collected(groups, drawn, run.context.step, version)


def collect(
    run: Run, context: RunContext | None = None, refresh: bool = True
) -> tuple[list[Group], list[Group]]:
    """The groups to train on, and all that were drawn for them. Where the filter drops groups, more are drawn, up to
    `run.oversample` times `run.tasks_per_step`; a short batch is trained as it is. A filter that only chooses among
    what was drawn (`redraws` = False) is asked once. `context`: other than the run's where sampling is ahead."""
    context = context or run.context
    wanted = run.settings.tasks_per_step
    most = round(wanted * run.settings.oversample)
    kept: list[Group] = []
    drawn: list[Group] = []
    while len(kept) < wanted and len(drawn) < most:
        requests = run.curriculum.next(min(wanted - len(kept), most - len(drawn)), context)
        new = sample(run, requests, context=context, refresh=refresh)
        drawn += new
        check_errors(run, drawn)
        kept += run.filter([g for g in new if g.episodes or g.demonstrations], context)
        if not getattr(run.filter, "redraws", True):
            break
    return kept, drawn


def sample(
    run: Run,
    requests: Sequence[Request],
    purpose: str = "train",
    context: RunContext | None = None,
    refresh: bool = True,
) -> list[Group]:
    """One group of scored episodes per request, sampled all at once. Deterministic: every random stream is keyed by
    `purpose`, step, task and episode. `refresh`: with the policy's weights as they are now, else as they were when the sampler
    was last refreshed."""
    context = context or run.context
    group_rollouts = []
    for request in requests:
        index, context.drawn = context.drawn, context.drawn + 1
        task = run.tasks.draw(request, index, context.seed)
        group_rollouts.append(
            GroupRollout(
                task=task,
                request=request,
                samples=request.samples or run.settings.group_size,
                generator=run.generator,
                check_runner=run.check_runner,
                rollout=run.rollout,
                reward=run.reward,
                key=seeds.key(context.seed, purpose, context.step, index, task.key),
                progress=context.progress,
                generators=run.generators,
                admits=lambda task: not run.tasks.held(task),
            )
        )

    async def together() -> list[Group]:
        if refresh:
            await run.generator.sampler.refresh()
        return list(await asyncio.gather(*(rollouts.group(run.group_rollout) for rollouts in group_rollouts)))

    return without_noise(run.loop.run(together()))
