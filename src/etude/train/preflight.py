"""The pre-flight: a few groups are sampled before step 1, to see whether the objective would find anything to learn."""

from __future__ import annotations

import copy

from etude.batch import pack
from etude.train.diagnosis import Diagnosis
from etude.train.loop import sample
from etude.train.run import Run
from etude.train.step import alive_share
from etude.types import Request


def preflight(run: Run) -> Diagnosis:
    """Samples `run.preflight` tasks and asks what the objective would make of them. The run is left as it was, but for
    the tokens that this took. Raises Refused where too many attempts end in an error."""
    context = run.context
    drawn = context.drawn
    learning = {n: copy.deepcopy(part.state_dict()) for n, part in run.learning.items()}
    groups = sample(run, [Request() for _ in range(run.settings.preflight)], "preflight")
    context.drawn = drawn
    run.guard(groups)
    kept = run.filter([g for g in groups if g.episodes or g.demonstrations], context)
    signals = run.credit(kept, context)
    alive = alive_share(pack(signals, context.sampling), run.objective)
    for name, state in learning.items():  # what the stages learned from these groups is forgotten
        run.learning[name].load_state_dict(state)
    return run.diagnose(groups, alive)
