"""The lowest rooms: files that are whole, things found by name, values of typed parameters."""

from __future__ import annotations

import os
import sys
import typing
from pathlib import Path

import pytest

from etude import tasks
from etude.errors import UserError
from etude.files import write_atomically
from etude.models.load import locate
from etude.parsing import parse_value
from etude.registry import Registry


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old \u00e9")
    assert path.read_bytes() == "old \u00e9".encode()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == "old \u00e9".encode()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="could not be written: No such file"):
        write_atomically(tmp_path / "nowhere" / "a", b"")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another package that declares a model and a task source."""
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[etude.models]\nmine = other_package:model\nlab = other_package:model\nbroken = nothing_here:model\n"
        "[etude.tasks]\nwords = other_package:source\n"
    )
    (tmp_path / "other_package.py").write_text(
        f"""
from etude.tasks.check import Exact
from etude.tasks.files import Listed
from etude.types import Message, Task

def model():
    return {str(tmp_path)!r}

def source(name, params=None, called=None):
    tasks = [Task((Message("user", w),), Exact(w), name, answer=w) for w in ("ab", "cd", "ef")]
    return Listed(called or name, tasks)
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "other_package", raising=False)
    return tmp_path


def test_other_packages_add_models_and_tasks(installed: Path) -> None:
    assert locate("mine") == installed
    assert len(tasks.load("words").holdout(1, 0)) == 1
    assert [i.name for i in tasks.catalogue("words")] == ["words"]
    with pytest.raises(
        UserError, match=r"'broken', the entry point nothing_here:model of group etude\.models"
    ):
        locate("broken")


def test_own_names_win_and_are_imported_late(installed: Path) -> None:
    found = Registry("etude.models", {"lab": "math:floor"})
    assert list(found) == ["broken", "lab", "mine"]
    assert len(found) == 3
    assert found["lab"](2.5) == 2
    with pytest.raises(KeyError):
        found["nobody"]


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (int, "12", 12),
        (int, "1e3", 1000),
        (int, str(2**60 + 1), 2**60 + 1),
        (int | None, "none", None),
        (float, "1e-3", 0.001),
        (bool, "No", False),
        (tuple[int, ...], "1;2", (1, 2)),
        (list[float], "[0.5; 1]", [0.5, 1.0]),
        (list, "a;1", ["a", 1]),
        (typing.Literal["none", "hint"], "none", "none"),
        (int | str, "x", "x"),
    ],
)
def test_values_are_read_in_their_types(kind: object, value: object, read: object) -> None:
    found = parse_value(kind, value)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (int, "2.5", "a whole number"),
        (int, True, "a whole number"),
        (int, "inf", "a whole number"),
        (float, "x", "a number"),
        (float, None, "a value"),
        (bool, "maybe", "true or false"),
        (typing.Literal["a", "b"], "c", "one of a, b"),
        (dict, "{}", "set it from Python"),
    ],
)
def test_what_cannot_be_read_says_what_is_wanted(kind: object, value: object, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        parse_value(kind, value)
