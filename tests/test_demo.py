"""`etude demo`: its plan can be built, and the command goes from its start to its page."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from etude import cli
from etude.cli import demo
from etude.models.tiny import tiny_directory
from etude.report.run import RunDirectory
from etude.train.setup import resolve
from test_site import FAST


def test_its_plan_is_one() -> None:
    recipe, settings, stages = resolve(demo.plan())
    assert (recipe.name, demo.plan().model) == ("grpo", "smollm2")
    assert stages["update"].lr == float(demo.plan().changes["update.lr"])
    assert settings.eval_problems >= 100
    assert demo.plan(3).budget.steps == 3


def test_it_goes_to_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(
        tiny_directory(tmp_path / "m", string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3)
    )
    whole = demo.plan(1)
    monkeypatch.setattr(demo, "plan", lambda steps: whole.but(model=model, changes={**whole.changes, **FAST}))
    out = tmp_path / "demo"
    assert cli.run(["demo", "--out", str(out), "--steps", "1"]) == 0
    said = capsys.readouterr()
    assert "held-out accuracy" in said.out
    assert "step 1 (100%)" in said.err
    assert [e["rule"] for e in RunDirectory.open(out).evals()] == ["before", "last"]
    assert (out / "report.html").is_file()
    assert (out / "model" / "config.json").is_file()
