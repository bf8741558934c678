"""The README's Python examples do what they say, on a tiny model."""

import re

import etude
from documents import indented
from etude.models.tiny import tiny_directory

FAST = {
    "run.precision": "fp32",
    "run.max_tokens": 3,
    "run.eval_problems": 4,
    "run.tasks_per_step": 4,
    "run.preflight": 2,
}


def run_block(marker: str, monkeypatch, model: str) -> dict:
    """Executes the README's block that holds `marker`, with `model`, one step and fast settings; its variables."""
    code = indented("README.md", marker)
    assert len([line for line in code.splitlines() if line.strip()]) <= 14, "about ten lines"
    whole = etude.train
    quick = {"settings": FAST, "force": True, "progress": False}

    def short(recipe, **given):
        assert re.fullmatch(r"\d+m", given["budget"])
        return whole(recipe, **{**given, "model": model, "budget": 1, **quick})

    monkeypatch.setattr(etude, "train", short)
    found: dict = {"__name__": "readme"}
    exec(compile(code, "README", "exec"), found)
    return found


def test_training_by_names(tmp_path, monkeypatch, capsys) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(tmp_path)
    model = tiny_directory("tiny", "0123456789+-= .", layers=1, width=32, heads=2, kv_heads=1, seed=3)
    run_block('model="smollm2"', monkeypatch, str(model))
    assert capsys.readouterr().out.strip()
    assert AutoModelForCausalLM.from_pretrained("my-model") is not None


def test_training_on_tasks_and_a_reward_of_ones_own(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_directory("my-model", "0123456789+=", layers=1, width=32, heads=2, kv_heads=1, seed=3)
    run = run_block("def reward", monkeypatch, str(model))["run"]
    assert (tmp_path / "runs" / "mine" / "model").is_dir()
    assert run.after is not None
