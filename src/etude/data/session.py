"""Making, choosing, mixing and checking data: from names to files with a card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etude import __version__
from etude.data import card as cards
from etude.data.filters import (
    PERMUTATIONS,
    SURE,
    Sieve,
    answered,
    different,
    held_out,
    nearly_different,
    question,
    repeats,
)
from etude.data.items import Item, read, write
from etude.data.recipe import CHOOSE, MAKE, MIX, DataRecipe, find
from etude.data.workshop import Scribe, Workshop, losses, scribe
from etude.errors import UserError
from etude.evaluate.run import hold_out
from etude.files import write_atomically
from etude.machine import commit
from etude.models.policy import Policy
from etude.tasks import TaskSet
from etude.tasks.isolate import Pool
from etude.tasks.rows import names_file
from etude.train.config import RunSettings, run_settings
from etude.train.measure import load_policy
from etude.train.setup import task_set
from etude.types import Task

Say = Callable[[str], None]
HELD = 200  # problems of a generator that nothing is made of


def place_of(out: Path, overwrite: bool) -> Path:
    """UserError where something is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise UserError(f"'{out}' exists already; name a new directory, or give --overwrite")
    return out


def make(
    name: str,
    tasks: str,
    model: str,
    out: Path,
    wanted: int = 100,
    teacher: str = "",
    against: str = "",
    changes: Mapping[str, str] | None = None,
    seed: int = 0,
    licences: Mapping[str, str] | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """`etude data make`. Nothing is made of a source's held-out problems, nor kept that asks what `against` asks."""
    recipe = find(name, MAKE)
    place = place_of(out, overwrite)
    settings, run = _settings(recipe, changes or {})
    build = recipe.build.but(**settings)
    made = build.build(name)
    source = task_set(tasks)
    held = hold_out(source, _held(source))
    held += examined(against)
    with Pool(seconds=run.check_seconds, known=_theirs(source)) as pool:
        scribes, policy = _scribes(recipe, model, teacher, run)
        shop = Workshop(tasks, source, scribes, policy, pool, run.sampling, wanted, seed, held=held)
        items = made(shop)
    return _finished(
        recipe,
        build.checked(name),
        shop.sieve,
        items,
        held,
        against,
        [tasks],
        place,
        seed,
        licences or {},
        say,
    )


def choose(
    name: str,
    file: str,
    model: str,
    out: Path,
    wanted: int = 100,
    against: str = "",
    changes: Mapping[str, str] | None = None,
    seed: int = 0,
    licences: Mapping[str, str] | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """`etude data choose`: some of a file's items."""
    recipe = find(name, CHOOSE)
    place = place_of(out, overwrite)
    settings, run = _settings(recipe, changes or {})
    build = recipe.build.but(**settings)
    chosen = build.build(name)
    items = read(file)
    if wanted > len(items):
        raise UserError(f"'{file}' holds {len(items)} items; {wanted} cannot be chosen of them")
    held = examined(against)
    empty = Workshop(file, TaskSet.of([_placeholder()]), {}, None, Pool(), run.sampling, wanted, seed)
    with empty.pool as pool:
        scribes, policy = _scribes(recipe, model, "", run)
        shop = replace(empty, scribes=scribes, policy=policy, pool=pool)
        found = chosen(shop, items)
    return _finished(
        recipe,
        build.checked(name),
        shop.sieve,
        found,
        held,
        against,
        [file],
        place,
        seed,
        licences or {},
        say,
    )


def mix(
    name: str,
    files: Sequence[str],
    out: Path,
    changes: Mapping[str, str] | None = None,
    seed: int = 0,
    against: str = "",
    licences: Mapping[str, str] | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """`etude data mix`: a file for each stage, and pipeline.toml, which trains on one after the other."""
    recipe = find(name, MIX)
    place = place_of(out, overwrite)
    settings, _ = _settings(recipe, changes or {})
    build = recipe.build.but(**settings)
    parts = [read(file) for file in files]
    stages = build.build(name)(parts, seed)
    held = examined(against)
    sieve = Sieve([])
    kept: dict[str, list[Item]] = {}
    for stage, items in stages.items():
        mine = Sieve([i.noted(stage=stage) for i in items]).through(
            f"{stage}: what is not held out", held_out(held)
        )
        sieve.counts += mine.counts
        kept[stage] = mine.items
        write(mine.items, place, stage)
    write_atomically(place / "pipeline.toml", _pipeline(recipe, list(kept)))
    whole = [item for items in kept.values() for item in items]
    facts = _card(recipe, build.checked(name), sieve, whole, against, files, place, seed, licences or {})
    facts["stages"] = {stage: len(items) for stage, items in kept.items()}
    _write_card(facts, place)
    say(
        f"{place}: {', '.join(f'{s} {len(i)} items' for s, i in kept.items())}; etude pipeline {place / 'pipeline.toml'}"
    )
    return facts


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
    from datasketch import MinHashLSH

    from etude.data.filters import signature

    index, signs = MinHashLSH(threshold=min(near, SURE), num_perm=PERMUTATIONS), {}
    for number, task in enumerate(held):
        signs[str(number)] = signature(task.prompt[-1].content)
        index.insert(str(number), signs[str(number)])
    exact = {id(i) for i in held_out(held)(items)}
    return [
        i
        for i in items
        if id(i) in exact
        and any(signs[n].jaccard(s) >= near for s in [signature(i.prompt)] for n in index.query(s))
    ]


# ---- shared ----------------------------------------------------------------------------------------------------------


def examined(against: str) -> list[Task]:
    """What a data set may not ask: all tasks of a file, or the held-out problems of a generator."""
    if not against:
        return []
    found = task_set(against)
    return found.examined() or hold_out(found, HELD)


def _held(source: TaskSet) -> int:
    """Of files, the data set is made of all rows; of generators nothing is made of the held-out problems."""
    return 0 if source.examined() is not None else HELD


def _placeholder() -> Task:
    from etude.tasks.check import NoText

    return Task("-", NoText("data"))  # type: ignore[arg-type]


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


def _finished(
    recipe: DataRecipe,
    settings: Mapping[str, Any],
    sieve: Sieve,
    items: Sequence[Item],
    held: Sequence[Task],
    against: str,
    sources: Sequence[str],
    place: Path,
    seed: int,
    licences: Mapping[str, str],
    say: Say,
) -> dict[str, Any]:
    last = Sieve(list(items), sieve.counts)
    last.through("what is not held out for evaluation", held_out(held))
    if not last.items:
        left = "; ".join(f"{says}: {after} of {before}" for says, before, after in last.counts)
        raise UserError(f"{recipe.name} left no item at all ({left})")
    stamped = [i.noted(recipe=recipe.name, seed=seed) for i in last.items]
    files = write(stamped, place)
    facts = _card(recipe, settings, last, stamped, against, sources, place, seed, licences)
    _write_card(facts, place)
    say(f"{len(stamped)} items: {', '.join(map(str, files))}; card: {place / 'card.md'}")
    return facts


def _card(
    recipe: DataRecipe,
    settings: Mapping[str, Any],
    sieve: Sieve,
    items: Sequence[Item],
    against: str,
    sources: Sequence[str],
    place: Path,
    seed: int,
    licences: Mapping[str, str],
) -> dict[str, Any]:
    names = [Path(s).name if names_file(s) else s for s in sources]
    if unknown := set(licences) - set(names):
        raise UserError(
            f"--licence names '{unknown.pop()}', which is no source here; sources: {', '.join(names)}"
        )
    about = {
        "name": place.name,
        "recipe": recipe.name,
        "verb": recipe.verb,
        "paper": {"title": recipe.paper.title, "url": recipe.paper.url} if recipe.paper else None,
        "settings": {k: str(v) for k, v in settings.items()},
        "sources": {name: licences.get(name, cards.UNSTATED) for name in names},
        "against": against,
        "seed": seed,
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
