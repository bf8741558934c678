"""Training and evaluation share no task, be it written otherwise."""

import json
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.evaluate.run import hold_out
from etude.tasks import TaskSet, load
from etude.tasks.asked import asked
from etude.types import Request, Task, Verdict


def never(text: str) -> Verdict:
    return Verdict(0.0, False)


VARIANTS = {
    "case and blanks": [("How many {i} ?", "k", "5"), ("how MANY  {i}?", "k", "5")],
    "kinds": [("How many {i}?", "k", "5"), ("How many {i}?", "l", "5")],
    "number formats": [("How many {i}?", "k", "5"), ("How many {i}?", "k", "5.0")],
    "width": [("How many {i}?", "k", "5"), ("How many {i}？", "k", "5")],
}


def parted(tasks: TaskSet, held: list[Task], draws: int = 200) -> int:
    trained = {asked(tasks.draw(Request(), i, 0)) for i in range(draws)}
    return len(trained & {asked(t) for t in held})


@pytest.mark.parametrize("case", VARIANTS)
def test_what_asks_the_same_goes_the_same_way(case: str) -> None:
    given = [Task(p.format(i=i), never, k, answer=a) for i in range(48) for p, k, a in VARIANTS[case]]
    tasks = TaskSet.of(given)
    held = tasks.sources[0].tasks("eval")
    assert 15 <= len(held) <= 24
    assert parted(tasks, held) == 0
    assert TaskSet.of(given[::-1]).fingerprint() == tasks.fingerprint()


def write(file: Path, texts: list[str]) -> str:
    file.write_text("\n".join(json.dumps({"prompt": t, "answer": "1"}) for t in texts))
    return str(file)


def test_one_file_under_two_names(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [f"How many {i}?" for i in range(40)])
    other = write(tmp_path / "b.jsonl", [f"HOW many {i}?" for i in range(40)])
    for spec in (f"{file},{file}:as=again", f"{file},{other}"):
        tasks = load(spec)
        assert parted(tasks, tasks.holdout(12, 0)) == 0


def test_an_evaluation_file_in_other_case_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", ["How many a?", "How many b?"])
    other = write(tmp_path / "b.jsonl", ["HOW MANY  b?", "How many c?"])
    with pytest.raises(UserError, match=r"1 task\(s\) stand in both"):
        load(f"{file}:eval={other}")


def test_a_task_that_asks_what_is_held_out_is_not_trained_on() -> None:
    tasks = TaskSet.of([Task(f"How many {i}?", never, answer="1") for i in range(10)])
    (held,) = tasks.holdout(1, 0)
    twin = Task(held.prompt[0].content.upper(), never, "other")
    assert tasks.held(twin)
    with pytest.raises(UserError, match="held out for evaluation"):
        tasks.draw(Request(task=twin), 0, 0)


def test_a_files_tuning_problems_are_apart_from_all_others() -> None:
    given = [Task(f"How many {i}?", never, answer="1") for i in range(100)]
    plain, tuned = TaskSet.of(given), TaskSet.of(given)
    examined, tuning = hold_out(plain, 15), hold_out(tuned, 15, tuning=True)
    assert len(tuning) == 15
    assert {t.key for t in examined} == {t.key for t in tuned.sources[0].tasks("eval")} & {
        t.key for t in examined
    }
    assert not {asked(t) for t in tuning} & {asked(t) for t in tuned.sources[0].tasks("eval")}
    assert parted(tuned, tuning) == parted(tuned, examined) == 0
    assert parted(plain, tuning) > 0, "the runs that count are trained on them"
    assert hold_out(tuned, 15, tuning=True) == tuning, "as when a run is taken up again"
    chosen = tuned.validation(10)
    assert not {asked(t) for t in chosen} & {asked(t) for t in [*tuning, *examined]}
    assert len(hold_out(TaskSet.of(given), 1000, tuning=True)) == 20, "a quarter of 80"
    with pytest.raises(UserError, match="too few tasks to set some aside for tuning"):
        hold_out(TaskSet.of(given[:3]), 2, tuning=True)
