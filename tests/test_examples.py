"""The programs of `examples/` run with any model, and stay short enough to start from; so does what the pages show."""

import re
import runpy
import string
from functools import partial
from pathlib import Path

import pytest

import etude
import worlds_of_letters as letters
from etude.methods import find
from etude.models.tiny import tiny_directory
from etude.report.run import RunDirectory
from etude.train.loop import train
from etude.train.setup import start

EXAMPLES = Path(__file__).parent.parent / "examples"
PAGE = Path(__file__).parent.parent / "docs" / "curricula.md"


@pytest.mark.parametrize(
    ("name", "said"), [("second_attempt", "attempts/second"), ("curriculum", "difference/3")]
)
def test_it_runs(name: str, said: str, tmp_path: Path, monkeypatch, capsys) -> None:
    program = EXAMPLES / f"{name}.py"
    assert len(program.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [program.name, str(tiny_directory(tmp_path / "m")), "1"])
    monkeypatch.setattr(etude, "train", partial(etude.train, force=True))  # a model that knows nothing yet
    runpy.run_path(str(program), run_name="__main__")
    assert said in capsys.readouterr().out


def test_a_hacked_reward_is_watched(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["reward_hacking.py", str(tmp_path), "1"])
    runpy.run_path(str(EXAMPLES / "reward_hacking.py"), run_name="__main__")
    assert "score/watched/check" in capsys.readouterr().out


def test_contracts_are_read_labelled_and_preferred(tmp_path: Path, monkeypatch, capsys) -> None:
    model = str(tiny_directory(tmp_path / "m", string.printable, layers=1, width=32, heads=2, kv_heads=1))
    monkeypatch.setattr("sys.argv", ["smart_contracts.py", str(tmp_path / "out"), "1", model])
    found = runpy.run_path(str(EXAMPLES / "smart_contracts.py"), run_name="__main__")
    assert capsys.readouterr().out.count("nats a token") == 4
    stages = [RunDirectory.open(tmp_path / "out" / "runs" / n).config for n in ("read", "label", "prefer")]
    assert [s["plan"]["recipe"] for s in stages] == ["sft", "sft", "rpo"]
    assert [s["plan"]["model"] for s in stages][1:] == [
        str(tmp_path / "out" / "runs" / n / "model") for n in ("read", "label")
    ]
    for row in found["contracts"]():
        paid_first = row["code"].index(found["PAY"]) < row["code"].index(found["WRITE"])
        assert row["good"].startswith("Yes" if paid_first or "tx.origin" in row["code"] else "No")
        assert row["poor"][:3] == row["good"][:3]
        assert ("line 2" in row["good"]) == paid_first


def test_every_program_is_run_here() -> None:
    programs = {"second_attempt", "curriculum", "reward_hacking", "smart_contracts"}
    assert {p.stem for p in EXAMPLES.glob("*.py")} == programs


def test_the_curriculum_of_the_page_trains(tmp_path: Path) -> None:
    """Saved as a file of one's own, it is found by its path and trained together with a method of the catalogue."""
    (block,) = (b for b in re.findall(r"(?:^    .*\n|^\n)+", PAGE.read_text(), re.M) if "class Halfway" in b)
    file = tmp_path / "halfway.py"
    file.write_text("\n".join(line[4:] for line in block.splitlines()))
    assert find(str(file)).resolved()["objective"] == find("grpo").resolved()["objective"]
    run = start(letters.plan(tmp_path, f"rloo+{file}", 2), tmp_path / "run", letters.words())
    train(run)
    rates = run.curriculum.state_dict()["rate"]
    assert any(rate != 0.5 for rate in rates)
    run.close()
