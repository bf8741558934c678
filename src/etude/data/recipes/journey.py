"""Journey learning: solutions with the wrong turns that lead back, beside the same solutions without them.

O1 Replication Journey, Part 1 (arXiv 2410.18982). A tree of steps (lines) is grown for each problem. The shortcut is a path from its root
to a right answer; the journey visits wrong children of the path's nodes first, says that they lead nowhere, and comes back. Train on
shortcuts, then on journeys of the same seed, whose trees are the same:

    etude data make journey -m MODEL -t TASKS --set journey.form=shortcut --out shortcuts
    etude data make journey -m MODEL -t TASKS --out journeys
    etude data mix in_order shortcuts/data.jsonl journeys/data.jsonl --out stages
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from etude.data.filters import answered, different, unrepeating
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.types import Task

BACK = "This does not lead to the answer. Let me go back."


def steps_of(text: str) -> list[str]:
    """The lines of a reply that say something."""
    return [line for line in text.splitlines() if line.strip()]


def wrong_turn(step: str, completions: Sequence[tuple[list[str], bool]], wander: int) -> list[str]:
    """Of completions (steps, right) after a node whose path goes on with `step`: the first that begins otherwise and whose first step
    no right completion shares, at most `wander` steps of it; empty where there is none."""
    good = {steps[0] for steps, right in completions if right and steps}
    for steps, right in completions:
        if steps and not right and steps[0] != step and steps[0] not in good:
            return steps[:wander]
    return []


def told(path: Sequence[str], turns: Sequence[Sequence[str]], back: str) -> str:
    """The path, each of its steps after its wrong turn, if it has one."""
    lines: list[str] = []
    for step, turn in zip(path, turns, strict=True):
        lines += [*turn, back] if turn else []
        lines.append(step)
    return "\n".join(lines)


def journey(
    form: Annotated[str, Setting("what is written", choices=("journey", "shortcut"))] = "journey",
    tries: Annotated[int, Setting("attempts among which a right one is looked for", low=1, high=10_000)] = 4,
    width: Annotated[int, Setting("children sampled at each node of the path", low=1, high=100)] = 3,
    turns: Annotated[int, Setting("wrong turns of a journey at most, the first ones", low=1, high=100)] = 3,
    wander: Annotated[int, Setting("steps of a wrong turn at most", low=1, high=100)] = 2,
    back: Annotated[str, Setting("what is said at the end of a wrong turn")] = BACK,
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 0.7,
    top_p: Annotated[float, Setting("nucleus kept when sampling", low=0.01, high=1)] = 0.95,
) -> Callable[[Workshop], list[Item]]:
    """A right path of each problem, and what was tried beside it."""

    def make(shop: Workshop) -> list[Item]:
        tasks = shop.drawn(shop.wanted)
        how: dict[str, Any] = {"temperature": temperature, "top_p": top_p}
        found: list[tuple[Task, list[str]]] = []
        for mine in shop.attempts(tasks, tries, **how):
            good = next((e for e in mine if e.correct and steps_of(e.text)), None)
            if good is not None:
                found.append((good.task, steps_of(good.text)))
        nodes = [(task, path, i) for task, path in found for i in range(len(path)) for _ in range(width)]
        begun = [(task, "".join(f"{step}\n" for step in path[:i])) for task, path, i in nodes]
        said = shop.continued(begun, "children", **how)
        whole = [(task, text + rest) for (task, text), rest in zip(begun, said, strict=True)]
        rights = shop.judged(whole)
        children: dict[tuple[str, int], list[tuple[list[str], bool]]] = {}
        for (task, _, i), rest, right in zip(nodes, said, rights, strict=True):
            children.setdefault((task.key, i), []).append((steps_of(rest), right))
        items, turned = [], 0
        for task, path in found:
            wrong = [wrong_turn(step, children[task.key, i], wander) for i, step in enumerate(path)]
            first = [i for i, turn in enumerate(wrong) if turn][:turns]
            kept = [turn if i in first else [] for i, turn in enumerate(wrong)]
            turned += bool(first)
            text = told(path, kept if form == "journey" else [[] for _ in path], back)
            base = of_task(task, shop.spec).but(reference=text)
            items.append(base.noted(writer=shop.scribe("policy").name, steps=len(path), turns=len(first)))
        shop.sieve.items = items
        shop.sieve.counts.append(
            (f"problems with a right path (of which {turned} have a wrong turn)", len(tasks), len(items))
        )
        sieve = shop.sieve.through("empty ones", answered)
        return (
            sieve.through("solutions that repeat themselves", unrepeating())
            .through("the same", different)
            .items
        )

    return make


RECIPE = DataRecipe(
    name="journey",
    verb=MAKE,
    build=stage(journey),
    paper=Paper("O1 Replication Journey: A Strategic Progress Report -- Part 1", "2410.18982", 2024),
    idea="Solutions that show the way, wrong turns and all: a step that leads nowhere is tried, given up, and the right one taken. A model "
    "that learns from them learns to turn back, which one that sees only the shortest way does not.",
    departures=(
        "a step counts as wrong where its own completion misses the answer and no right completion begins with it; the paper asks a judge, "
        "and appends the judge's reason, in the place of which one sentence stands",
        "the path is one right attempt, and the tree is grown beside it; the paper grows it level by level",
        "no model smooths the joined text",
    ),
    needs=("policy", "answers"),
)
