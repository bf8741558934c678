"""Every command that a page shows in a block is run: here, page by page and in order, on a tiny model; or by the test that is
named beside it. The tutorial and the page about using a model have tests of their own (test_site, test_using_a_model)."""

from __future__ import annotations

import json
import re
import shlex
import string
from pathlib import Path
from typing import Any

import pytest

from documents import ROOT, commands, fenced
from etude import cli
from etude.models.tiny import tiny_directory
from etude.report import server as viewer
from test_site import FAST, quick
from test_using_a_model import Served

OWN = ("tutorial/", "using-a-model.md", "LOG.md", "CHANGELOG.md")
PAGES = sorted(
    page
    for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
    if not any(part in (page := p.relative_to(ROOT).as_posix()) for part in OWN)
    and commands(page, inline=False)
)
ELSEWHERE = {  # what needs servers or hours, by how it begins: the file whose tests run it
    "claims": "test_claims_session.py",
    "study": "test_studies.py",
    "data make": "test_data.py",
    "lab": "test_lab_model.py",
    "engine": "test_local_engine.py",
    "doctor --on": "test_place.py",
    "train grpo -m smollm2 -t chain_sum:max_terms=2 --on": "test_place.py",
    "train rltf_sd -t lab:feedback=hint --set rollout.critic=remote": "test_writers.py",
    "init": "test_plan_file.py",
    "check --pairs held_out.jsonl --reward": "test_judges.py",
}
SLOW = ("compare", "try")  # processes of their own for every run
WRITTEN = re.compile(r"STEP|[A-Z]{4,}\b")  # a word that stands for something


def here(page: str, slow: bool) -> list[list[str]]:
    """The commands of a page that are run here."""
    found = []
    for words in commands(page, inline=False):
        line = " ".join(words)
        if not any(line == start or line.startswith(f"{start} ") for start in ELSEWHERE):
            found.append(words)
    return [words for words in found if slow or words[0] not in SLOW]


def prepared(place: Path, page: str) -> str:
    """What the pages take for granted, in `place`: a model, task files, a plan, and the files that they print."""
    shape: dict[str, Any] = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "seed": 3}
    model = str(tiny_directory(place / "my-model", string.printable, **shape))
    rows = "".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(60))
    for name in ("my_tasks.jsonl", "math.jsonl", "prompts.jsonl", "mine.jsonl", "problems.jsonl"):
        (place / name).write_text(rows)
    solved = [{**json.loads(row), "reference": f"It is {i + 1}."} for i, row in enumerate(rows.splitlines())]
    pairs = [{"prompt": r["prompt"], "chosen": r["answer"], "rejected": "no"} for r in solved]
    for name, lines in (("solutions.jsonl", solved), ("pairs.jsonl", pairs), ("held_out.jsonl", pairs[:8])):
        (place / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (place / "mine.py").write_text("def brevity(episode):\n    return -float(episode.sampled.sum())\n")
    tiny_directory(place / "my-base-model", string.printable, template=None, **shape)
    (place / "plan.toml").write_text(
        f'recipe = "grpo"\nmodel = "{model}"\ntasks = "my_tasks.jsonl"\nsteps = 1\n'
    )
    for stages in fenced(page, "toml"):
        if "[[stage]]" in stages:  # of a pipeline
            brief = ", ".join(f'"{name}" = "{value}"' for name, value in FAST.items())
            brief = re.sub(r'budget = ".*"', f'budget = "1-steps"\nsettings = {{{brief}}}', stages)
            (place / "stages.toml").write_text(brief.replace('"smollm2"', f'"{model}"'))
    if "halfway.py" in (text := (ROOT / page).read_text()):
        (block,) = (b for b in re.findall(r"(?:^    .*\n|^\n)+", text, re.M) if "class Halfway" in b)
        (place / "halfway.py").write_text("\n".join(line[4:] for line in block.splitlines()))
    return model


def run_page(page: str, slow: bool, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(place)
    model = prepared(place, page)
    monkeypatch.setattr(viewer, "serve", lambda directory, **options: print(f"serving {directory}"))
    if page == "CONTRIBUTING.md" or "my_method" in (ROOT / page).read_text():
        assert cli.run(["new", "method", "my_method"]) == 0
    for words in here(page, slow):
        if words[:2] == ["new", "method"]:
            continue
        if (
            words[:2] == ["train", "grpo"] and "model:runs/reward_model-0,weight=1" in words
        ):  # made further down the page
            made = ["train", "reward_model", "-m", "smollm2", "--pairs", "pairs.jsonl"]
            assert cli.run([*quick(made, model), "--out", "runs/reward_model-0"]) == 0
        line = shlex.join(words)
        served = Served(monkeypatch) if words[0] == "serve" else None
        capsys.readouterr()
        code = cli.run(quick(words, model))
        said = capsys.readouterr()
        if served:
            served.end()
        if words[0] == "show" and len(words) > 2:  # an episode of the run that the page prints
            assert code in (0, 2)
            continue
        finished = words[0] == "resume" and len(words) == 2
        assert code == 0 or (finished and "finished" in said.err), f"{line}: {said.err or said.out}"


@pytest.mark.parametrize("page", [page for page in PAGES if here(page, slow=False)])
def test_the_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run_page(page, False, tmp_path, monkeypatch, capsys)


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if here(page, slow=True) != here(page, slow=False)])
def test_the_slow_ones_too(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run_page(page, True, tmp_path, monkeypatch, capsys)


def test_what_is_run_elsewhere_is_run_there() -> None:
    shown = [" ".join(words) for page in PAGES for words in commands(page)]
    for start, file in ELSEWHERE.items():
        assert any(line.startswith(start) for line in shown), f"no page shows 'etude {start}'"
        assert (ROOT / "tests" / file).is_file(), file


def test_no_block_shows_a_word_that_stands_for_something() -> None:
    for page in PAGES:
        for words in here(page, slow=True):
            assert not any(WRITTEN.fullmatch(word) for word in words), f"{page}: {' '.join(words)}"
