"""`etude new method` writes something that works, and `etude try` says what is wrong with what does not."""

from pathlib import Path

import pytest

from etude.cli import run
from etude.methods import find
from etude.testing.trial import put_to_trial


@pytest.fixture
def skeleton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "method", "bolder"]) == 0
    return tmp_path / "bolder.py"


def test_the_skeleton_is_a_method_with_all_its_rows(skeleton: Path, capsys) -> None:
    recipe = find("./bolder.py")
    assert (recipe.name, recipe.replaces) == ("bolder", ("credit", "objective"))
    trial = put_to_trial(recipe)
    assert not trial.broken
    assert not trial.missing
    assert {type(row).__name__ for row in recipe.examples} == {"Credited", "OffPolicy", "Reduction"}
    assert run(["try", "./bolder.py", "--quick"]) == 0
    assert "ok       a step goes the right way" in capsys.readouterr().out


def test_nothing_is_overwritten(skeleton: Path, capsys) -> None:
    skeleton.write_text("mine")
    for name, said in {
        "bolder": "'bolder.py' exists already",
        "grpo": "there is a recipe 'grpo' already",
        "a-b": "letters, digits and _",
    }.items():
        assert run(["new", "method", name]) == 2
        assert said in capsys.readouterr().err
    assert skeleton.read_text() == "mine"


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("return -rho.clamp", "return rho.clamp", "look for a wrong sign"),
        ("max=bound", "max=bound + 1", "BROKEN   OffPolicy: a ratio above the bound"),
        ("else blame * a", "else a", "BROKEN   Credited: 1 of 2 right"),
        ("* out.logp", "* out.logp.mean()", "depends on how the step is cut into micro-batches"),
        ("* batch.advantage *", "* batch.advantages *", "AttributeError: 'Batch' object has no attribute"),
        ("proportional=True", 'weight="policies"', "BROKEN   "),
    ],
)
def test_a_planted_mistake_is_named(skeleton: Path, right: str, wrong: str, said: str, capsys) -> None:
    text = skeleton.read_text()
    assert right in text
    skeleton.write_text(text.replace(right, wrong))
    assert run(["try", "./bolder.py"]) == 2
    assert said in capsys.readouterr().out


def test_rows_that_are_missing_are_named(skeleton: Path, capsys) -> None:
    text = skeleton.read_text()
    skeleton.write_text(text[: text.index("    examples=(")] + ")\n")
    assert run(["try", "./bolder.py", "--quick"]) == 0
    said = capsys.readouterr().out
    assert "missing  no OffPolicy row for its objective with a ratio other than 1" in said
    assert "missing  no row goes through its credit: add a Credited row" in said
