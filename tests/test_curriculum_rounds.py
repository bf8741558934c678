"""How many attempts a task gets, and with what help: rounds until attempts differ, hints where all attempts fail."""

import numpy as np
import pytest
import torch

import toys
import worlds_of_letters as letters
from etude.batch import pack
from etude.errors import UserError
from etude.fixtures.curricula import ExampleContext
from etude.methods.sampling_and_curricula.reinforce_ada import balanced, enough
from etude.tasks import TaskSet
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Failure
from scripted import SMALL, advantages, decode, prompt, scripted_group, trained_rows

# ---- Reinforce-Ada -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "kept", "places"),
    [
        ([0, 0, 0, 1, 0, 0], 4, [0, 1, 2, 3]),  # one right: wrong ones fill up
        ([1, 1, 1, 0, 1, 1], 4, [0, 1, 2, 3]),  # one wrong: right ones fill up
        ([1, 1, 1, 0, 0, 0], 4, [0, 1, 3, 4]),
        ([0] * 6, 4, [0, 1, 2, 3]),
        ([1, 0, 1, 0], 3, [0, 1, 3]),
        ([1, 0], 4, [0, 1]),
    ],
)
def test_half_of_what_is_kept_is_right(right: list[int], kept: int, places: list[int]) -> None:
    assert balanced([bool(r) for r in right], kept) == places


def test_what_is_enough() -> None:
    assert [enough(r, "pos", 4) for r in ([False], [False, True], [])] == [False, True, False]
    pools = ([True] * 8, [True, False, False], [True, True, False, False])
    assert [enough(p, "balance", 4) for p in pools] == [False, False, True]
    assert [enough(p, "balance", 3) for p in ([True, False], [True, False, False])] == [False, True]


def test_rounds_go_on_until_an_attempt_is_right() -> None:
    """Three rounds of two: the pool is six, four are kept, and the baseline is the mean of all six."""
    settings = {"group_rollout.round_size": 2, "group_rollout.rule": "pos"}
    group, signals, sampler, _ = scripted_group(
        "reinforce_ada", ["1", "2", "3", "4", "5", "7", "never"], settings
    )
    assert len(sampler.asked) == 6
    assert len(group.episodes) == 6, "the whole pool counts in what the run reports"
    assert [e.notes["round"] for e in group.episodes] == [0, 0, 1, 1, 2, 2]
    assert [s.episode.index for s in signals] == [0, 1, 2, 5]
    assert advantages(signals) == [round(-1 / 6, 4)] * 3 + [round(5 / 6, 4)]
    assert trained_rows(signals) == [prompt("q0") + answer for answer in ("1", "2", "3", "7")]


def test_rounds_go_on_until_both_sides_are_there() -> None:
    settings = {"group_rollout.round_size": 2, "group_rollout.rule": "balance", "group_rollout.rounds": 3}
    group, signals, sampler, stages = scripted_group(
        "reinforce_ada", ["7", "7", "7", "1", "7", "2"], settings
    )
    assert len(sampler.asked) == 6
    assert [s.episode.index for s in signals] == [0, 1, 3, 5]
    assert advantages(signals) == [round(1 / 3, 4)] * 2 + [round(-2 / 3, 4)] * 2
    stages["group_rollout"].observe([group], [], ExampleContext())
    assert stages["group_rollout"].report() == {"first_round": 1.0, "rounds": 3.0, "resolved": 1.0}


def test_a_task_that_stays_unsolved_is_given_up() -> None:
    group, signals, sampler, stages = scripted_group(
        "reinforce_ada", ["1"] * 4, {"group_rollout.round_size": 2, "group_rollout.rounds": 2}
    )
    assert len(sampler.asked) == len(group.episodes) == 4
    assert advantages(signals) == [0.0] * 4
    stages["group_rollout"].observe([group], [], ExampleContext())
    assert stages["group_rollout"].report() == {"first_round": 0.0, "rounds": 2.0, "resolved": 0.0}


def test_errors_are_in_no_pool() -> None:
    group, signals, _, _ = scripted_group(
        "reinforce_ada", ["x", "1", "7", "2"], {"group_rollout.round_size": 4}, samples=2
    )
    assert len(group.failed) == 1
    assert [s.episode.index for s in signals] == [1, 2]
    assert advantages(signals) == [round(-1 / 3, 4), round(2 / 3, 4)]


def test_tokens_of_all_rounds_are_paid_for_and_rows_say_which_are_trained(tmp_path) -> None:
    run = start(
        letters.plan(tmp_path, "reinforce_ada", 2, **SMALL, group_rollout__round_size=4),
        tmp_path / "run",
        letters.words(),
    )
    train(run)
    rows = run.directory.episodes(columns=["step", "sampled", "advantage", "reward"]).to_pylist()
    metrics = run.directory.metrics()
    run.close()
    assert metrics[-1]["tokens/generated"] == sum(sum(r["sampled"]) for r in rows)
    first = [r for r in rows if r["step"] == 1]
    assert sum(r["advantage"] is not None for r in first) == 16
    assert metrics[0]["groups"] == 4
    assert len(first) == 16 * metrics[0]["group_rollout"]["rounds"]
    assert metrics[0]["reward"] == pytest.approx(np.mean([r["reward"] for r in first]))


# ---- Scaf-GRPO ---------------------------------------------------------------------------------------

FAILED = ["1", "2", "3", "4"]


