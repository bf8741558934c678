"""The loop: the only place where all stages meet.

curriculum -> rollout -> reward -> filter -> credit -> objective -> update
    ^                                                                  |
    +----------------------- observe ----------------------------------+
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from etude import seeds
from etude.reward.noise import without_noise
from etude.rollout.group_rollout import GroupRollout
from etude.train.context import RunContext, one_ahead
from etude.train.correction import corrected
from etude.train.guards import check_errors, check_rows
from etude.train.interrupt import Interrupted
from etude.train.run import Collected, Run
from etude.train.validation import validate_start
from etude.types import Group, Request, Signal


def train(run: Run) -> None:
    """Trains until the budget is spent, or until no step has carried any signal for `run.patience` steps. Raises
    Refused where too many episodes fail, or where the signal dries up although problems are left unsolved, Interrupted
    where `run.stopping` said so."""
    context, settings = run.context, run.settings
    validate_start(run)
    run.start_clock()
    while not run.finished:
        batch = run.ahead or collected(run, context)
        run.ahead = None
        if context.step == 0:
            run.fix_start(batch.drawn)
        with run.clock("train"):
            signals = run.credit(batch.groups, context)
            check_rows(run, signals)
            signals = context.completed(signals, run.objective.reads)
        learnt = learn(run, signals, batch)
        run.tell(batch.drawn, signals)
        context.step += 1
        run.record(batch.groups, batch.drawn, signals, learnt)
        if run.evaluation_due:  # before the checkpoint: a run cut off in it evaluates again at the same step
            run.evaluate("during")
        stopping = run.stopping() and not run.finished
        if stopping or context.step % settings.checkpoint_every == 0:
            run.checkpoint()
        if stopping:
            raise Interrupted(f"stopped after step {context.step}, which is kept")
    run.checkpoint()


def learn(run: Run, signals: Sequence[Signal], batch: Collected) -> dict[str, float]:
    """The update of a step, as metrics. Where `run.lag` is 1 the batch of the next step is sampled with the weights from before
    it: at the same time, where engines sample, else before it. Either way every number is the same."""
    context = run.context

    def update() -> dict[str, float]:
        with run.clock("train"):
            taught, found = list(signals), dict[str, float]()
            if kind := run.settings.corrects:
                bound, version = run.settings.correction_bound, batch.version
                taught, found = corrected(signals, context, kind, bound, version)
            return run.learner.learn(run.objective, taught, context.step, context.progress) | found

    if not run.settings.lag:
        return update()
    age = {"staleness": float(context.step - batch.step)}
    if run.plan.budget.steps is not None and context.step + 1 >= run.plan.budget.steps:
        return update() | age
    following = one_ahead(context)
    if run.place is None or not run.place.samples:
        run.ahead = collected(run, following)
        learnt = update()
    else:
        run.loop.run(run.generator.sampler.refresh())
        with ThreadPoolExecutor(1, "learner") as thread:  # whose end is waited for, whatever happens here
            learning = thread.submit(update)
            run.ahead = collected(run, following, refresh=False)
            learnt = learning.result()
    context.drawn = following.drawn
    return learnt | age


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
