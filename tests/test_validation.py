"""What decides which weights are kept, or when a run ends, is measured on problems that are neither trained on nor examined."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import etude
import worlds_of_letters as letters
from etude.errors import UserError
from etude.report.run import RunDirectory
from etude.tasks import TaskSet, load
from etude.tasks.asked import asked
from etude.train import checkpoint, session
from etude.train.measure import load_policy
from etude.train.reopen import Change, resume
from etude.train.settings import goal, run_settings
from etude.train.setup import start
from etude.types import Message, Request, Task
from test_resume import facts, same_weights

SETTINGS = {
    "run__tasks_per_step": 16,
    "run__eval_problems": 8,
    "run__validation_problems": 10,
    "run__validate_every": 4,
    "run__checkpoint_every": 6,
    "update__lr": 2e-3,
}


def begun(place: Path, name: str = "run", steps: int = 18, tasks: TaskSet | None = None, **more):
    plan = letters.plan(place, "grpo", steps, **{**SETTINGS, **more})
    return start(plan, place / name, tasks or letters.words())


class Watch:
    """Tells a function of each step."""

    def __init__(self, after: Callable[[int], None]) -> None:
        self.after = after

    def __call__(self, step: int, metrics: dict, fraction: float) -> None:
        self.after(step)

    def say(self, text: str) -> None: ...


def ended(run, fresh: bool = True) -> dict:
    return session.run_session(run, fresh=fresh, force=True, keep_model=False)


def test_the_problems_are_apart(tmp_path: Path) -> None:
    run = begun(tmp_path, run__keep="best")
    apart, held = {asked(t) for t in run.validation}, {asked(t) for t in run.holdout}
    assert len(apart) == 10
    assert not apart & held
    drawn = {asked(run.tasks.draw(Request(), i, 0)) for i in range(600)}
    assert not drawn & (apart | held)
    assert len(drawn) == 256 - 51 - 10, "everything else is trained on"
    run.close()
    plain = begun(tmp_path, "plain")
    assert plain.validation == []
    plain.close()


def test_of_a_generator_they_are_apart_as_well() -> None:
    tasks = load("chain_sum:min_digits=1,max_digits=1,min_terms=2,max_terms=2")
    held = tasks.holdout(30, 0)
    apart = tasks.validation(30)
    assert len(apart) == 30
    assert not {asked(t) for t in apart} & {asked(t) for t in held}
    assert all(tasks.held(t) for t in apart)


def test_what_asks_the_same_in_other_words_is_no_other_problem() -> None:
    """Every task stands there in three spellings; neither set holds a spelling of the other's, or of what is trained on."""
    names = [f"word{i}" for i in range(40)]
    spelt = [s for n in names for s in (n, n.upper(), f" {n} ")]
    tasks = TaskSet.of([Task((Message("user", s),), letters.First("w"), answer="w") for s in spelt])
    held = tasks.holdout(6, 0)
    apart = tasks.validation(6)
    drawn = [tasks.draw(Request(), i, 0) for i in range(300)]
    one, two, three = ({asked(t) for t in group} for group in (held, apart, drawn))
    assert len(two) == 6
    for a, b in ((one, two), (two, three), (one, three)):
        assert not a & b


def test_too_few_tasks_are_refused(tmp_path: Path) -> None:
    few = TaskSet.of(
        [Task((Message("user", w),), letters.First(w[0]), answer=w[0]) for w in ("ab", "cd", "da")]
    )
    with pytest.raises(UserError, match="holds too few tasks to set some aside"):
        begun(tmp_path, tasks=few, run__stop_when="accuracy>0.5")


def test_the_best_weights_are_kept_and_measured_elsewhere(tmp_path: Path) -> None:
    run = begun(tmp_path, run__keep="best", steps=19)

    def spoil(step: int) -> None:
        if step == 12:
            for group in run.learner.optimiser().param_groups:
                group["base_lr"] = 0.3

    found = session.run_session(run, force=True, watcher=Watch(spoil))
    seen = {
        m["step"]: m["validation/accuracy"] for m in run.directory.metrics() if "validation/accuracy" in m
    }
    assert sorted(seen) == [4, 8, 12, 16, 19], "every so many steps, and at the end"
    best = max(seen, key=lambda step: (seen[step], -step))
    assert best <= 12
    assert checkpoint.steps(run.directory.path / "checkpoints", "best") == [best]
    after = found["after"]
    assert after["rule"] == "best on 10 validation problems"
    assert after["step"] == best
    assert after["flops"] == next(m["flops"] for m in run.directory.metrics() if m["step"] == best)
    assert seen[best] > seen[19]
    kept = checkpoint.load(run.directory.path / "checkpoints", best, "best")[1]["policy"]["weights"]
    saved = load_policy(str(run.directory.path), "fp32").state_dict()["weights"]
    assert kept.keys() == saved.keys()
    assert all((kept[name] == saved[name]).all() for name in kept)
    assert etude.load(run.directory.path).after.card.step == best


