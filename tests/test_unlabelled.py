"""Tasks without labels: training code cannot reach what is right, evaluation can."""

from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.errors import UserError
from etude.methods import catalogue
from etude.report.health import Health
from etude.report.run import RunDirectory
from etude.tasks import load
from etude.tasks.answer import Answer
from etude.tasks.unlabelled import unlabelled
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from etude.types import Request, Task

ALONE = [name for name, recipe in catalogue().items() if recipe.all_defaults.get("unlabelled")]


def test_what_is_drawn_holds_no_label_and_what_is_held_out_does() -> None:
    tasks = letters.words()
    held = tasks.holdout(5, 0)
    tasks.unlabelled = True
    assert all(task.answer for task in held)
    for request in (Request(), Request(kind="first"), Request(task=tasks.sources[0].tasks("train")[0])):
        task = tasks.draw(request, 0, 0)
        assert (task.answer, task.reference, task.hints, task.environment) == (None, None, (), None)
        with pytest.raises(UserError, match="unlabelled"):
            task.check("a")
        assert not tasks.held(task)


@pytest.mark.parametrize("spec", ["lab:level=1", "chain_sum:max_terms=2,max_digits=2"])
def test_nothing_that_is_drawn_leads_to_the_gold(spec: str) -> None:
    tasks = load(spec)
    gold = {i: tasks.draw(Request(), i, 0).answer for i in range(5)}
    tasks.unlabelled = True
    for i, answer in gold.items():
        task = tasks.draw(Request(), i, 0)
        assert answer is not None
        if len(answer) > 2:
            assert answer not in repr((task.check, task.meta))


@pytest.mark.parametrize(
    ("gold", "reply", "read"),
    [("12", "So it is 13.", "13"), ("B", "The answer is (C).", "C"), ("yes", "No.", "no")],
)
def test_answers_are_read_as_the_check_reads_them(gold: str, reply: str, read: str) -> None:
    check = Answer(gold)
    assert check.read(reply) == check.blank().read(reply) == read
    assert gold not in check.blank().gold or gold == "B"
    assert unlabelled(Task("q", check, answer=gold)).check.read(reply) == read


@pytest.mark.parametrize("recipe", ALONE)
def test_a_recipe_learns_without_labels(recipe: str, tmp_path: Path) -> None:
    run = start(
        letters.plan(tmp_path, recipe, 2, run__group_size=4, run__tasks_per_step=4),
        tmp_path / "run",
        letters.words(),
    )
    train(run)
    result = run.evaluate("last")
    run.close()
    assert result.mean.problems == 24, "evaluation has its checker"
    rows = RunDirectory.open(tmp_path / "run").episodes(columns=["answer", "advantage"]).to_pylist()
    assert {row["answer"] for row in rows} == {None}
    assert any(row["advantage"] for row in rows)
    again, _ = resume(tmp_path / "run", letters.words())
    assert again.tasks.unlabelled
    again.close()


def test_a_recipe_that_needs_labels_is_refused(tmp_path: Path) -> None:
    plan = letters.plan(tmp_path, "grpo", 2, run__unlabelled=True)
    with pytest.raises(UserError, match="grpo learns from what the checker says"):
        start(plan, tmp_path / "run", letters.words())


def test_agreement_that_rises_while_accuracy_falls_is_a_finding() -> None:
    def watched(*seen: tuple[float, float]) -> list[str]:
        health, found = Health(baseline=1), []
        for step, (agrees, accuracy) in enumerate(seen, 1):
            health.observe(step, {"correct": agrees})
            finding = health.examined(step, accuracy)
            found += [finding.name] if finding else []
        return found

    assert watched((0.4, 0.30), (0.6, 0.20), (0.9, 0.05)) == ["false agreement"]
    assert watched((0.4, 0.30), (0.6, 0.35), (0.9, 0.34)) == []
    assert watched((0.4, 0.30), (0.41, 0.20), (0.42, 0.10)) == []
