"""What is wrong with a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etude.data.filters import answered, different, held_out, nearly_different, question, repeats
from etude.data.items import Item, read
from etude.data.workshop import examined, losses
from etude.errors import UserError
from etude.text.near_duplicates import finder
from etude.train.measure import load_policy
from etude.types import Task


def check(file: str, against: str = "", model: str = "", near: float = 0.8) -> dict[str, Any]:
    """`etude data check`: what is wrong with a file, counted, with the first rows of each sort."""
    if not 0 < near <= 1:
        raise UserError(f"--near is {near}; it must lie above 0 and be at most 1")
    items = read(file)
    rows = {id(item): number for number, item in enumerate(items, 1)}
    found: dict[str, list[int]] = {}

    def note(name: str, bad: Sequence[Item]) -> None:
        if bad:
            found[name] = [rows[id(i)] for i in bad]

    def lost(keep: Callable[[Sequence[Item]], list[Item]], of: Sequence[Item]) -> list[Item]:
        stays = {id(i) for i in keep(of)}
        return [i for i in of if id(i) not in stays]

    note("empty", lost(answered, items))
    whole = answered(items)
    note("the same question and answer as an earlier row", lost(different, whole))
    single = different(whole)
    note(
        f"a question nearly that of an earlier row ({near:g} by MinHash)", lost(_near_questions(near), single)
    )
    note(
        "an answer that repeats itself",
        [i for i in whole if len(i.text.split()) > 20 and repeats(i.text) > 0.3],
    )
    held = examined(against)
    if held:
        note(f"asks what '{against}' asks", lost(held_out(held), items))
        note(f"asks nearly what '{against}' asks", _near_held(items, held, near))
    facts: dict[str, Any] = {
        "file": file,
        "items": len(items),
        "found": found,
        "provenance": sum("writer" in i.came for i in items),
    }
    if model:
        policy = load_policy(model)
        means = [float(x.mean()) for x in losses(policy, whole)]
        facts["nats_a_token"] = {
            "mean": sum(means) / len(means),
            "largest": max(means),
            "row": rows[id(whole[means.index(max(means))])],
        }
    return facts


def check_screen(facts: Mapping[str, Any]) -> str:
    lines = [f"{facts['file']}: {facts['items']} items, {facts['provenance']} of them say who wrote them"]
    for name, rows in facts["found"].items():
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        lines.append(f"{len(rows):6d}  {name} (row {shown})")
    if not facts["found"]:
        lines.append("nothing was found against it")
    if loss := facts.get("nats_a_token"):
        lines.append(
            f"the model's surprise: {loss['mean']:.2f} nats a token, most at row {loss['row']} ({loss['largest']:.2f})"
        )
    return "\n".join(lines)


def _near_questions(near: float) -> Callable[[Sequence[Item]], list[Item]]:
    """Rows of one question with several answers are no near-duplicates of each other."""

    def keep(items: Sequence[Item]) -> list[Item]:
        first: dict[str, Item] = {}
        for item in items:
            first.setdefault(question(item), item)
        stays = {question(i) for i in nearly_different(near)(list(first.values()))}
        return [i for i in items if question(i) in stays]

    return keep


def _near_held(items: Sequence[Item], held: Sequence[Task], near: float) -> list[Item]:
    """Those that nearly ask something of `held`, and not the same."""
    close, add = finder(near)
    for task in held:
        add(task.prompt[-1].content.casefold())
    return [i for i in held_out(held)(items) if close(i.prompt.casefold())]
