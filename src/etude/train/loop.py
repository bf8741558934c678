"""The loop: the only place where all stages meet.

curriculum -> rollout -> reward -> filter -> credit -> objective -> update
    ^                                                                  |
    +----------------------- observe ----------------------------------+
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from etude import seeds
from etude.reward.noise import without_noise
from etude.rollout.group_rollout import GroupRollout
from etude.train.run import Run
from etude.train.validation import validate_start
from etude.types import Group, Request


def train(run: Run) -> None:
    """Trains until the budget is spent, or until no step has carried any signal for `run.patience` steps. Raises
    Refused where too many episodes fail, or where the signal dries up although problems are left unsolved."""
    context, settings = run.context, run.settings
    validate_start(run)
    run.start_clock()
    while not run.finished:
        with run.clock("rollout"), run.recording():
            groups, drawn = collect(run)
        if context.step == 0:
            run.fix_start(drawn)
        with run.clock("train"):
            signals = run.credit(groups, context)
            run.check_rows(signals)
            signals = context.completed(signals, run.objective.reads)
            learnt = run.learner.learn(run.objective, signals, context.step, context.progress)
        run.tell(drawn, signals)
        context.step += 1
        run.record(groups, drawn, signals, learnt)
        if run.evaluation_due:  # before the checkpoint: a run cut off in it evaluates again at the same step
            run.evaluate("during")
        if context.step % settings.checkpoint_every == 0:
            run.checkpoint()
    run.checkpoint()


def collect(run: Run) -> tuple[list[Group], list[Group]]:
    """The groups to train on, and all that were drawn for them. Where the filter drops groups, more are drawn, up to
    `run.oversample` times `run.tasks_per_step`; a short batch is trained as it is. A filter that only chooses among
    what was drawn (`redraws` = False) is asked once."""
    wanted = run.settings.tasks_per_step
    most = round(wanted * run.settings.oversample)
    kept: list[Group] = []
    drawn: list[Group] = []
    while len(kept) < wanted and len(drawn) < most:
        requests = run.curriculum.next(min(wanted - len(kept), most - len(drawn)), run.context)
        new = sample(run, requests)
        drawn += new
        run.guard(drawn)
        kept += run.filter([g for g in new if g.episodes or g.demonstrations], run.context)
        if not getattr(run.filter, "redraws", True):
            break
    return kept, drawn


def sample(run: Run, requests: Sequence[Request], purpose: str = "train") -> list[Group]:
    """One group of scored episodes per request, sampled all at once. Deterministic: every random stream is keyed by
    `purpose`, step, task and episode."""
    context = run.context
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
        await run.generator.sampler.refresh()
        return list(await asyncio.gather(*(rollouts.group(run.group_rollout) for rollouts in group_rollouts)))

    return without_noise(run.loop.run(together()))
