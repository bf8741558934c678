"""What stops a run: rows that nothing reads, episodes that fail too often, steps from which nothing can be learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etude.assembly import resolved_stages
from etude.channels import undeclared
from etude.errors import Refused, UserError
from etude.train import checkpoint
from etude.train.diagnosis import Diagnosis, Known, diagnose
from etude.types import Group, Signal

if TYPE_CHECKING:
    from etude.train.run import Run

GUARDED, FEW = 100, 20  # attempts of earlier steps that are looked at too, and below which none is alarming


def check_rows(run: Run, signals: Sequence[Signal]) -> None:
    """UserError where credit wrote a row that it does not declare (`etude.channels`): nothing would read it."""
    if name := undeclared(resolved_stages(run.recipe)["credit"], signals):
        raise UserError(
            f"{run.recipe.name}: credit writes the row '{name}', which it does not declare; see etude.channels.writes"
        )


def check_errors(run: Run, groups: Sequence[Group]) -> None:
    """Stops a run whose episodes fail with errors more often than is allowed, the last `GUARDED` attempts of earlier
    steps included; names the first error. In a small step one error alone would be more than is allowed."""
    failed = [e for g in groups for e in g.failed]
    total = len(failed) + sum(len(g.episodes) for g in groups)
    before = [sum(counts) for counts in zip(*run.recent, strict=True)] or [0, 0]
    lost, of = len(failed) + before[0], total + before[1]
    if failed and lost > run.settings.error_rate * max(of, FEW):
        first = failed[0].failure
        assert first is not None
        raise Refused(
            f"{lost} of {of} attempts failed with an error (allowed: {run.settings.error_rate:.0%}); "
            f"the first, in {first.where}: {first.error}\n{first.traceback}".rstrip()
        )


def remember(run: Run, drawn: Sequence[Group]) -> None:
    """Keeps how many attempts of this step failed, for `check_errors`."""
    failed = sum(len(g.failed) for g in drawn)
    run.recent.append((failed, failed + sum(len(g.episodes) for g in drawn)))
    while sum(n for _, n in run.recent[1:]) >= GUARDED:
        del run.recent[0]


def diagnosis_of(run: Run, groups: Sequence[Group], alive: float, **known: str) -> Diagnosis:
    """What these groups teach, with what is `Known` besides."""
    longest = run.generator.limit
    cure = (
        "raise run.context"
        if longest == run.settings.context
        else "the model takes no more; shorten the prompts"
    )
    context = f"{longest} tokens, the longest conversation; {cure}"
    decode = run.generator.renderer.decode
    facts = Known(run.settings.max_tokens, context, decode, run.own_reward is not None, **known)
    return diagnose(groups, alive, facts)


def stop_barren(run: Run, drawn: Sequence[Group], alive: float, metrics: Mapping[str, Any]) -> None:
    """Ends a run after `run.patience` steps without a signal. Refused, with the cause, where problems are left unsolved."""
    with run.uncharged():
        metrics = {**metrics, **run.drift.measure(run.context)}
    worse = run.health.degenerated(metrics)
    if worse:
        worse = (
            f"the model has degenerated since step {run.health.last_good}: {worse}; lower update.lr "
            f"({run.update.lr:g}), as in `etude resume {run.directory.path} --from {_sound_step(run)} "
            f"--set update.lr={run.update.lr / 10:g}`, which goes back to before"
        )
    found = diagnosis_of(run, drawn, alive, worse=worse)
    run.ended = f"no signal for {run.settings.patience} steps: {found.sentence}"
    if found.pass_rate < 0.9:
        run.checkpoint()
        raise Refused(f"stopped at step {run.context.step}, {run.ended}")


def _sound_step(run: Run) -> int:
    """The newest checkpoint from before the policy degenerated."""
    known = checkpoint.steps(run.directory.path / "checkpoints")
    return max((s for s in known if s < run.health.last_good), default=0)
