"""The README's Python example does what it says, on a tiny model."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_python_example_runs(tmp_path: Path, monkeypatch) -> None:
    from etude.models.tiny import tiny_directory

    block = next(b for b in re.findall(r"(?:^    .*\n|^\n)+", README.read_text(), re.M) if "TaskSet.of" in b)
    code = "\n".join(line[4:] for line in block.splitlines())
    assert len([line for line in code.splitlines() if line.strip()]) <= 14, "about ten lines"
    monkeypatch.chdir(tmp_path)
    tiny_directory("my-model", "0123456789+=", layers=1, width=32, heads=2, kv_heads=1, seed=3)
    code = code.replace('Budget(50, "steps")', 'Budget(1, "steps"), changes=FAST')
    fast = {
        "run.precision": "fp32",
        "run.max_tokens": "3",
        "run.eval_problems": "4",
        "run.tasks_per_step": "4",
    }
    exec(compile(code, "README", "exec"), {"FAST": fast, "__name__": "readme"})
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained("runs/mine/model") is not None


def test_every_command_it_names_exists() -> None:
    from typer.main import get_command

    from etude.cli import app

    known = set(get_command(app).commands)
    named = set(re.findall(r"^    etude (\w+)", README.read_text(), re.M))
    assert named
    assert named <= known
