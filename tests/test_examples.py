"""The programs of `examples/` run with any model, and stay short enough to start from."""

import runpy
from pathlib import Path

import pytest

from etude.policy.tiny import tiny_directory

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "said"), [("second_attempt", "attempts/second"), ("curriculum", "difference/3")]
)
def test_it_runs(name: str, said: str, tmp_path: Path, monkeypatch, capsys) -> None:
    program = EXAMPLES / f"{name}.py"
    assert len(program.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [program.name, str(tiny_directory(tmp_path / "m")), "1"])
    runpy.run_path(str(program), run_name="__main__")
    assert said in capsys.readouterr().out


def test_every_program_is_run_here() -> None:
    assert {p.stem for p in EXAMPLES.glob("*.py")} == {"second_attempt", "curriculum"}
