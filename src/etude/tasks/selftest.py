"""Does a task's checker accept the right answer and reject a wrong one?"""

from __future__ import annotations

from collections.abc import Sequence

from etude.errors import UserError
from etude.tasks.check import blocking, corrupt, isolated, show
from etude.tasks.isolate import CheckError, Pool
from etude.tasks.settled import settled
from etude.types import Task, Verdict


def self_test(task: Task) -> None:
    """Gold must pass and a corrupted answer must fail; for an environment, its own solution must win (of one that says
    `may_lose`, as games do: come to the end) and doing nothing must not. Runs the check in this process. Raises UserError naming the source and the fault."""
    source = f"task source '{task.meta.get('source', task.kind)}', kind '{task.kind}'"
    if task.environment is not None:
        _environment(task, source)
        return
    if task.answer is None:
        raise UserError(f"{source}: the task has no gold answer to test its checker with")
    gold = _verdict(task, show(task, task.answer), source, "its gold answer")
    if not gold.correct:
        raise UserError(f"{source}: the checker rejects the gold answer '{_short(task.answer)}'")
    wrong = corrupt(task.answer)
    if _verdict(task, show(task, wrong), source, "a wrong answer").correct:
        raise UserError(
            f"{source}: the checker accepts '{_short(wrong)}' where '{_short(task.answer)}' is right"
        )


SLOW = 32  # checks that need a process of their own, of one file


def unmatched(tasks: Sequence[Task], slow: int = SLOW) -> list[tuple[int, str]]:
    """The tasks, by number, whose gold answer their own check does not accept, and a sentence's beginning about each. Of
    checks that run in another process at most `slow`, spread over all."""
    outside = [i for i, t in enumerate(tasks) if isolated(t.check) or blocking(t.check)]
    spread = set(outside[:: max(1, -(-len(outside) // slow))])
    left_out = set(outside) - spread
    found = []
    with Pool() as pool:
        for i, task in enumerate(tasks):
            if i in left_out or task.answer is None:
                continue
            try:
                if not pool.run(task.check, show(task, task.answer)).correct:
                    found.append((i, "the check rejects"))
            except CheckError as error:
                found.append((i, f"the check failed ({error}) on"))
    return found


def _verdict(task: Task, text: str, source: str, what: str) -> Verdict:
    try:
        return task.check(text)
    except Exception as error:
        raise UserError(f"{source}: the checker failed on {what}: {type(error).__name__}: {error}") from error


def _environment(task: Task, source: str) -> None:
    assert task.environment is not None
    solve = getattr(task.environment(0), "solve", None)
    if solve is None:
        raise UserError(f"{source}: the environment has no solve() to test it with")
    environment, verdict = task.environment(0), None
    for reply in solve():
        _, verdict = settled(environment.act(reply))
    chance = getattr(task.environment, "may_lose", False)
    if verdict is None or not (verdict.correct or chance):
        raise UserError(f"{source}: the environment's own solution does not win")
    environment, verdict, turns = task.environment(0), None, 0
    while verdict is None:
        _, verdict = settled(environment.act("nothing at all"))
        turns += 1
        if turns > 10_000:
            raise UserError(f"{source}: an agent that does nothing is never stopped")
    if verdict.correct:
        raise UserError(f"{source}: an agent that does nothing wins")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
