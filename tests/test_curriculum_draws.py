"""Which task comes next: arms, probabilities, and what is refused."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import worlds_of_letters as letters
from etude.curriculum.arms import Arms
from etude.errors import UserError
from etude.fixtures.curricula import (
    ExampleContext,
    attempts_at,
    example_curriculum,
    example_task,
    example_tasks,
)
from etude.methods import find
from etude.tasks import TaskSet, load
from etude.train.loop import train
from etude.train.setup import start

OURS = (
    "sec",
    "uniform",
    "easy_to_hard",
    "mixture",
    "target_difficulty",
    "pudf",
    "skill_it",
    "exp3_flad",
    "ucb1_flad",
)

GRID = (("a", 0.0), ("a", 1.0), ("a", 2.0), ("b", 0.0), ("b", 1.0), ("b", 2.0))


def curriculum(name: str, arms=GRID, **settings):
    return example_curriculum(find(name), arms, settings)


def asked(requests) -> Counter:
    return Counter((r.kind, r.difficulty) for r in requests)


# ---- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_probabilities_sum_to_one_and_requests_are_keyed(name: str) -> None:
    first, again = curriculum(name), curriculum(name)
    requests = first.next(8, ExampleContext())
    assert requests == again.next(8, ExampleContext())
    shares = [p for arm, p in first.report().items() if arm in first.arms.names]
    assert sum(shares) == pytest.approx(1)
    assert len(shares) == len(GRID)
    assert all(r.why and (r.kind, r.difficulty) in GRID for r in requests)
    later = again.next(8, ExampleContext(drawn=8))
    assert later != requests, "a second draw within a step is another draw"


@pytest.mark.parametrize("name", OURS)
def test_one_arm_is_refused_before_anything_is_sampled(name: str, tmp_path) -> None:
    source = letters.words().sources[0]
    flat = TaskSet.of([replace(t, difficulty=0.0) for t in source.tasks("train")])
    with pytest.raises(UserError, match=r"a single kind and level \(first/0\); lab has several"):
        start(letters.plan(tmp_path, name, 1), tmp_path / "run", flat)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sec", {"by": "planet"}, "curriculum.by is 'planet'"),
        ("sec", {"sec_tau": 0}, r"curriculum.sec_tau is 0.0; it must lie in \[0.001, inf\]"),
        ("mixture", {"weights": "a"}, "it must read KIND=WEIGHT"),
        ("mixture", {"weights": "a=0"}, "a weight above 0"),
        ("mixture", {"weights": "a=1,c=2"}, "no arm 'c'; the arms are a/0, a/1"),
        (
            "easy_to_hard",
            {"begin_at": 0.6},
            r"curriculum.end_at is 0.5; it must lie in \[curriculum.begin_at, 1\]",
        ),
        ("skill_it", {"graph": "a-b"}, "it must be own, levels, or edges"),
        ("skill_it", {"graph": "a>c"}, "no arm 'c'"),
        ("exp3_flad", {"target": "c"}, "no arm 'c'"),
        ("ucb1_flad", {"by": "kind", "target": "a"}, None),
    ],
)
def test_settings_are_refused_by_name(name: str, settings: dict, message: str | None) -> None:
    if message is None:
        assert len(curriculum(name, **settings).others) == 1
        return
    with pytest.raises(UserError, match=message):
        curriculum(name, **settings)


@pytest.mark.parametrize("name", ["easy_to_hard", "target_difficulty"])
def test_kinds_of_one_level_each_have_no_harder_level(name: str) -> None:
    with pytest.raises(UserError, match="each of these kinds has a single one: a/0, b/1"):
        curriculum(name, [("a", 0.0), ("b", 1.0)])


def test_a_target_needs_others() -> None:
    with pytest.raises(UserError, match="leaves no other arm"):
        curriculum("exp3_flad", [("a", 0.0), ("a", 1.0)], target="a")


# ---- arms ---------------------------------------------------------------------------------------------------


def test_arms_by_kind_by_level_and_by_both() -> None:
    tasks = example_tasks(("a", 0.0), ("a", 1.0), ("b", 1.0))
    assert Arms(tasks, "both").names == ["a/0", "a/1", "b/1"]
    assert Arms(tasks, "kind").names == ["a", "b"]
    level = Arms(tasks, "level")
    assert level.names == ["0", "1"]
    rng = np.random.default_rng(0)
    assert {level[1].request(rng, "").kind for _ in range(20)} == {"a", "b"}, (
        "a level alone: any kind that has it"
    )
    assert {level[0].request(rng, "").kind for _ in range(20)} == {"a"}
    task = example_task(("b", 1.0))
    assert [Arms(tasks, by).of(task) for by in ("both", "kind", "level")] == [2, 1, 1]
    assert Arms(tasks).of(replace(task, kind="c")) is None


@pytest.mark.parametrize(
    ("spec", "levels"),
    [
        ("lab:kind=sum,level=3", (3.0,)),
        ("lab:kind=sum", (0.0, 1.0, 2.0, 3.0, 4.0)),
        ("chain_sum:level=[3;1]", (1.0, 3.0)),
        ("number_guess:level=2", (2.0,)),
        ("number_guess", (0.0, 1.0, 2.0, 3.0, 4.0)),
    ],
)
def test_a_source_that_is_fixed_offers_no_other_level(spec: str, levels: tuple) -> None:
    tasks = load(spec)
    assert tasks.levels(tasks.kinds[0]) == levels


def test_levels_that_were_all_set_aside_are_no_arms() -> None:
    trained = [example_task(("a", float(i % 2)), i) for i in range(6)]
    held = [example_task(("b", 5.0), i) for i in range(3)]
    assert Arms(TaskSet.of(trained, held)).names == ["a/0", "a/1"]


# ---- by rule --------------------------------------------------------------------------------------------------


def test_uniform_takes_every_arm_once_a_round() -> None:
    whole = curriculum("uniform").next(12, ExampleContext())
    assert asked(whole[:6]) == asked(whole[6:]) == Counter(GRID)
    assert [r.kind for r in whole[:6]] != [r.kind for r in whole[6:]] or whole[:6] != whole[6:]
    pieces = [
        r for i in range(0, 12, 3) for r in curriculum("uniform").next(3, ExampleContext(step=i, drawn=i))
    ]
    assert asked(pieces) == asked(whole), "rounds go on from one draw to the next"


def test_mixture_shares() -> None:
    found = curriculum("mixture", weights="a=3,b/1=1")
    found.next(4, ExampleContext())
    np.testing.assert_allclose(list(found.report().values()), [0.25, 0.25, 0.25, 0, 0.25, 0])


def test_levels_open_with_progress() -> None:
    found = curriculum("easy_to_hard", end_at=1.0)
    highest = [
        max(r.difficulty for r in found.next(30, ExampleContext(progress=p))) for p in (0, 0.49, 0.5, 1)
    ]
    assert highest == [0, 0, 1, 2]


def test_the_target_follows_the_reward_and_stays_in_range() -> None:
    found = curriculum("target_difficulty")
    assert {r.difficulty for r in found.next(20, ExampleContext())} == {0}
    found.observe([attempts_at(("a", 0), [1, 1])], [], ExampleContext())
    assert found.target == pytest.approx(np.tanh(1.0)), "half of the range 2, times tanh(2 x 0.5)"
    assert asked(found.next(20, ExampleContext())).keys() == {("a", 1.0), ("b", 1.0)}
    for _ in range(9):
        found.observe([attempts_at(("a", 2), [1, 1])], [], ExampleContext())
    assert found.target == 2
    found.observe([attempts_at(("a", 2), [])], [], ExampleContext())
    assert found.target == 2, "no attempts say nothing"
    found.observe([attempts_at(("a", 2), [0, 0])], [], ExampleContext())
    assert found.target < 2


# ---- in a run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["topr+sec", "sft+exp3_flad"])
def test_composes_and_says_why(name: str, tmp_path) -> None:
    more = {"run__tasks_per_step": 6, "run__group_size": 4, "run__eval_problems": 0}
    if "flad" in name:
        more |= {"curriculum__target": "first/2", "curriculum__every": 1}
    run = start(letters.plan(tmp_path, name, 3, **more), tmp_path / "run", letters.words())
    train(run)
    run.close()
    last = run.directory.metrics()[-1]
    assert "first/2" in last["curriculum"]
    assert sum(last["curriculum"].values()) == pytest.approx(1)
    state = run.curriculum.state_dict()
    changed = state["q"] if "sec" in name else state["totals"]
    assert any(changed), "something was learnt"
    assert json.dumps(state)


@pytest.mark.parametrize("name", ["sec+relift", "sec+pudf", "uniform+mixture"])
def test_two_curricula_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="both replace the stage 'curriculum'"):
        find(name)
