"""The pre-flight: a few groups are sampled before step 1, to see whether the objective would find anything to learn."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence

from etude.batch import pack
from etude.tasks.check import show
from etude.tasks.isolate import CheckError
from etude.train.collect import sample
from etude.train.diagnosis import Diagnosis
from etude.train.guards import check_errors, diagnosis_of
from etude.train.run import Run
from etude.train.step import alive_share
from etude.types import Group, Request, Task


def preflight(run: Run) -> Diagnosis:
    """Samples `run.preflight` tasks and asks what the objective would make of them. The run is left as it was, but for
    the tokens that this took. Raises Refused where too many attempts end in an error."""
    context = run.context
    drawn = context.drawn
    learning = {n: copy.deepcopy(part.state_dict()) for n, part in run.learning.items()}
    groups = sample(run, [Request() for _ in range(run.settings.preflight)], "preflight")
    context.drawn = drawn
    check_errors(run, groups)
    kept = run.filter([g for g in groups if g.episodes or g.demonstrations], context)
    signals = run.credit(kept, context)
    alive = alive_share(pack(signals, context.sampling), run.objective)
    for name, state in learning.items():  # what the stages learned from these groups is forgotten
        run.learning[name].load_state_dict(state)
    return diagnosis_of(
        run, groups, alive, idle=run.learner.idle(run.plan.budget.steps), rejected=rejected(run, groups)
    )


def rejected(run: Run, groups: Sequence[Group]) -> str:
    """Of the tasks that no attempt passed, those whose own check rejects their gold answer, in words: they can never be
    solved."""
    asked = [g.task for g in groups if not any(e.correct for e in g.episodes)]
    asked = [t for t in asked if t.answer is not None and t.environment is None]

    async def accepts(task: Task) -> bool:
        try:
            return (await run.pool.check(task.check, show(task, task.answer or ""))).correct
        except CheckError:
            return False

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(accepts(task) for task in asked))

    wrong = [t for t, right in zip(asked, run.loop.run(all_of_them()), strict=True) if not right]
    if not wrong:
        return ""
    prompt, gold = (
        " ".join(text.split())[:60] for text in (wrong[0].prompt[-1].content, wrong[0].answer or "")
    )
    return (
        f"the check of {len(wrong)} of {len(groups)} tasks rejects the task's own gold answer "
        f"('{gold}' to '{prompt}', for one)"
    )
