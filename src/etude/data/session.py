"""Making, choosing and mixing data: from names to files with a card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude import __version__
from etude.data import card as cards
from etude.data.filters import Sieve, held_out
from etude.data.items import Item, read, write
from etude.data.recipe import CHOOSE, MAKE, MIX, DataRecipe, find
from etude.data.workshop import HELD, Scribe, Workshop, examined, scribe
from etude.errors import UserError
from etude.evaluate.run import hold_out
from etude.files import write_atomically
from etude.machine import commit
from etude.models.policy import Policy
from etude.printable import Say
from etude.settings import Stage
from etude.tasks import TaskSet
from etude.tasks.check import Unjudged
from etude.tasks.isolate import Pool
from etude.tasks.rows import names_file
from etude.train.measure import load_policy
from etude.train.settings import RunSettings, run_settings
from etude.train.setup import kit_of, task_set
from etude.types import Message, Task

NOTHING = TaskSet.of([Task((Message("user", "-"),), Unjudged())])
"""The tasks of a recipe that reads none."""


@dataclass(frozen=True)
class Order:
    """What is asked of a recipe of data, whichever its verb. `wanted`: how many items. `against`: what nothing may be asked of.
    `changes`: RECIPE.NAME or run.NAME -> text. `licences`: source -> as it states."""

    recipe: str
    out: Path
    wanted: int = 100
    against: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    licences: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    say: Say = print

    def build(self, verb: str) -> Build:
        """The recipe as it was asked for. UserError for what it does not know, and where something is in `out` already."""
        recipe, out = find(self.recipe, verb), self.out
        if out.exists() and (not out.is_dir() or any(out.iterdir())) and not self.overwrite:
            raise UserError(f"'{out}' exists already; name a new directory, or give --overwrite")
        settings, run = _settings(recipe, self.changes)
        stage = recipe.build.but(**settings)
        return Build(recipe, stage, stage.build(self.recipe), run)

    def finished(self, made: Build, shop: Workshop, items: Sequence[Item], source: str) -> dict[str, Any]:
        """Keeps held-out questions out, stamps every item, and writes files and card."""
        last = Sieve(list(items), shop.sieve.counts)
        last.through("what is not held out for evaluation", held_out(shop.held))
        cut = [shop.cut_off] if shop.cut_off else []
        if not last.items:
            left = "; ".join(f"{says}: {after} of {before}" for says, before, after in last.counts)
            raise UserError(f"{self.recipe} left no item at all ({'; '.join([left, *cut])})")
        stamped = [i.noted(recipe=self.recipe, seed=self.seed) for i in last.items]
        files = write(stamped, self.out)
        facts = _card(self, made, last, stamped, [source])
        _write_card(facts, self.out)
        for sentence in cut:
            self.say(sentence)
        self.say(f"{len(stamped)} items: {', '.join(map(str, files))}; card: {self.out / 'card.md'}")
        return facts


@dataclass(frozen=True)
class Build:
    """A recipe, its settings, what it does, and how models run."""

    recipe: DataRecipe
    stage: Stage
    work: Any
    run: RunSettings


def make(order: Order, tasks: str, model: str = "smollm2", teacher: str = "") -> dict[str, Any]:
    """`etude data make`. Nothing is made of a source's held-out problems, nor kept that asks what `against` asks."""
    made = order.build(MAKE)
    tried = "tools" in made.recipe.needs
    if tried and tasks:
        raise UserError(f"{order.recipe} makes items of tools alone; leave --tasks out")
    if not (tried or tasks):
        raise UserError(f"{order.recipe} makes items of tasks; name some by --tasks")
    source = NOTHING if tried else task_set(tasks)
    held = examined(order.against) + ([] if tried else hold_out(source, _held(source)))
    with Pool(seconds=made.run.check_seconds, known=_theirs(source)) as pool:
        scribes, policy = _scribes(made.recipe, model, teacher, made.run)
        sampling = made.run.sampling
        shop = Workshop(tasks, source, scribes, policy, pool, sampling, order.wanted, order.seed, held=held)
        shop.kit = kit_of(made.run, pool)
        try:
            items = made.work(shop)
        finally:
            shop.kit.close()
    return order.finished(made, shop, items, made.run.tools if tried else tasks)


def choose(order: Order, file: str, model: str = "smollm2") -> dict[str, Any]:
    """`etude data choose`: some of a file's items."""
    made = order.build(CHOOSE)
    items = read(file)
    if order.wanted > len(items):
        raise UserError(f"'{file}' holds {len(items)} items; {order.wanted} cannot be chosen of them")
    held = examined(order.against)
    with Pool() as pool:
        scribes, policy = _scribes(made.recipe, model, "", made.run)
        sampling = made.run.sampling
        shop = Workshop(file, NOTHING, scribes, policy, pool, sampling, order.wanted, order.seed, held=held)
        found = made.work(shop, items)
    return order.finished(made, shop, found, file)