def test_the_least_hint_that_helps_takes_the_place_of_a_failure() -> None:
    group, signals, sampler, stages = scripted_group("scaf_grpo", [*FAILED, "5", "7"])
    asked = [decode(a) for a in sampler.asked]
    assert asked == [prompt("q0")] * 4 + [prompt("q0\n\nHint: add"), prompt("q0\n\nHint: 3+4")]
    assert group.rewards.tolist() == [0, 0, 0, 1], "a repaired group sums to exactly 1"
    assert [e.notes.get("hint") for e in group.episodes] == [None, None, None, 2]
    assert [e.index for e in group.episodes] == [0, 1, 2, 3]
    assert {e.task.key for e in group.episodes} == {group.task.key}
    assert advantages(signals) == [round(v / (3**0.5 / 4 + 1e-4), 4) for v in (-0.25, -0.25, -0.25, 0.75)]
    assert trained_rows(signals)[3] == prompt("q0\n\nHint: 3+4") + "7"
    stages["group_rollout"].observe([group], [], ExampleContext())
    assert stages["group_rollout"].report() == {"unhinted": 0.0, "failed": 1.0, "rescued": 1.0, "level": 2.0}


def test_the_ladder_is_left_at_the_first_hint_that_helps() -> None:
    group, _, sampler, _ = scripted_group("scaf_grpo", [*FAILED, "7"])
    assert len(sampler.asked) == 5
    assert group.episodes[3].notes["hint"] == 1


def test_a_hint_may_be_absent_when_training() -> None:
    """Behind the bare question, with the log-probability under the hint as what the ratio divides by; or both."""
    group, signals, _, _ = scripted_group("scaf_grpo", [*FAILED, "7"], {"group_rollout.prompt": "plain"})
    bare = trained_rows(signals)
    assert bare == [prompt("q0") + answer for answer in ("1", "2", "3", "7")]
    batch = pack(signals)
    assert batch.behaviour[batch.sampled].tolist() == [-1.0] * int(batch.sampled.sum())
    assert [(s.hidden, s.unseen) for s in group.episodes[3].spans] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    group, signals, _, _ = scripted_group("scaf_grpo", [*FAILED, "7"], {"group_rollout.prompt": "both"})
    assert group.rewards.tolist() == [0, 0, 1, 1]
    assert sorted(trained_rows(signals)[2:]) == sorted([prompt("q0") + "7", prompt("q0\n\nHint: add") + "7"])


@pytest.mark.parametrize(
    ("replies", "progress", "settings"),
    [
        (["1", "2", "7", "3"], 0.5, {}),  # somebody solved it
        (FAILED, 0.05, {}),  # too early
        (FAILED, 0.99, {"group_rollout.begin_at": 1.0}),  # never
        ([*FAILED, "5", "6"], 0.5, {}),  # no hint helps
    ],
)
def test_groups_that_are_left_as_they_are(replies: list[str], progress: float, settings: dict) -> None:
    group, _, sampler, _ = scripted_group("scaf_grpo", replies, settings, progress=progress)
    assert len(sampler.asked) == len(replies)
    assert [decode(e.tokens[e.sampled]) for e in group.episodes] == replies[:4]
    assert not any("hint" in e.notes for e in group.episodes)


@pytest.mark.parametrize("way", ["hinted", "plain", "both"])
def test_the_laws_hold_where_somebody_is_helped(way: str) -> None:
    lesson = toys.lesson(
        "scaf_grpo", {"group_rollout.begin_at": 0.0, "group_rollout.prompt": way}, tasks=24, samples=3
    )
    helped = [s for s in lesson.signals if "hint" in s.episode.notes]
    assert helped
    whole = toys.gradient(lesson)
    for cut in (1, 37):
        assert torch.allclose(toys.gradient(lesson, micro_tokens=cut), whole, atol=1e-9)
    without = toys.lesson("grpo", tasks=24, samples=3)
    assert not torch.allclose(toys.gradient(without), whole, atol=1e-6)


def test_evaluation_never_sees_a_hint(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from etude.methods.hints import scaf_grpo as scaffold

    hinted = []
    real = scaffold.with_hint
    monkeypatch.setattr(
        scaffold, "with_hint", lambda task, level: hinted.append(task.key) or real(task, level)
    )
    more = {"run__tasks_per_step": 4, "run__group_size": 2, "group_rollout__begin_at": 0.0}
    run = start(letters.plan(tmp_path, "scaf_grpo", 2, **more), tmp_path / "run", letters.words())
    train(run)
    assert hinted, "two attempts at a letter out of four fail more often than not"
    before = len(hinted)
    run.evaluate("last")
    run.close()
    assert len(hinted) == before
    assert not {t.key for t in run.holdout} & set(hinted)


def test_tasks_without_hints_are_refused(tmp_path) -> None:
    bare = [
        toys.replace(t, hints=())
        for part in ("train", "eval")
        for t in letters.words().sources[0].tasks(part)
    ]
    plan = letters.plan(tmp_path, "scaf_grpo", 1, run__eval_problems=0)
    with pytest.raises(UserError, match="needs hints for every task"):
        start(plan, tmp_path / "no", TaskSet.of(bare))


def test_failures_of_hinted_attempts_are_counted() -> None:
    group, _, _, _ = scripted_group("scaf_grpo", [*FAILED, "x", "7"])
    assert group.rewards.tolist() == [0, 0, 0, 1]
    assert [e.failure.where for e in group.failed if isinstance(e.failure, Failure)] == ["rollout"]
