"""The documentation site: built without a warning, and the tutorial does what it says, on a tiny model."""

from __future__ import annotations

import os
import re
import shlex
import string
import subprocess
import sys
from pathlib import Path

import pytest

import etude
from documents import FENCE, ROOT
from etude import cli
from etude.assembly import resolved_stages
from etude.docs.site import pages
from etude.methods import catalogue, find
from etude.models.tiny import tiny_directory
from etude.settings import parameters
from etude.train.plan_file import read
from etude.train.settings import RunSettings

PAGES = sorted(p.name for p in (ROOT / "docs" / "tutorial").glob("*.md"))
MANY_PROCESSES = ("compare.md", "your-method.md")  # every run of a comparison starts Python anew
MODELS = ("smollm2", "Qwen/Qwen3-0.6B")  # stand for any model
FAST = {
    "run.precision": "fp32",
    "run.max_tokens": "4",
    "run.eval_problems": "2",
    "run.eval_samples": "1",
    "run.tasks_per_step": "2",
    "run.group_size": "2",
    "run.preflight": "2",
    "run.skip_preflight": "true",
}


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in catalogue():
        assert (tmp_path / "site" / "methods" / name / "index.html").is_file()


def test_every_page_that_is_made_has_text() -> None:
    assert all(len(text) > 100 for _, text in pages())


def test_settings_that_the_migration_page_names_exist() -> None:
    recipes = [find(name) for name in ("grpo", "dapo", "ppo")]
    known = {f"run.{name}" for name in parameters(RunSettings)}
    known |= {
        f"{s}.{n}"
        for r in recipes
        for s, part in resolved_stages(r).items()
        for n in parameters(part.factory)
    }
    named = re.findall(r"\| [^|]+ \| (.+) \|", (ROOT / "docs" / "migration.md").read_text())
    ours = {
        m[0]
        for cell in named
        for m in re.findall(r"`((?:run|update|credit|objective|reward)\.\w+)(=\w+)?`", cell)
    }
    assert len(ours) > 20
    assert ours <= known, sorted(ours - known)


def quick(words: list[str], model: str) -> list[str]:
    """A command of the tutorial with a tiny model and little to do."""
    name, *rest = words
    found = [
        model if w in MODELS or (w == "lab" and (name == "eval" or rest[i - 1] in ("-m", "--model"))) else w
        for i, w in enumerate(rest)
    ]
    more = "+1" if name == "resume" else "1"
    for option, value in (("--budget", "2-steps"), ("--seeds", "2"), ("--steps", more)):
        if option in found:
            found[found.index(option) + 1] = value
    if name in ("train", "compare", "check") and not {"-m", "--model"} & set(found):
        found += ["-m", model]  # what is taken where none is named has 135 million weights
    if name in ("train", "compare", "check"):
        found += [w for path, value in FAST.items() for w in ("--set", f"{path}={value}")]
    if name == "train":
        timed = {"--budget", "--steps"} & set(found)
        found += ["--quiet", "--force", *([] if timed else ["--steps", "1"])]
    if name == "eval":
        found += ["--problems", "2", "--set", "run.max_tokens=4", "--set", "run.precision=fp32"]
        found += [] if "-k" in found else ["-k", "1"]
    if name == "play":
        found += ["--games", "2", "--max-tokens", "4"]
    if name == "pipeline":
        found += ["--force", "--quiet"]
    if name == "ask":
        found += ["--max-tokens", "3"]
    if name == "sample":
        found += ["--max-tokens", "3"]
    return [name, *found]


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.long] if p in MANY_PROCESSES else []) for p in PAGES]
)
def test_the_tutorial_does_what_it_says(page: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(
        tiny_directory(tmp_path / "tiny", string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3)
    )
    whole = etude.train

    def short(recipe, **given):
        settings = {**FAST, **{k: v for k, v in given.pop("settings", {}).items() if k not in FAST}}
        return whole(
            recipe,
            **{**given, "model": model, "budget": 1, "settings": settings, "force": True, "progress": False},
        )

    monkeypatch.setattr(etude, "train", short)
    for language, block in FENCE.findall((ROOT / "docs" / "tutorial" / page).read_text()):
        if language == "python":
            exec(compile(block, page, "exec"), {"__name__": "tutorial"})
        elif language == "toml":
            (tmp_path / "block.toml").write_text(block)
            assert read(tmp_path / "block.toml").arms()
        elif language == "sh":
            for line in block.splitlines():
                run_line(line, model, tmp_path, capsys)


def run_line(line: str, model: str, place: Path, capsys) -> None:
    line, _, into = line.partition(" > ")
    words = shlex.split(line, comments=True)[1:]
    capsys.readouterr()
    code = cli.run(quick(words, model))
    said = capsys.readouterr()
    assert code == 0 or (words[0] == "check" and code == 2), f"{line}: {said.err or said.out}"
    if into:
        (place / into).write_text(said.out)
