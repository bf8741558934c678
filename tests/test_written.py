"""Tasks that a model wrote, as a run keeps them and as its page shows them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser.synthetic import MALICIOUS, Words, make_episode, make_run
from etude.curriculum.written import News, Written, WrittenTasks
from etude.fixtures.curricula import ExampleContext
from etude.methods import find
from etude.report import written
from etude.report.page import write_report
from etude.report.run import RunDirectory
from etude.tasks.posed import with_answer
from etude.types import Group, Message, Signal, Task
from test_report_page import content_of
from toys import coin


def step_of(words: Words, task: Task, rewards: list[float]) -> Group:
    rng = np.random.default_rng(0)
    return Group(task, tuple(make_episode(words, rng, task, i, r) for i, r in enumerate(rewards)))


def tell(run: RunDirectory, step: int, groups: list[Group], news: list[News], words: Words) -> None:
    signals = [Signal(e, e.sampled.astype(np.float32)) for g in groups for e in g.episodes]
    run.write_step(step, {"reward": 0.5}, signals, groups, words.decode, news)


def writing_run(path: Path, question: str = "What is 2 + 3?") -> RunDirectory:
    """A run of three steps: in the first a task is written, which the second and third attempt; then it leaves the buffer."""
    run, words, kept = make_run(path, steps=1), Words(), WrittenTasks(most=1)
    asks = Task((Message("user", "Write a task unlike 1 + 1."),), coin, kind="propose", answer="none")
    new = Task((Message("user", question),), coin, kind="sum", difficulty=2.0, answer="5")
    proposals = step_of(words, asks, [1.0, 1.0])
    kept.add(Written.by(proposals.episodes[1], new, 1, 0.25), ExampleContext())
    tell(run, 2, [proposals], kept.news(), words)
    for step, rewards in ((3, [0.0, 0.0]), (4, [1.0, 0.0])):
        attempts = step_of(words, new, rewards)
        kept.judge([attempts])
        if step == 4:
            other = replace(new, prompt=(Message("user", "And 4 + 4?"),))
            kept.add(Written(other, new.key, 3, writer="teacher"), ExampleContext())
        tell(run, step, [attempts], kept.news(), words)
    assert kept.news() == [], "told once"
    return run


def test_who_wrote_it_from_what_and_who_solved_it(tmp_path: Path) -> None:
    later, first = writing_run(tmp_path / "run").written()
    assert first["prompt"] == [{"role": "user", "content": "What is 2 + 3?"}]
    assert (first["kind"], first["difficulty"], first["answer"]) == ("sum", 2.0, "5")
    assert (first["writer"], first["step"], first["episode"], first["probed"]) == ("policy", 2, "2-1", 0.25)
    assert first["asked"] == "Write a task unlike 1 + 1."
    assert [(a["step"], a["id"], a["by"], a["correct"]) for a in first["attempts"]] == [
        (3, "3-0", "policy 1", False),
        (3, "3-1", "policy 1", False),
        (4, "4-0", "policy 1", True),
        (4, "4-1", "policy 1", False),
    ]
    assert (first["tried"], first["solved"], first["left"]) == (4, 1, 4)
    assert (later["writer"], later["parent"], later["episode"]) == ("teacher", first["key"], None)
    assert (later["tried"], later["left"]) == (0, None)


def test_what_is_cut_back_is_forgotten_and_damage_is_passed_over(tmp_path: Path) -> None:
    run = writing_run(tmp_path / "run")
    run.truncate(3)
    (only,) = run.written()
    assert (only["tried"], only["left"]) == (2, None)
    with (run.path / "written.jsonl").open("a") as file:
        file.write('{"step": 3, "what": "tried", "key": "nobody"}\n{"step": 3, "what": "written"}\n{"torn')
    assert run.written() == [only]


def test_the_page_holds_them_and_no_more_than_fits(tmp_path: Path) -> None:
    run = writing_run(tmp_path / "run", MALICIOUS)
    page = write_report(run.path).read_text()
    shown = content_of(page)["written"]
    assert shown["total"] == 2
    assert shown["rows"][1]["prompt"][0]["content"] == MALICIOUS
    assert page.count("<script") == 2
    assert len(written.within(run.written(), 500)) == 1
    assert "written" not in content_of(write_report(make_run(tmp_path / "other", steps=1).path).read_text())


@pytest.mark.parametrize("recipe", ["absolute_zero", "soar", "socratic_zero"])
def test_a_recipe_that_writes_tells_its_run(tmp_path: Path, recipe: str) -> None:
    """Every stage that keeps a buffer hands its news on (`Run.record` asks for them)."""
    from etude.assembly import build

    stages: dict[str, Any] = build(find(recipe))[1]
    (keeper,) = [part for part in stages.values() if isinstance(getattr(part, "written", None), WrittenTasks)]
    new = Task((Message("user", "1 + 1?"),), coin, answer="2")
    keeper.written.add(Written(new), ExampleContext())
    assert [n.key for n in keeper.news()] == [new.key]
    json.dumps(written.lines(1, [News("left", "x")], make_run(tmp_path / "r", steps=1).episodes()))


def test_a_text_with_a_problem_and_its_answer_is_a_task() -> None:
    plain = Task((Message("user", "Be short."), Message("user", "What is left?")), coin, answer="none")
    found = with_answer(plain, "Problem: How many?\nAnswer: 2\nbecause")
    assert found is not None
    assert [m.content for m in found.prompt] == ["Be short.", "How many?"]
    assert (found.answer, found.check("2").correct, found.check("3").correct) == ("2", True, False)
    assert with_answer(plain, "Problem: How many?") is None
    assert with_answer(plain, "Problem:\nAnswer: 2") is None
    sums = Task((Message("user", "What is 1 + 1?"),), coin, answer="2")
    worked = with_answer(sums, "What is 3 + 4?\nAnswer: 9")
    assert worked is not None
    assert worked.answer == "7", "worked out, whatever the text says"
