"""Tasks of a source as a model will see them: prompt, gold, how it is checked, and whether the check knows right from wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etude.report.terminal import clean
from etude.tasks.check import corrupt, show
from etude.tasks.files import Listed
from etude.tasks.isolate import CheckError, Pool
from etude.tasks.row_checks import compared
from etude.tasks.task_set import TaskSet
from etude.text.chat_template import Renderer
from etude.types import Request, Task

LONGEST = 1200  # characters of a prompt that the terminal shows


def drawn(tasks: TaskSet, number: int) -> list[Task]:
    """The first `number` training tasks of seed 0; of a file all of them where it has fewer."""
    size = sum(len(s.tasks("train")) if isinstance(s, Listed) else number for s in tasks.sources)
    number = min(number, size)
    return [tasks.draw(Request(), index, 0) for index in range(number)]


def looked_at(tasks: Sequence[Task], renderer: Renderer | None = None) -> list[dict[str, Any]]:
    """A row a task. `renderer`: of the model that will read them; without one, messages are shown by their roles."""
    found = []
    with Pool() as pool:
        for task in tasks:
            right, wrong = ("", "") if task.environment is not None else _tried(pool, task)
            found.append(
                {
                    "kind": task.kind,
                    "level": task.difficulty,
                    "prompt": _seen(task, renderer),
                    "tokens": None
                    if renderer is None
                    else len(renderer.prompt(task.prompt, len(task.prompt))),
                    "gold": task.answer,
                    "check": "environment" if task.environment is not None else compared(task.check),
                    "gold_accepted": right,
                    "wrong_rejected": wrong,
                }
            )
    return found


def _tried(pool: Pool, task: Task) -> tuple[str, str]:
    """What the check says of the gold answer and of a corrupted one: "yes", "no" or what went wrong."""
    if task.answer is None:
        return "no gold to try", ""
    gold = task.answer if task.reference is None or "```" not in task.reference else task.reference
    said = []
    for answer, wanted in ((gold, True), (corrupt(task.answer), False)):
        try:
            said.append("yes" if pool.run(task.check, show(task, answer)).correct == wanted else "NO")
        except CheckError as error:
            said.append(f"the check failed: {error}")
    return said[0], said[1]


def _seen(task: Task, renderer: Renderer | None) -> str:
    if renderer is not None:
        return renderer.tokenizer.decode(renderer.prompt(task.prompt, len(task.prompt)), special=True)
    if len(task.prompt) == 1 and task.prompt[0].role == "user":
        return task.prompt[0].content
    return "\n".join(f"[{m.role}] {m.content}" for m in task.prompt)


def screen(rows: Sequence[dict[str, Any]]) -> str:
    """For a terminal."""
    parts = []
    for number, row in enumerate(rows, 1):
        tokens = "" if row["tokens"] is None else f", {row['tokens']} tokens"
        prompt = row["prompt"] if len(row["prompt"]) <= LONGEST else row["prompt"][:LONGEST] + " ..."
        head = f"{number}. {row['kind']}, level {row['level']:g}{tokens}"
        lines = [clean(head), *("    " + clean(line) for line in prompt.splitlines())]
        if row["check"] == "environment":
            lines.append("    = judged by its environment")
        else:
            gold = (row["gold"] or "").replace("\n", "\\n")
            lines.append(f"    = {clean(gold[:120])}")
            lines.append(
                f"    checked as {row['check']}; gold accepted: {row['gold_accepted']}; "
                f"wrong answer rejected: {row['wrong_rejected']}"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
