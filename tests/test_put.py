"""How tasks are put to a model: a run is asked, examined and resumed in one and the same way."""

import json
import string
from pathlib import Path

import pytest

import etude
from etude.errors import UserError
from etude.models.tiny import tiny_directory
from etude.train.measure import load_policy, run_defaults
from etude.train.put import put, recorded, worked_examples
from etude.train.settings import run_settings

QUICK = {
    **{"run.precision": "fp32", "run.max_tokens": 3, "run.eval_problems": 2, "run.eval_samples": 1},
    **{"run.tasks_per_step": 2, "run.group_size": 2, "run.preflight": 2, "run.checkpoint_every": 1},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny_directory(tmp_path / "m", string.printable, layers=1, width=16, heads=2, kv_heads=1)
    rows = [json.dumps({"prompt": f"{i}+1=", "answer": i + 1}) for i in range(20)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    return tmp_path


def trained(place: Path, **settings: object) -> etude.TrainedRun:
    more = {f"run.{name}": value for name, value in settings.items()}
    model, tasks = str(place / "m"), str(place / "t.jsonl")
    return etude.train(
        "grpo", model, tasks, 1, settings={**QUICK, **more}, out=place / "r", force=True, progress=False
    )


def test_a_run_asks_as_it_was_told(place: Path) -> None:
    run = trained(place, system="be brief", prompt="Q: {question}", examples=str(place / "t.jsonl"), shots=2)
    (place / "t.jsonl").write_text(json.dumps({"prompt": "other", "answer": "5"}))  # what was shown stays
    config = run.directory.config
    examples = recorded(config)
    assert len(examples) == 2
    policy = load_policy(str(run.path))
    put([policy], run_settings(run_defaults(str(run.path)), {}), examples)
    asked = (etude.Message("user", "7+1="),)
    text = policy.tokenizer.decode(policy.renderer.prompt(asked, 1), special=True)
    assert "be brief" in text
    assert text.count("Q: ") == 3
    assert all(question in text and answer in text for question, answer in examples)


def test_a_held_out_problem_is_never_an_example(place: Path) -> None:
    run = trained(place, examples=str(place / "t.jsonl"), shots=8)
    held = {row[0] for row in run.after.to_dict()["per_problem"]}
    from etude.tasks import load

    keys = {
        t.prompt[0].content: t.key
        for s in load(str(place / "t.jsonl")).sources
        for p in ("train", "eval")
        for t in s.tasks(p)
    }
    assert not held & {keys[question] for question, _ in recorded(run.directory.config)}


def test_too_few_examples_are_said(place: Path) -> None:
    settings = run_settings({}, {"examples": str(place / "t.jsonl"), "shots": "30"})
    with pytest.raises(
        UserError, match=r"has 20 rows with an answer that are not held out; run.shots asks for 30"
    ):
        worked_examples(settings)
    with pytest.raises(UserError, match="must hold"):
        trained(place, prompt="no place")


def test_a_resumed_run_asks_in_the_same_way(place: Path) -> None:
    from etude.train.reopen import resume

    run = trained(place, system="be brief")
    again, _ = resume(run.path)
    try:
        assert again.generator.renderer.framing.system == "be brief"
    finally:
        again.close()