@pytest.mark.parametrize(
    "more", [{"run__keep": "best"}, {"run__stop_when": "accuracy>0.5"}], ids=["keep", "stop"]
)
def test_it_resumes_exactly(more: dict, tmp_path: Path) -> None:
    whole = begun(tmp_path, "whole", **more)
    first = ended(whole)
    half = begun(tmp_path, "half", **more)

    def cut(step: int) -> None:
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run_session(half, force=True, watcher=Watch(cut), keep_model=False)
    again, warnings = resume(tmp_path / "half", letters.words())
    assert not warnings
    assert again.context.step == 6
    second = ended(again, fresh=False)
    assert facts(tmp_path / "whole") == facts(tmp_path / "half")
    assert same_weights(tmp_path / "whole", tmp_path / "half")
    for name in ("step", "rule", "mean", "per_problem"):
        assert first["after"][name] == second["after"][name]
    assert first["ended"] == second["ended"]


def test_a_run_ends_where_its_goal_is_reached(tmp_path: Path) -> None:
    run = begun(tmp_path, run__stop_when="accuracy>0.4", steps=60)
    found = ended(run)
    last = run.directory.metrics()[-1]
    assert last["validation/accuracy"] > 0.4
    assert found["steps"] == last["step"] < 60
    assert found["ended"].startswith(
        f"accuracy {last['validation/accuracy']:.1%} on 10 validation problems is above 40.0%"
    )
    assert found["after"]["rule"] == "last"
    reached = begun(tmp_path, "reached", run__stop_when="accuracy>0.0")
    assert ended(reached)["steps"] == 0, "where it is reached at the start nothing is trained"


def test_best_weights_that_are_gone_are_told(tmp_path: Path) -> None:
    ended(begun(tmp_path, run__keep="best"))
    shutil.rmtree(next((tmp_path / "run" / "checkpoints").glob("best-*")))
    again, warnings = resume(tmp_path / "run", letters.words(), change=Change("+2-steps"))
    assert "the best weights until then are not kept any more" in warnings[0]
    assert ended(again, fresh=False)["after"]["step"] >= 18


@pytest.mark.parametrize(("text", "value"), [("accuracy>0.9", 0.9), (" accuracy > .5", 0.5)])
def test_a_goal_is_read(text: str, value: float) -> None:
    assert goal(text) == value


@pytest.mark.parametrize(
    "text",
    ["accuracy>1", "accuracy>90", "accuracy>=0.5", "reward>0.5", "accuracy<0.5", "0.9", "accuracy>1e9"],
)
def test_a_goal_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="it must read accuracy>SHARE"):
        run_settings({}, {"stop_when": text})


def test_from_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    from etude import cli

    letters.model(tmp_path)
    rows = [
        {"prompt": a + b, "answer": a, "check": "exact"} for a in letters.LETTERS for b in letters.LETTERS
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    command = [
        "train",
        "grpo",
        "-m",
        "model",
        "-t",
        "t.jsonl",
        "--steps",
        "2",
        "-q",
        "--force",
        "--set",
        "run.max_tokens=2",
    ]
    assert cli.run([*command, "--out", "r", "--keep", "best", "--stop-when", "accuracy>0.99"]) == 0
    shown = capsys.readouterr()
    assert "3 problems are set aside to decide on; they are neither trained on nor examined" in shown.err
    assert "checkpoint: best on 3 validation problems" in shown.out
    settings = RunDirectory.open("r").config["settings"]
    assert (settings["keep"], settings["stop_when"]) == ("best", "accuracy>0.99")
    assert cli.run([*command, "--out", "r2", "--keep", "most"]) == 2
    assert "run.keep is 'most'; it must be one of last, best" in capsys.readouterr().err
