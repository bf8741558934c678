"""What cannot work is refused with one clear sentence and exit code 2; what fails is never a zero."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import toys
import worlds_of_letters as letters
from etude import cli, seeds
from etude.assembly import build
from etude.batch import pack
from etude.errors import Refused, UserError
from etude.methods import catalogue, find
from etude.tasks import TaskSet
from etude.train.collect import collect
from etude.train.config import Budget, Plan
from etude.train.loop import train
from etude.train.preflight import preflight
from etude.train.settings import run_settings
from etude.train.setup import start
from etude.types import Message, Task, Verdict
from recipes_apart import apart


class Fragile:
    """A checker that raises on a share of its calls, chosen by a hash of the answer."""

    def __init__(self, inner, share: float) -> None:
        self.inner, self.share = inner, share

    def __call__(self, answer: str) -> Verdict:
        if seeds.key("fragile", answer) / 2**63 < self.share:
            raise ValueError("the checker fell over")
        return self.inner(answer)


def fragile_words(share: float) -> TaskSet:
    from dataclasses import replace

    source = letters.words().sources[0]
    return TaskSet.of(
        [replace(t, check=Fragile(t.check, share)) for part in ("train", "eval") for t in source.tasks(part)]
    )


def run_with(tmp_path: Path, tasks: TaskSet, recipe: str = "reinforce", reward=None, **more):
    changes = {"run__eval_problems": 0, "run__tasks_per_step": 6, "run__group_size": 6, **more}
    return start(letters.plan(tmp_path, recipe, 2, **changes), tmp_path / "run", tasks, reward)


def test_errors_leave_the_advantages_of_the_others_alone() -> None:
    _, stages = build(find("reinforce"))
    policy = toys.TablePolicy()
    sound = [toys.task(i) for i in range(4)]
    broken = [toys.task(i, Fragile(toys.coin, 0.3)) for i in range(4)]
    good = toys.play(stages, policy, sound, samples=8)
    bad = toys.play(stages, policy, broken, samples=8)
    assert sum(len(g.failed) for g in bad) > 4
    for before, after in zip(good, bad, strict=True):
        lost = {e.index for e in after.failed}
        kept = [e for e in before.episodes if e.index not in lost]
        assert [e.tokens.tolist() for e in kept] == [e.tokens.tolist() for e in after.episodes]
        rewards = np.array([e.reward for e in kept])
        signals = stages["credit"]([after], None)
        for signal, reward in zip(signals, rewards, strict=True):
            assert np.allclose(signal.advantage[signal.episode.sampled], reward - rewards.mean())


def test_above_the_allowed_share_of_errors_the_run_stops(tmp_path: Path) -> None:
    run = run_with(tmp_path, fragile_words(0.6))
    with pytest.raises(Refused, match="attempts failed with an error") as stopped:
        collect(run)
    assert "the checker fell over" in str(stopped.value)
    assert "Traceback" in str(stopped.value)
    run.close()


def test_below_it_errors_are_counted(tmp_path: Path) -> None:
    run = run_with(tmp_path, fragile_words(0.3), run__error_rate=0.9)
    kept, drawn = collect(run)
    failed = sum(len(g.failed) for g in drawn)
    assert failed
    assert all(e.scores.keys() == {"reward"} for g in kept for e in g.episodes)
    run.record(kept, drawn, run.credit(kept, run.context), {"signal_tokens": 1.0})
    metrics = run.directory.metrics()[-1]
    assert metrics["errors"] == pytest.approx(failed / sum(len(g.episodes) + len(g.failed) for g in drawn))
    assert metrics["reward"] == pytest.approx(np.mean([e.reward for g in drawn for e in g.episodes]))
    run.close()


@pytest.mark.parametrize("recipe", apart("rollout", "group_rollout", "credit"))
def test_every_recipe_plays_worlds_or_refuses_them(recipe: str, tmp_path: Path) -> None:
    """No recipe falls over a task that is played turn by turn, nor takes one for a task that is answered in words."""
    needs = catalogue()[recipe].all_needs
    more = {"run__teacher": letters.model(tmp_path / "teacher", seed=2)} if "teacher" in needs else {}
    changes = {"run__tasks_per_step": 2, "run__group_size": 4, **more}
    if {"text", "hints"} & set(needs):
        with pytest.raises(Refused, match="which is missing here"):
            run_with(tmp_path, letters.pairs(), recipe, **changes)
        return
    run = run_with(tmp_path, letters.pairs(), recipe, **changes)
    train(run)
    assert all(m["errors"] == 0 for m in run.directory.metrics())
    run.close()


def test_constant_reward_is_refused(tmp_path: Path) -> None:
    run = run_with(tmp_path, letters.words(), reward=lambda episode: 0.5)
    found = preflight(run)
    run.close()
    assert found.cause == "reward"
    assert "constant (0.5)" in found.sentence


def test_a_hopeless_length_limit_is_refused_and_named(tmp_path: Path) -> None:
    class Long:
        def __call__(self, answer: str) -> Verdict:
            return Verdict(float(len(answer) > 10), len(answer) > 10)

    globals()["Long"] = Long
    tasks = TaskSet.of(
        [Task((Message("user", w),), Long(), answer="a" * 11) for w in ("ab", "ba", "cd", "dc", "ca")]
    )
    run = run_with(tmp_path, tasks, run__max_tokens=4)
    found = preflight(run)
    run.close()
    assert found.cause == "length"
    assert "truncated" in found.sentence


def test_nothing_is_refused_where_something_can_be_learned(tmp_path: Path) -> None:
    run = run_with(tmp_path, letters.words())
    assert preflight(run).cause == ""
    run.close()


def test_steps_without_signal_end_the_run(tmp_path: Path) -> None:
    run = run_with(tmp_path, letters.words(), reward=lambda episode: 1.0, run__patience=2)
    with pytest.raises(Refused, match="no signal for 2 steps"):
        train(run)
    run.close()
    from etude.train.checkpoint import steps

    assert steps(tmp_path / "run" / "checkpoints") == [2], "what was done is kept"


def test_out_of_memory_cuts_the_micro_batch_and_not_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = toys.lesson("grpo", drift=0.1)
    whole = toys.gradient(lesson)
    limit = len(pack(lesson.signals)) // 3
    outputs = lesson.policy.outputs

    def tight(batch, needs=frozenset(), inputs=None):
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return outputs(batch, needs, inputs)

    monkeypatch.setattr(lesson.policy, "outputs", tight)
    assert torch.allclose(toys.gradient(lesson), whole, rtol=1e-9, atol=1e-12)
    limit = 2
    with pytest.raises(UserError, match="does not fit into memory"):
        toys.gradient(lesson)


# ---- the command line -------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    rows = [{"prompt": w, "answer": w[0]} for w in ("abc", "bca", "cab", "dab", "bad", "cad", "dad", "add")]
    good = tmp_path / "good.jsonl"
    good.write_text("\n".join(map(json.dumps, rows)))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(good.read_text().replace('{"prompt": "cab"', '{"prompt "cab"'))
    return {
        "model": letters.model(tmp_path),
        "good": str(good),
        "empty": str(empty),
        "broken": str(broken),
        "out": str(tmp_path / "out"),
    }


TRAIN = ("train", "grpo", "--model", "{model}", "--tasks", "{good}", "--out", "{out}", "--steps", "1")
BAD = {
    "unknown recipe": (("train", "grppo", *TRAIN[2:]), "did you mean 'grpo'?"),
    "same stage twice": (("train", "grpo+gspo", *TRAIN[2:]), "both replace the stage 'credit'"),
    "unknown setting": ((*TRAIN, "--set", "objective.clip_lwo=0.1"), "did you mean 'clip_low'?"),
    "unknown stage": ((*TRAIN, "--set", "objectiv.clip_low=0.1"), "did you mean 'objective'?"),
    "unknown run setting": ((*TRAIN, "--set", "run.group_siz=4"), "did you mean 'group_size'?"),
    "wrong type": ((*TRAIN, "--set", "run.group_size=four"), "must be of type int"),
    "out of range": ((*TRAIN, "--set", "objective.clip_low=2"), "must lie in [0, 1]"),
    "not a pair": ((*TRAIN, "--set", "objective.clip_low"), "stage.field=value"),
    "empty task file": ((*TRAIN[:5], "{empty}", *TRAIN[6:]), "empty.jsonl"),
    "broken line": ((*TRAIN[:5], "{broken}", *TRAIN[6:]), "line 3"),
    "missing model": ((*TRAIN[:3], "/nowhere/model", *TRAIN[4:]), "/nowhere/model"),
    "missing tasks": ((*TRAIN[:5], "/nowhere/t.jsonl", *TRAIN[6:]), "/nowhere/t.jsonl"),
    "bad budget": ((*TRAIN[:8], "--budget", "ten"), "a budget looks like"),
    "both ends": ((*TRAIN, "--budget", "1m"), "not both"),
    "needs a teacher": (("train", "distill", *TRAIN[2:]), "needs a second model"),
    "a setting that does not count": (
        ("eval", "{model}", "--tasks", "{good}", "--set", "run.eval_problems=4"),
        "does not count when a model is examined",
    ),
    "no such run": (("resume", "/nowhere/run"), "/nowhere/run"),
    "no such command": (("trian",), "trian"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_sentence_and_exit_2(case: str, files, capsys) -> None:
    arguments, expected = BAD[case]
    assert cli.run([a.format(**files) for a in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert expected in said
    assert said.count("\n") == 0, said
    assert not Path(files["out"]).exists(), "nothing is half written"


def test_train_eval_resume_from_the_command_line(files, capsys) -> None:
    fast = ["--set", "run.precision=fp32", "--set", "run.max_tokens=2", "--set", "run.eval_problems=2"]
    arguments = [a.format(**files) for a in TRAIN]
    assert cli.run([*arguments, "--json", "--force", *fast]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["steps"] == 1
    assert summary["before"]["problems"] == summary["after"]["problems"] == 2
    assert Path(summary["report"]).exists()
    assert (
        cli.run(["eval", files["out"], "--tasks", files["good"], "--problems", "2", "-k", "2", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["samples"] == 2
    assert cli.run(["sample", files["out"], "abc", "-n", "2", "--max-tokens", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert cli.run([*arguments]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert cli.run(["resume", files["out"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1


def test_facts_as_json(capsys) -> None:
    assert cli.run(["recipes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name", "topic", "paper", "replaces", "claim"} <= found[0].keys()
    claims = [recipe["claim"] for recipe in found]
    assert {claim["state"] for claim in claims} <= {"run", "not run", "untested", "failed"}
    said = [claim[axis] for claim in claims if claim["state"] == "run" for axis in ("updates", "flops")]
    assert said
    for one in said:  # a verdict with its interval, or why there is none
        assert one["label"]
        assert one.keys() >= ({"why"} if one["label"] == "no test" else {"effect", "low", "high"})
    assert cli.run(["tasks", "chain_sum", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "chain_sum"
    assert cli.run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gflops"]["bf16"] > 0


# ---- every setting is read ---------------------------------------------------------------------------------


def test_every_setting_of_every_recipe_changes_the_plan() -> None:
    from etude.assembly import resolved_stages
    from etude.methods import catalogue
    from etude.train.setup import describe

    tried = set()  # what a stage's own code makes of a setting is the same in every recipe
    for name, recipe in catalogue().items():
        plan = Plan(name, "smollm2", "chain_sum", Budget(1, "steps"))
        plain = describe(plan, recipe, run_settings({}, {}))["stages"]
        for stage, part in resolved_stages(recipe).items():
            for parameter, value in part:
                if (part.factory, parameter.name) in tried:
                    continue
                tried.add((part.factory, parameter.name))
                other = _other(parameter, value)
                changed, _ = build(recipe, {f"{stage}.{parameter.name}": other})
                now = describe(plan, changed, run_settings({}, {}))["stages"]
                assert now != plain, f"{name}: {stage}.{parameter.name}={other}"


SPECIAL = {  # texts that are read when a stage is made
    "ways": "direct+steps",
    "drafts": "4",
    "by": "agreement",
    "aligned_by": "agreement",
    "corpus": str(Path(__file__).parent.parent / "constraints.txt"),
    "phases": "4;0",
    "strategies": "lines: line by line|heart: by heart",
    "skills": str(Path(__file__).parent.parent / "docs"),
    "principles": str(Path(__file__).parent / "data" / "principles.txt"),
}


def _other(parameter, value):
    """Another valid value of a setting."""
    known = parameter.setting
    if known.choices:
        return next(c for c in known.choices if c != value)
    if isinstance(value, bool):
        return not value
    low = known.low if known.low is not None else 0
    high = known.high if known.high is not None else low + 10
    if parameter.kind in (int, int | None) or isinstance(value, int):
        return int(low) if value != low else int(low) + 1
    if isinstance(value, str) or (value is None and parameter.kind is str):
        return SPECIAL.get(parameter.name, "other=1")
    return low + (high - low) * 0.37


def test_overlap_of_own_sets_is_refused() -> None:
    tasks = [Task((Message("user", w),), letters.First(w[0]), answer=w[0]) for w in ("ab", "ba", "cd")]
    with pytest.raises(UserError):
        TaskSet.of(tasks, held=tasks[:1])
    assert pickle.loads(pickle.dumps(tasks[0])).key == tasks[0].key
