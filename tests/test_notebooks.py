"""Notebooks are their pages, and run from the first cell to the last, on a tiny model."""

from __future__ import annotations

import os
import shlex
import string
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from documents import ROOT
from etude.docs.notebooks import PAGES, notebook, notebooks
from etude.models.tiny import tiny_directory
from test_site import FAST, quick

SHORT = f"""
import functools, etude
whole = etude.train
fast = {FAST!r}

@functools.wraps(whole)
def short(recipe, **given):
    settings = {{**given.pop("settings", {{}}), **fast}}
    return whole(recipe, **{{**given, "model": "tiny", "budget": 1, "settings": settings, "force": True, "progress": False}})

etude.train = short
"""


def test_they_are_what_their_pages_say() -> None:
    """`python -m etude.docs.notebooks` brings them up to date."""
    folder = ROOT / "examples" / "notebooks"
    made = notebooks(ROOT / "docs" / "tutorial")
    assert {p.name: p.read_text() for p in folder.glob("*.ipynb")} == made
    for content in made.values():
        nbformat.validate(nbformat.reads(content, as_version=4))


def test_prose_and_code_are_told_apart() -> None:
    text = "# A [link](x.md) and [one](https://x)\n\n```python\na = 1\n```\nthen\n```sh\netude a\netude b > c\n```\n```toml\nd = 1\n```\n"
    cells = notebook("page", text).cells
    assert [(c.cell_type, c.source) for c in cells] == [
        ("markdown", "# A link and [one](https://x)"),
        ("code", "a = 1"),
        ("markdown", "then"),
        ("code", "!etude a\n!etude b > c"),
        ("markdown", "```toml\nd = 1\n```"),
    ]


def shortened(line: str) -> str:
    """A command of a cell, with a tiny model and little to do; where it fails, so does the cell."""
    line, arrow, into = line.removeprefix("!").partition(" > ")
    words = quick(shlex.split(line, comments=True)[1:], "tiny")
    command = [sys.executable, "-m", "etude", *words]
    allowed = (0, 2) if words[0] == "check" else (0,)  # nothing can be learned by random weights
    target = f"open({into!r}, 'w')" if arrow else "None"
    return f"import subprocess; assert subprocess.run({command!r}, stdout={target}).returncode in {allowed}"


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.long] if page == "your-file" else []) for page in PAGES]
)
def test_it_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_directory(tmp_path / "tiny", string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    made: Any = nbformat.reads((ROOT / "examples" / "notebooks" / f"{page}.ipynb").read_text(), as_version=4)
    for cell in made.cells:
        if cell.cell_type == "code":
            lines = [shortened(x) if x.startswith("!") else x for x in cell.source.splitlines()]
            cell.source = "\n".join(lines)
    made.cells.insert(0, nbformat.v4.new_code_cell(SHORT))
    NotebookClient(made, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs").is_dir()
