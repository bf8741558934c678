"""The loop: the only place where all stages meet.

curriculum -> rollout -> reward -> filter -> credit -> objective -> update
    ^                                                                  |
    +----------------------- observe ----------------------------------+
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from etude.train.collect import collected
from etude.train.context import one_ahead
from etude.train.correction import corrected
from etude.train.guards import check_rows
from etude.train.interrupt import Interrupted
from etude.train.run import Collected, Run
from etude.train.validation import validate_start
from etude.types import Signal


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
