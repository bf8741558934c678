"""What `etude recipes` shows, without importing every method and torch for it, which takes seconds. The table comes from an
index that is written with the documentation's pages and holds for the methods that it was made from; all else is kept between
calls in the user's cache, and a change of any file of etude makes it anew."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

import etude
from etude.docs import method_page
from etude.docs.claims import result
from etude.errors import UserError
from etude.files import read_json, write_atomically
from etude.registry import declared

ROOT = Path(etude.__file__).parent
INDEX = Path(__file__).with_name("recipes.json")
LISTED = ("name", "topic", "year", "replaces", "confidence", "tests")  # what the table shows, but for results


def listed() -> list[dict[str, Any]]:
    """One object per recipe, with what the table shows (`method_page.rows`)."""
    if not _registered():
        with contextlib.suppress(OSError, ValueError, LookupError):
            index = read_json(INDEX)
            if index["methods"] == _state_of_methods():
                return [{**one, "claim": result(one["name"])} for one in index["recipes"]]
    return facts()


def index() -> str:
    """The file `INDEX`, of the package's methods as they are."""
    from etude.methods import outside

    own = [one for one in method_page.facts() if one["topic"] != outside.TOPIC]
    found = [{name: one[name] for name in LISTED} for one in own]
    lines = ",\n".join("  " + json.dumps(one) for one in found)
    return f'{{"methods": "{_state_of_methods()}", "recipes": [\n{lines}\n]}}\n'


def facts(name: str | None = None) -> list[dict[str, Any]]:
    """As `method_page.facts`. Recipes that other packages register are looked at each time."""
    if _registered():
        return method_page.facts(name)
    place = platformdirs.user_cache_path("etude") / f"recipes-{_key()}.json"
    with contextlib.suppress(OSError, ValueError):
        known: list[dict[str, Any]] = json.loads(place.read_bytes())
        if name is None:
            return known
        if found := [one for one in known if one["name"] == name]:
            return found
    if name is not None:  # a composition, a file, or nothing that there is
        return method_page.facts(name)
    made = method_page.facts()
    with contextlib.suppress(UserError, OSError):  # a home that cannot be written to
        place.parent.mkdir(parents=True, exist_ok=True)
        for old in place.parent.glob("recipes-*.json"):
            old.unlink(missing_ok=True)
        write_atomically(place, json.dumps(made))
    return made


def _registered() -> bool:
    return bool(declared("etude.recipes", tuple(sys.path)))


def _state_of_methods() -> str:
    """Names the content of the files that recipes are made of."""
    known = hashlib.blake2b(digest_size=12)
    for path in [ROOT / "recipe.py", *sorted((ROOT / "methods").rglob("*.py"))]:
        known.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return known.hexdigest()


def _key() -> str:
    """Names the state of all files of the package."""
    found = [(path.removeprefix(str(ROOT)), size, time) for path, size, time in _files(ROOT)]
    text = json.dumps([etude.__version__, sys.version, str(ROOT), sorted(found)])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """(path, bytes, time of its last change) of every source and JSON file below `folder`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(Path(entry.path))
            elif entry.name.endswith((".py", ".json")):
                about = entry.stat()
                yield entry.path, about.st_size, about.st_mtime_ns
