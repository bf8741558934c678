"""Methods that a user keeps outside the package: found, refused in one sentence, trained and resumed."""

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.compare.arms import parse_arms
from etude.docs.method_page import facts
from etude.errors import UserError
from etude.methods import find, outside
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start

METHOD = """
from etude.credit.group import advantage
from etude.recipe import Recipe
from etude.settings import stage

RECIPE = Recipe(name="mine", idea="One. Two.", equation="A = r", stages={"credit": stage(advantage, scale="%s")})
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a+b" / "mine.py"  # a folder with the sign that joins recipes
    path.parent.mkdir()
    path.write_text(METHOD % "group std")
    return path


def test_file_module_and_entry_point(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    recipe = find("./mine.py")
    assert (recipe.name, recipe.topic) == ("mine", "own")
    assert find(str(file)) == find("./mine.py:mine") == find("mine.py:RECIPE") == recipe
    assert find("./mine.py+sec").name == find(f"{file}+sec").name == "mine+sec"
    assert find("sec + ./mine.py").replaces == ("curriculum", "credit")
    monkeypatch.syspath_prepend(str(file.parent))
    assert find("mine:RECIPE").name == "mine"
    point = EntryPoint("mine", "mine:RECIPE", outside.GROUP)
    monkeypatch.setattr(
        outside, "declared", lambda group, path: {"mine": point} if group == outside.GROUP else {}
    )
    assert find("mine+sec").name == "mine+sec"
    assert facts()[-1]["topic"] == "own"
    with pytest.raises(UserError, match="called 'mine', which exists already"):
        find("./mine.py")
    sys.modules.pop("mine")


def test_several_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(METHOD % "group std" + "SECOND = Recipe('second', {}); RECIPES = [RECIPE, SECOND]\n")
    assert find(f"{path}:second").name == find(f"{path}:SECOND").name == "second"
    with pytest.raises(UserError, match=r"several recipes \(mine, second\); choose one, as in .*two.py:mine"):
        find(str(path))
    with pytest.raises(UserError, match="no recipe 'secund'; did you mean 'second'"):
        find(f"{path}:secund")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no RECIPE"),
        ("RECIPE = 3\n", "is of type int; it must be a Recipe"),
        ("x = 1\ny = x + z\n", "cannot be imported: line 2, NameError: name 'z' is not defined"),
        ("x = 1\n\nif x\n", "cannot be imported: line 3, SyntaxError"),
        ("import sys\nsys.exit(3)\n", "cannot be imported: line 2, SystemExit: 3"),
        ("def f():\n    import json; json.loads('no')\nf()\n", "cannot be imported: line 2, JSONDecodeError"),
        (METHOD.replace("mine", "grpo") % "group std", "is called 'grpo', which exists already; rename it"),
        (
            METHOD.replace('credit":', 'credits":') % "group std",
            "line 6, TypeError: recipe mine: unknown stage",
        ),
    ],
)
def test_refused_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        find(str(path))
    assert "\n" not in str(caught.value)


def test_refused_where_there_is_nothing(tmp_path: Path) -> None:
    for expression, said in {
        str(tmp_path / "no.py"): "there is no file '.*no.py'",
        "no_such_package.methods:RECIPE": "there is no module 'no_such_package.methods'",
        "json:RECIPE": "'json' has no recipe 'RECIPE'",
        "./mine": "a file of a method ends in .py",
        "grpoo": "there is no recipe 'grpoo'; did you mean 'grpo'",
        "": "there is no recipe ''",
    }.items():
        with pytest.raises(UserError, match=said):
            find(expression)


def test_trains_and_resumes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    settings = {"run__eval_problems": 0, "run__checkpoint_every": 2, "objective__mean": "token"}
    run = start(letters.plan(tmp_path, "./mine.py", 2, **settings), tmp_path / "run", letters.words())
    train(run)
    run.close()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["plan"]["recipe"] == str(file)
    monkeypatch.chdir(tmp_path)
    again, warnings = resume(tmp_path / "run", letters.words())
    again.close()
    assert not warnings
    file.write_text("# a comment\n" + METHOD % "group std")
    again, warnings = resume(tmp_path / "run", letters.words())
    again.close()
    assert warnings[0] == f"'{file}' has changed since the run began; the run goes on with it as it is now"
    (entry,) = again.directory.config["history"]
    assert entry["step"] == 2
    assert list(entry["changed"]) == [str(file)]
    file.write_text(METHOD % "off")
    with pytest.raises(UserError, match=r"credit\.scale was 'group std', is 'off'"):
        resume(tmp_path / "run", letters.words())


def test_as_an_arm(file: Path) -> None:
    arms = parse_arms(["grpo", f"{file}:update.lr=1e-3,credit.scale=off", f"b={file}:mine:update.lr=2e-3"])
    assert [(a.name, a.recipe) for a in arms] == [
        ("grpo", "grpo"),
        ("mine", str(file)),
        ("b", f"{file}:mine"),
    ]
    assert arms[1].changes == {"update.lr": "1e-3", "credit.scale": "off"}