def mix(order: Order, files: Sequence[str]) -> dict[str, Any]:
    """`etude data mix`: a file for each stage, and pipeline.toml, which trains on one after the other."""
    made, place = order.build(MIX), order.out
    parts = [read(file) for file in files]
    held, sieve = examined(order.against), Sieve([])
    kept: dict[str, list[Item]] = {}
    for stage, items in made.work(parts, order.seed).items():
        mine = Sieve([i.noted(stage=stage) for i in items]).through(
            f"{stage}: what is not held out", held_out(held)
        )
        sieve.counts += mine.counts
        kept[stage] = mine.items
        write(mine.items, place, stage)
    write_atomically(place / "pipeline.toml", _pipeline(made.recipe, list(kept)))
    facts = _card(order, made, sieve, [item for items in kept.values() for item in items], files)
    facts["stages"] = {stage: len(items) for stage, items in kept.items()}
    _write_card(facts, place)
    order.say(
        f"{place}: {', '.join(f'{s} {len(i)} items' for s, i in kept.items())}; etude pipeline {place / 'pipeline.toml'}"
    )
    return facts


def _held(source: TaskSet) -> int:
    """Of files, the data set is made of all rows; of generators nothing is made of the held-out problems."""
    return 0 if source.examined() is not None else HELD


def _theirs(source: TaskSet) -> list[Any]:
    found = source.examined() or []
    return [part for task in found for part in (task.check, task.environment) if part]


def _settings(recipe: DataRecipe, changes: Mapping[str, str]) -> tuple[dict[str, str], RunSettings]:
    own = {}
    for path, value in changes.items():
        where, _, name = path.partition(".")
        if where == recipe.name and name:
            own[name] = value
        elif where != "run":
            raise UserError(f"--set takes {recipe.name}.NAME=value or run.NAME=value; got '{path}'")
    run = {k.removeprefix("run."): v for k, v in changes.items() if k.startswith("run.")}
    return own, run_settings({}, run)


def _scribes(
    recipe: DataRecipe, model: str, teacher: str, run: RunSettings
) -> tuple[dict[str, Scribe], Policy | None]:
    made, own = {}, None
    for who, where in (("policy", model), ("teacher", teacher)):
        if not where:
            continue
        remote = where.startswith(("http://", "https://"))
        if remote and who == "policy" and "policy" in recipe.needs:
            raise UserError(
                f"{recipe.name} samples and reads the model itself; name a local one by --model, not an address"
            )
        policy = None if remote else load_policy(where, run.precision, run.backbone, run.device)
        made[who] = scribe(where, policy, run.sampling, run.rows)
        own = policy if who == "policy" else own
    return made, own


def _card(
    order: Order, made: Build, sieve: Sieve, items: Sequence[Item], sources: Sequence[str]
) -> dict[str, Any]:
    names = [Path(s).name if names_file(s) else s for s in sources]
    if unknown := set(order.licences) - set(names):
        raise UserError(
            f"--licence names '{unknown.pop()}', which is no source here; sources: {', '.join(names)}"
        )
    recipe = made.recipe
    about = {
        "name": order.out.name,
        "recipe": recipe.name,
        "verb": recipe.verb,
        "paper": {"title": recipe.paper.title, "url": recipe.paper.url} if recipe.paper else None,
        "settings": {k: str(v) for k, v in made.stage.checked(recipe.name).items()},
        "sources": {name: order.licences.get(name, cards.UNSTATED) for name in names},
        "against": order.against,
        "seed": order.seed,
        "version": __version__,
        "commit": commit() or "",
        "departures": list(recipe.departures),
    }
    return cards.facts(items, sieve.counts, about)


def _write_card(facts: Mapping[str, Any], place: Path) -> None:
    write_atomically(place / "card.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    write_atomically(place / "card.md", cards.page(facts))


def _pipeline(recipe: DataRecipe, stages: Sequence[str]) -> str:
    lines = [
        "# The stages of this mixture, one after the other: etude pipeline pipeline.toml",
        'model = "smollm2"',
        "",
    ]
    for stage in stages:
        own = recipe.training.get(stage, {})
        given = ", ".join(f'"{k}" = {json.dumps(v)}' for k, v in own.items())
        lines += [
            "[[stage]]",
            f'name = "{stage}"',
            'recipe = "sft"',
            f'tasks = "{stage}.jsonl"',
            'budget = "100-steps"',
        ]
        lines += [f"settings = {{{given}}}", ""] if given else [""]
    return "\n".join(lines)
