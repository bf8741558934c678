"""SwS: new tasks where the policy is weak, from the source or written by a model; and what goes together with what."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import toys
from etude.assembly import build
from etude.errors import UserError
from etude.fixtures.curricula import ExampleContext, attempts_at
from etude.methods import find
from etude.methods.sampling_and_curricula.sws import WEAK, Weakness
from etude.recipe import Recipe
from etude.tasks import load
from etude.tasks.check import Number
from etude.tasks.posed import worked_out
from etude.types import Message, Request
from scripted import decode, prompt, same_run, scripted_group, stopped_and_resumed


def attempts(level: tuple[str, float], right: int, of: int = 10):
    return attempts_at(level, [1.0] * right + [0.0] * (of - right))


def later(progress: float) -> ExampleContext:
    tasks = SimpleNamespace(levels=lambda kind: (0.0, 1.0))
    return ExampleContext(progress=progress, tasks=tasks)


def phase_one(curves: dict[tuple[str, float], list[float]], **settings) -> Weakness:
    """A curriculum that has seen these accuracies, part after part, of ten attempts each."""
    settings = {"first_phase": 0.4, "parts": 2, **settings}
    weakness = build(find("sws"), {f"curriculum.{n}": v for n, v in settings.items()})[1]["curriculum"]
    for part in range(2):
        seen = [attempts(level, round(10 * accuracy[part])) for level, accuracy in curves.items()]
        weakness.observe(seen, [], ExampleContext(progress=0.2 * part))
    return weakness


CURVES = {
    ("easy", 0.0): [0.8, 0.9],
    ("learnt", 0.0): [0.1, 0.4],
    ("mixed", 0.0): [0.9, 0.9],
    ("mixed", 1.0): [0.3, 0.2],
    ("hard", 0.0): [0.1, 0.1],
    ("hard", 1.0): [0.0, 0.0],
}


def test_weak_kinds_get_what_their_failures_are_worth() -> None:
    weakness = phase_one(CURVES, weak_share=0.5)
    assert [unit[:2] for unit, weak in weakness.weak().items() if weak] == [
        ("hard", 0.0),
        ("hard", 1.0),
        ("mixed", 1.0),
    ]
    assert weakness.report() == pytest.approx({"met": 6, "weak": 3, "weak/hard": 2 / 3, "weak/mixed": 1 / 3})
    assert weakness.next(64, later(0.39)) == [Request()] * 64, "the first phase is the source's own mixture"
    requests = weakness.next(6000, later(0.4))
    extra = [r for r in requests if r.purpose == WEAK]
    assert len(extra) / 6000 == pytest.approx(0.5, abs=0.03)
    assert np.mean([r.kind == "hard" for r in extra]) == pytest.approx(2 / 3, abs=0.03)
    assert {(r.kind, r.difficulty) for r in extra} == {("hard", 0.0), ("hard", 1.0), ("mixed", 1.0)}
    assert {r.kind for r in requests if not r.purpose} == {None}


def test_the_second_phase_is_not_logged() -> None:
    weakness = phase_one(CURVES)
    before = weakness.accuracy()
    weakness.next(1, later(0.4))
    weakness.observe([attempts(("hard", 0.0), 1, 1)], [], later(0.4))
    assert weakness.accuracy() == before


def test_nothing_weak_changes_nothing() -> None:
    strong = {unit: curve for unit, curve in CURVES.items() if unit[0] in ("easy", "learnt")}
    assert phase_one(strong).next(64, later(0.9)) == [Request()] * 64


def test_the_band_is_for_the_second_phase() -> None:
    _, stages = build(find("sws"))
    groups = [attempts(("a", 0.0), right, 8) for right in range(9)]
    assert stages["filter"](groups, later(0.49)) == groups
    assert stages["filter"](groups, later(0.5)) == groups[1:8]


def test_sws_asks_for_what_is_weak_and_resumes(tmp_path) -> None:
    changes = {
        "curriculum__first_phase": 0.3,
        "curriculum__parts": 1,
        "curriculum__weak_share": 1.0,
        "filter__begin_at": 0.3,
    }
    run = stopped_and_resumed(tmp_path, "sws", **changes)
    weak = {key for (_, _, key), failing in run.curriculum.weak().items() if failing}
    rows = run.directory.episodes(columns=["step", "task_key"]).to_pylist()
    assert weak
    assert {r["task_key"] for r in rows if r["step"] > 2} <= weak, "problems of a list, not their levels"
    assert run.directory.metrics()[-1]["curriculum"]["weak"] == len(weak)


def test_without_new_tasks_and_without_the_band_sws_is_grpo(tmp_path) -> None:
    same_run(
        tmp_path,
        "sws",
        "grpo",
        {"curriculum__weak_share": 0.0, "filter__min_accuracy": 0.0, "filter__max_accuracy": 1.0},
        {},
    )


# ---- problems that a model writes --------------------------------------------------------------------


def example(question: str = "What is 3 + 4?", gold: str = "7", **more):
    return toys.replace(
        toys.task(), prompt=(Message("user", question),), check=Number(gold), answer=gold, **more
    )


def ask(replies: list[str], task=None, settings=None, **more):
    """A group asked for because its kind is weak, of a writer and a policy that both say `replies`, in order."""
    request = Request("kind0", 0.0, purpose=WEAK)
    group, _, sampler, stages = scripted_group(
        "sws_written", replies, settings, 2, task or example(), request, key=1, **more
    )
    stages["group_rollout"].observe([group], [], ExampleContext())
    return group, sampler, stages["group_rollout"].report()


def test_a_written_problem_is_worked_out_and_played() -> None:
    group, sampler, report = ask(["12 * 3 - 1 = 30", "35", "36"])
    assert decode(sampler.asked[0]).count("What is 3 + 4?\n\nWrite another problem") == 1
    assert group.task.prompt == (Message("user", "What is 12 * 3 - 1?"),), (
        "the form is the example's: no answer leaks"
    )
    assert group.task.answer == "35"
    assert group.rewards.tolist() == [1, 0]
    assert [decode(a) for a in sampler.asked[1:]] == [prompt("What is 12 * 3 - 1?")] * 2
    assert all(s.tag != "written" and len(e.spans) == 2 for e in group.episodes for s in e.spans)
    assert report == {"written": 1.0}
    assert pickle.loads(pickle.dumps(group.task)).key == group.task.key


@pytest.mark.parametrize("said", ["3 + 4", "no idea", "1/0 + 2", "5 / 2", "42"])
def test_where_nothing_usable_is_written_the_example_is_played(said: str) -> None:
    group, sampler, report = ask([said, "7", "1"], settings={"group_rollout.votes": 0})
    assert group.task == example()
    assert len(sampler.asked) == 3
    assert report == {"written": 0.0}


def test_a_problem_that_is_held_out_is_not_trained() -> None:
    group, _, report = ask(["5 + 6", "7", "1"], admits=lambda task: "5 + 6" not in task.prompt[0].content)
    assert group.task == example()
    assert report == {"written": 0.0}


def test_without_a_way_to_run_it_answers_vote() -> None:
    riddle = example("A dozen?", "12")
    votes = ["2", "2", "3", "2", "it is 2", "4", "5", "6"]
    group, sampler, _ = ask(["A couple?", *votes, "2", "3"], riddle)
    assert (group.task.prompt[0].content, group.task.answer) == ("A couple?", "2")
    assert group.rewards.tolist() == [1, 0]
    assert len(sampler.asked) == 1 + 8 + 2
    group, _, _ = ask(["A couple?", "9", *votes[1:], "2", "3"], riddle)
    assert group.task == riddle, "three of eight are no majority"


def test_the_laboratory_reads_problems() -> None:
    from etude.lab.problems import KINDS
    from etude.lab.tasks import lab_task, taught

    for kind in KINDS:
        for level in range(5):
            given, other = (lab_task(kind, level, seed) for seed in (1, 2))
            posed = worked_out(given, f" {other.prompt[0].content}\n1 2 3")
            assert posed is not None
            assert (posed, posed.check, posed.key) == (other, other.check, other.key)
            assert worked_out(given, given.prompt[0].content) is None
    task = lab_task("sum", 0, 1)
    wrong = ("", "sum", "sum 12+13", "sum 123+12", "sum ABC", "sort ABCDE", "sum 12345678+12345678")
    assert [worked_out(task, text) for text in wrong] == [None] * 7
    given = lab_task("order", 0, 1)
    assert worked_out(given, "order from A in AB AC BD CE EF") is None, "two orders are possible"
    assert worked_out(given, "order from A in AB BC CA DE EF") is None, "none is possible"
    given = lab_task("find", 0, 1)
    assert worked_out(given, "find A B C in AD BE CF D1 E2 GH") is None, "F leads nowhere"
    known = next(said for said in (f"sum {i}+500" for i in range(100, 200)) if taught(said))
    assert worked_out(task, known) is None, "the taught quarter is never drawn"


def test_programs_are_read_and_their_calls_worked_out() -> None:
    given, other = (load("program:steps=3,feedback=hint").draw(Request(), i, 0) for i in range(2))
    posed = worked_out(given, f"Sure. {other.prompt[0].content} Good luck!")
    assert posed is not None
    assert (posed.prompt, posed.answer, posed.reference) == (other.prompt, other.answer, other.answer)
    assert posed.check(posed.answer).correct
    assert not posed.check("def f(xs):\n    return None").correct
    asked = "takes a list of integers, {}, and returns {}."
    for steps, end in (
        ("flies", "the list"),
        ("sorts the list", "nothing"),
        (", then ".join(["sorts the list"] * 7), "the list"),
    ):
        assert worked_out(given, asked.format(steps, end)) is None
    tripled = worked_out(given, asked.format("multiplies every number by 3", "their sum"))
    assert tripled is not None
    assert tripled.answer == "def f(xs):\n    xs = [x * 3 for x in xs]\n    return sum(xs)"


def test_a_run_with_a_writer_resumes(tmp_path) -> None:
    changes = {
        "curriculum__first_phase": 0.3,
        "curriculum__parts": 1,
        "curriculum__weak_share": 1.0,
        "group_rollout__votes": 2,
    }
    run = stopped_and_resumed(tmp_path, "sws_written", **changes, group_rollout__min_votes=1)
    assert run.directory.metrics()[-1]["group_rollout"] == {"written": 0.0}, (
        "a checker without a rule for answers cannot vote"
    )


# ---- together with other methods ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "other"), [("scaf_grpo", "topr"), ("exit", "topr"), ("sws", "gspo")])
def test_alone_they_are_trained_as_grpo_and_with_another_as_that(name: str, other: str) -> None:
    grpo, theirs = find("grpo").resolved(), find(other).resolved()
    alone, joined = find(name).resolved(), find(f"{other}+{name}").resolved()
    for stage_name in ("credit", "objective"):
        assert alone[stage_name] == grpo[stage_name]
        assert joined[stage_name] == theirs[stage_name]
        assert find(f"{name}+{other}").resolved()[stage_name] == theirs[stage_name]
        assert find(f"{name}+grpo").resolved()[stage_name] == grpo[stage_name]
    assert joined.keys() == alone.keys() | theirs.keys()
    assert "credit" not in find(name).replaces


def test_two_of_them_are_still_trained_as_grpo() -> None:
    both = find("scaf_grpo+sws")
    assert both.replaces == ("curriculum", "group_rollout", "filter")
    assert both.resolved()["objective"] == find("grpo").resolved()["objective"]
    assert find("rloo+scaf_grpo+sws").resolved()["credit"] == find("rloo").resolved()["credit"]


def test_what_cannot_be_combined_is_refused() -> None:
    for pair, shared in (
        ("reinforce_ada+topr", "credit"),
        ("reinforce_ada+scaf_grpo", "group_rollout"),
        ("exit+sws", "curriculum"),
        ("topr+sws", "filter"),
    ):
        with pytest.raises(UserError, match=f"both replace the stage '{shared}'"):
            find(pair)
    assert find("reinforce_ada+sws").replaces == (
        "curriculum",
        "group_rollout",
        "filter",
        "credit",
        "objective",
    )
    with pytest.raises(TypeError, match="a base has no recipe of its own"):
        Recipe("x", {}, base=find("exit"))
