"""What a terminal gets at once: help, version, completion and the recipes, without torch, colour or a wide screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etude import __version__
from etude.cli import run as cli
from etude.docs import method_page, remembered
from etude.docs.method_page import HEADER, table

HEAVY = ("torch", "numpy", "transformers", "scipy", "pyarrow", "reasoning_gym")
WATCH = f"""
import sys
from etude.cli import run
code = run(sys.argv[1:])
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def started(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCH, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "etude"


def test_help_and_version_import_nothing_heavy() -> None:
    shown = started("--help", NO_COLOR="1", COLUMNS="60")
    assert shown.stderr.splitlines()[-1] == "[]"
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 60
    assert started("--version").stdout == f"etude {__version__}\n"
    assert started("train", "--help").stderr.splitlines()[-1] == "[]"


def test_the_table_is_shown_at_once_on_a_fresh_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported for it, nor kept; the index is of the methods as they are, and is not believed for others."""
    assert remembered.INDEX.read_text(encoding="utf-8") == remembered.index(), (
        "run: python -m etude.docs.method_docs"
    )
    shown = started("recipes", XDG_CACHE_HOME=str(cache.parent))
    assert shown.stderr.splitlines()[-1] == "[]"
    assert shown.stdout == table(method_page.facts()) + "\n"
    assert not list(cache.glob("*"))
    package = cache / "package"
    shutil.copytree(remembered.ROOT / "methods", package / "methods")
    shutil.copy(remembered.ROOT / "recipe.py", package)
    monkeypatch.setattr(remembered, "ROOT", package)
    monkeypatch.setattr(method_page, "facts", lambda name=None: [{"name": "one"}])
    assert len(remembered.listed()) > 100
    (package / "methods" / "mine.py").write_text("a = 1\n")
    assert remembered.listed() == [{"name": "one"}]


def test_recipes_are_remembered(cache: Path) -> None:
    """The second time nothing is imported to say the same; a change of a file counts."""
    first = remembered.facts()
    assert first == method_page.facts()
    assert remembered.facts() == first
    (kept,) = cache.glob("recipes-*.json")
    one = started("recipes", "topr", XDG_CACHE_HOME=str(cache.parent))
    assert one.stderr.splitlines()[-1] == "[]"
    assert one.stdout.startswith("topr\n")
    kept.write_text("[")  # damaged: made anew
    assert remembered.facts() == first


def test_a_changed_file_is_noticed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "methods").mkdir(parents=True)
    file = package / "methods" / "one.py"
    file.write_text("a = 1\n")
    monkeypatch.setattr(remembered, "ROOT", package)
    before = remembered._key()
    assert remembered._key() == before
    file.write_text("a = 12\n")
    changed = remembered._key()
    assert changed != before
    os.utime(file, ns=(1, 1))
    assert remembered._key() != changed
    calls = []
    monkeypatch.setattr(method_page, "facts", lambda name=None: calls.append(name) or [{"name": "one"}])
    assert remembered.facts() == remembered.facts() == remembered.facts("one") == [{"name": "one"}]
    assert calls == [None]
    file.write_text("a = 3\n")
    assert remembered.facts() == [{"name": "one"}]
    assert calls == [None, None]
    assert len(list(cache.glob("recipes-*.json"))) == 1


def test_a_home_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(method_page, "facts", lambda name=None: [{"name": "one"}])
    assert remembered.facts() == [{"name": "one"}]


def test_a_composition_is_made_anew(cache: Path) -> None:
    assert remembered.facts("grpo+sec")[0]["name"] == "grpo+sec"
    assert not list(cache.glob("*"))


def test_the_table_fits_its_screen(cache: Path) -> None:
    found = remembered.facts()
    whole = table(found).splitlines()
    assert whole[0].split() == list(HEADER)
    for width in (60, 100, 140):
        lines = table(found, width).splitlines()
        assert len(lines) == len(whole)
        assert max(map(len, lines)) <= width
        names = lines[0].split()
        assert (names[0], names[-1]) == ("recipe", "claim")


def test_the_task_sources_fit_their_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert cli(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 100
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("chain_sum ") and len(line) > 50 for line in lines)


@pytest.mark.parametrize(
    "words",
    [["recipes", "grpo"], ["studies"], ["claims"], ["data", "recipes"], ["tasks", "chain_sum"]],
    ids=" ".join,
)
def test_pages_are_broken_between_words(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = []
    for width in ("60", None):
        monkeypatch.setenv("COLUMNS", width) if width else monkeypatch.delenv("COLUMNS")
        assert cli(words) == 0
        pages.append(capsys.readouterr().out)
    narrow, wide = pages
    assert narrow.split() == wide.split()
    assert max(map(len, wide.splitlines())) > 100
    assert not [line for line in narrow.splitlines() if len(line) > 60 and " " in line.strip()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "etude"],
        env={
            **os.environ,
            "_ETUDE_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": "etude ex",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "COMP_WORDS": "etude ex",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert "export" in shown.stdout
    assert "recipes" not in shown.stdout


def test_an_interrupt_speaks_of_resuming_only_where_something_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remembered, "listed", interrupted)
    assert cli(["recipes"]) == 130
    assert capsys.readouterr().err == "etude: interrupted\n"
