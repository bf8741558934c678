"""What `etude recipes` shows, kept between calls in the user's cache: to find it out every method and torch are imported,
which takes seconds. A change of any file of etude makes it anew."""

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
from etude.errors import UserError
from etude.files import write_atomically
from etude.registry import declared

ROOT = Path(etude.__file__).parent


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
