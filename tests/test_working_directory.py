"""The commands import nothing from the working directory because it happens to be called like a module; a method that is
named is found there, after the library's and installed packages' modules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import etude
from etude.tasks.check import Function
from etude.tasks.isolate import Pool

NAMES = (
    "random",
    "json",
    "typing",
    "inspect",
    "ast",
    "ctypes",
    "signal",
    "pickle",
    "torch",
    "numpy",
    "typer",
    "rich",
)
NAMES += (
    "asyncio",
    "tempfile",
    "socket",
    "platformdirs",
    "reasoning_gym",
    "tokenizers",
    "transformers",
    "yaml",
    "six",
)
METHOD = """
import helper
from etude.credit.group import advantage
from etude.recipe import Recipe
from etude.settings import stage

RECIPE = Recipe(name=helper.NAME, idea="One. Two.", equation="A = r", stages={"credit": stage(advantage)})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open('RAN', 'a').write('{name} ')\n")
    (tmp_path / "mine.py").write_text(METHOD)
    (tmp_path / "helper.py").write_text("NAME = 'mine'\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "module.py").write_text(METHOD.replace("import helper", "from pkg import helper"))
    (tmp_path / "pkg" / "helper.py").write_text("NAME = 'packaged'\n")
    return tmp_path


def command(folder: Path, *words: str, script: bool = False) -> subprocess.CompletedProcess[str]:
    """`python -m etude ...`, or what the console script does, from the folder."""
    env = {k: v for k, v in os.environ.items() if k != "ETUDE_LAUNCHED"}
    env["PYTHONPATH"] = str(Path(etude.__file__).parents[1])
    # The script lies in a folder of its own, which Python puts first.
    how = ["-P", "-c", "from etude.launch import main; main()"] if script else ["-m", "etude"]
    return subprocess.run([sys.executable, *how, *words], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("script", [True, False])
def test_nothing_of_the_working_directory_is_run(folder: Path, script: bool) -> None:
    done = command(folder, "tasks", "chain_sum", "--json", script=script)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "chain_sum"
    assert not (folder / "RAN").exists(), (folder / "RAN").read_text()


@pytest.mark.parametrize("method", ["./mine.py", "pkg.module:RECIPE"])
def test_a_method_that_is_named_is_found_with_what_lies_beside_it(folder: Path, method: str) -> None:
    done = command(folder, "try", method, "--quick")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in ("mine", "packaged")
    assert not (folder / "RAN").exists(), (folder / "RAN").read_text()


def test_nor_do_the_children_that_judge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with Pool(workers=1) as pool:
        assert pool.run(Function(bool, isolated=True), "x").correct
    assert not (folder / "RAN").exists(), (folder / "RAN").read_text()
