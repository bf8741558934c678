"""All studies of the package, found by being there: every module of this folder offers `STUDY`. `find` reads those of a user
as well: ./my_study.py."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from etude.errors import UserError, nearest
from etude.modules import load
from etude.study.declare import Study


@cache
def catalogue() -> dict[str, Study]:
    """{name: study}, sorted."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__))
    found = {name: importlib.import_module(f"{__name__}.{name}").STUDY for name in names}
    for name, study in found.items():
        if study.name != name:
            raise TypeError(f"the study in {name}.py is called '{study.name}'")
    return found


def find(name: str) -> Study:
    """The study of that name, or the one that a file offers as STUDY. UserError where there is none."""
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise UserError(f"there is no file '{name}' to read a study from")
        study = getattr(load(path), "STUDY", None)
        if not isinstance(study, Study):
            raise UserError(f"'{name}' has no STUDY; a study's file ends with STUDY = Study(...)")
        return study
    if name not in catalogue():
        raise UserError(f"there is no study '{name}'{nearest(name, catalogue())}")
    return catalogue()[name]


def absolute(name: str) -> str:
    """A file by its whole path."""
    return str(Path(name).expanduser().resolve()) if name.endswith(".py") else name
