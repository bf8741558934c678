"""Curricula that change how a task is played, or which tasks there are: rounds of attempts, ladders of hints, earlier
answers to go on from, new tasks where the policy is weak."""

import asyncio
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toys
import worlds_of_letters as letters
from etude import seeds
from etude.batch import pack
from etude.errors import UserError
from etude.methods import build, find
from etude.methods.sampling_and_curricula.exit import DIVERGE, IMPROVE, Start, Starts
from etude.methods.sampling_and_curricula.reinforce_ada import chosen, enough
from etude.methods.sampling_and_curricula.sws import WHY, Weakness
from etude.recipe import Recipe
from etude.rollout.group_rollout import GroupRollout
from etude.tasks import TaskSet, load
from etude.tasks.check import Number
from etude.tasks.posed import worked_out
from etude.train.loop import sample, train
from etude.train.setup import resume, start
from etude.types import Episode, Failure, Group, Message, Request, Span, Verdict
from test_resume import facts, same_weights


def seven(answer: str) -> Verdict:
    right = answer.strip().endswith("7")
    return Verdict(float(right), right)


def sit(name, replies, settings=None, samples=4, progress=0.5, task=None, check=seven):
    """One group of a recipe whose policy says `replies`, player after player: (group, signals, sampler, stages)."""
    _, stages = build(find(name), settings or {})
    sampler = toys.ScriptedSampler(replies=list(replies))
    rollouts = GroupRollout(
        task or toys.task(check=check),
        Request(),
        samples,
        toys.generator(sampler.policy, sampler),
        toys.check_runner,
        stages["rollout"],
        stages["reward"],
        seeds.key("toy"),
        progress=progress,
    )
    group = asyncio.run(rollouts.group(stages["group_rollout"]))
    return group, stages["credit"]([group], toys.context(sampler.policy)), sampler, stages


def decode(tokens) -> str:
    return toys.tokenizer().decode(tokens)


def prompt(text: str) -> str:
    return decode(toys.TablePolicy().renderer.prompt([Message("user", text)]))


def advantages(signals) -> list[float]:
    return [round(float(s.advantage[s.episode.sampled][0]), 4) for s in signals]


def trained_rows(signals) -> list[str]:
    """Every sequence as training sees it."""
    batch = pack(signals)
    return [decode(batch.tokens[batch.sequence == i].tolist()) for i in range(batch.sequences)]


def same_run(tmp_path, one: str, other: str, changes: dict, others: dict, tasks=letters.words) -> None:
    """Two recipes with these settings make the same run, bit for bit."""
    plain = {"run__eval_problems": 0, "run__tasks_per_step": 4, "run__group_size": 4}
    for place, name, more in (("one", one, changes), ("other", other, others)):
        run = start(letters.plan(tmp_path, name, 3, **plain, **more), tmp_path / place, tasks())
        train(run)
        run.close()
    assert facts(tmp_path / "one")[1] == facts(tmp_path / "other")[1]
    assert same_weights(tmp_path / "one", tmp_path / "other")


def two_and_two(tmp_path, name: str, **changes):
    """Stopped after three steps and resumed from two, a run is the one that was not stopped; returns the last."""
    more = {
        "run__checkpoint_every": 2,
        "run__tasks_per_step": 4,
        "run__group_size": 4,
        "run__eval_problems": 0,
    }
    more |= changes

    def stop(step: int, metrics: dict) -> None:
        if step == 3:
            raise KeyboardInterrupt

    whole = start(letters.plan(tmp_path, name, 4, **more), tmp_path / "whole", letters.words())
    train(whole)
    whole.close()
    half = start(letters.plan(tmp_path, name, 4, **more), tmp_path / "half", letters.words())
    half.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        train(half)
    half.close()
    again, _ = resume(tmp_path / "half", letters.words())
    train(again)
    again.close()
    assert facts(tmp_path / "whole") == facts(tmp_path / "half")
    assert same_weights(tmp_path / "whole", tmp_path / "half")
    return again


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
    assert chosen([bool(r) for r in right], kept) == places


def test_what_is_enough() -> None:
    assert [enough(r, "pos", 4) for r in ([False], [False, True], [])] == [False, True, False]
    pools = ([True] * 8, [True, False, False], [True, True, False, False])
    assert [enough(p, "balance", 4) for p in pools] == [False, False, True]


def test_rounds_go_on_until_an_attempt_is_right() -> None:
    """Three rounds of two: the pool is six, four are kept, and the baseline is the mean of all six."""
    settings = {"group_rollout.size": 2}
    group, signals, sampler, _ = sit("reinforce_ada", ["1", "2", "3", "4", "5", "7", "never"], settings)
    assert len(sampler.asked) == 6
    assert len(group.episodes) == 6, "the whole pool counts in what the run reports"
    assert [e.notes["round"] for e in group.episodes] == [0, 0, 1, 1, 2, 2]
    assert [s.episode.index for s in signals] == [0, 1, 2, 5]
    assert advantages(signals) == [round(-1 / 6, 4)] * 3 + [round(5 / 6, 4)]
    assert trained_rows(signals) == [prompt("q0") + answer for answer in ("1", "2", "3", "7")]


def test_rounds_go_on_until_both_sides_are_there() -> None:
    settings = {"group_rollout.size": 2, "group_rollout.rule": "balance", "group_rollout.rounds": 3}
    group, signals, sampler, stages = sit("reinforce_ada", ["7", "7", "7", "1", "7", "2"], settings)
    assert len(sampler.asked) == 6
    assert [s.episode.index for s in signals] == [0, 1, 3, 5]
    assert advantages(signals) == [round(1 / 3, 4)] * 2 + [round(-2 / 3, 4)] * 2
    stages["group_rollout"].observe([group], [])
    assert stages["group_rollout"].report() == {"first_round": 1.0, "rounds": 3.0, "resolved": 1.0}


def test_a_task_that_stays_unsolved_is_given_up() -> None:
    group, signals, sampler, stages = sit(
        "reinforce_ada", ["1"] * 4, {"group_rollout.size": 2, "group_rollout.rounds": 2}
    )
    assert len(sampler.asked) == len(group.episodes) == 4
    assert advantages(signals) == [0.0] * 4
    stages["group_rollout"].observe([group], [])
    assert stages["group_rollout"].report() == {"first_round": 0.0, "rounds": 2.0, "resolved": 0.0}


def test_errors_are_in_no_pool() -> None:
    def check(answer: str) -> Verdict:
        if answer.strip().startswith("x"):
            raise ValueError("no")
        return seven(answer)

    group, signals, _, _ = sit(
        "reinforce_ada", ["x", "1", "7", "2"], {"group_rollout.size": 4}, 2, check=check
    )
    assert len(group.failed) == 1
    assert [s.episode.index for s in signals] == [1, 2]
    assert advantages(signals) == [round(-1 / 3, 4), round(2 / 3, 4)]


def test_tokens_of_all_rounds_are_paid_for_and_rows_say_which_are_trained(tmp_path) -> None:
    more = {"run__eval_problems": 0, "run__tasks_per_step": 4, "run__group_size": 4, "group_rollout__size": 4}
    run = start(letters.plan(tmp_path, "reinforce_ada", 2, **more), tmp_path / "run", letters.words())
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
    group, signals, sampler, stages = sit("scaf_grpo", [*FAILED, "5", "7"])
    asked = [decode(a) for a in sampler.asked]
    assert asked == [prompt("q0")] * 4 + [prompt("q0\n\nHint: add"), prompt("q0\n\nHint: 3+4")]
    assert group.rewards.tolist() == [0, 0, 0, 1], "a repaired group sums to exactly 1"
    assert [e.notes.get("hint") for e in group.episodes] == [None, None, None, 2]
    assert [e.index for e in group.episodes] == [0, 1, 2, 3]
    assert {e.task.key for e in group.episodes} == {group.task.key}
    assert advantages(signals) == [round(v / (3**0.5 / 4 + 1e-4), 4) for v in (-0.25, -0.25, -0.25, 0.75)]
    assert trained_rows(signals)[3] == prompt("q0\n\nHint: 3+4") + "7"
    stages["group_rollout"].observe([group], [])
    assert stages["group_rollout"].report() == {"unhinted": 0.0, "failed": 1.0, "rescued": 1.0, "level": 2.0}


def test_the_ladder_is_left_at_the_first_hint_that_helps() -> None:
    group, _, sampler, _ = sit("scaf_grpo", [*FAILED, "7"])
    assert len(sampler.asked) == 5
    assert group.episodes[3].notes["hint"] == 1


def test_a_hint_may_be_absent_when_training() -> None:
    """Behind the bare question, with the log-probability under the hint as what the ratio divides by; or both."""
    group, signals, _, _ = sit("scaf_grpo", [*FAILED, "7"], {"group_rollout.prompt": "plain"})
    bare = trained_rows(signals)
    assert bare == [prompt("q0") + answer for answer in ("1", "2", "3", "7")]
    batch = pack(signals)
    assert batch.behaviour[batch.sampled].tolist() == [-1.0] * int(batch.sampled.sum())
    assert [(s.hidden, s.unseen) for s in group.episodes[3].spans] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    group, signals, _, _ = sit("scaf_grpo", [*FAILED, "7"], {"group_rollout.prompt": "both"})
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
    group, _, sampler, _ = sit("scaf_grpo", replies, settings, progress=progress)
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
    more = {"run__tasks_per_step": 4, "run__group_size": 2, "group_rollout__begin": 0.0}
    run = start(letters.plan(tmp_path, "scaf_grpo", 2, **more), tmp_path / "run", letters.words())
    train(run)
    assert hinted, "two attempts at a letter out of four fail more often than not"
    before = len(hinted)
    run.evaluate("last")
    run.close()
    assert len(hinted) == before
    assert not {t.key for t in run.holdout} & set(hinted)


def test_tasks_without_hints_and_worlds_are_refused(tmp_path) -> None:
    bare = [
        toys.replace(t, hints=())
        for part in ("train", "eval")
        for t in letters.words().sources[0].tasks(part)
    ]
    plan = letters.plan(tmp_path, "scaf_grpo", 1, run__eval_problems=0)
    with pytest.raises(UserError, match="needs hints for every task"):
        start(plan, tmp_path / "no", TaskSet.of(bare))
    lake = letters.plan(tmp_path, "exit", 1, run__eval_problems=0).but(tasks="frozen_lake:size=3")
    with pytest.raises(UserError, match="answered in words"):
        start(lake, tmp_path / "no")


# ---- ExIt --------------------------------------------------------------------------------------------


def episode(task, said: str, reward: float) -> Episode:
    tokens = toys.tokenizer().encode(said)
    span = Span("assistant", np.array(tokens, np.int32), sampled=True, logp=np.zeros(len(tokens), np.float32))
    return Episode(task, (span,), verdicts=(Verdict(reward, reward == 1),)).with_scores({"reward": reward})


def group_of(task, *outcomes: tuple[str, float]) -> Group:
    return Group(task, tuple(episode(task, said, reward) for said, reward in outcomes))


def exit_context(**more):
    return toys.context(toys.TablePolicy(), **more)


def test_an_answer_becomes_a_start_state() -> None:
    starts = Starts(least=1, share=1.0, different=0.0)
    context, task = exit_context(), toys.task()
    assert starts.next(2, context) == [Request(), Request()]
    starts.observe([group_of(task, ("5", 0.5), ("7", 1.0), ("7", 1.0), ("7", 1.0))], [])
    (kept,) = starts.kept
    assert (decode(kept.reply), kept.quality, kept.steps) == ("5", 0.5, 0), (
        "a perfect answer cannot be improved"
    )
    assert kept.score == pytest.approx(4 * np.var([0.5, 1, 1, 1]))
    (request,) = starts.next(1, context)
    assert request.task is not None
    said = [(m.role, m.content) for m in request.task.prompt]
    assert said == [("user", "q0"), ("assistant", "5"), ("user", IMPROVE)]
    assert request.task.key != task.key
    assert request.task.meta["parent"] == task.key
    _, stages = build(find("exit"))
    gained = [stages["reward"](episode(request.task, "x", q))["reward"] for q in (0.25, 0.5, 0.75, 1.0)]
    assert gained == [0, 0, 0.5, 1]
    assert stages["reward"](episode(task, "x", 0.25)) == {"reward": 0.25, "quality": 0.25}

    starts.observe([group_of(request.task, ("6", 0.5), ("6", 0.5))], [])
    assert [(s.steps, s.score) for s in starts.kept] == [(0, 0.0), (1, 0.0)], "the parent is scored anew"
    assert starts.kept[1].task.key == task.key
    assert starts.report() == {"starts": 2.0, "score": 0.0, "longest": 1.0}
    for number in range(1, 9):
        starts.observe([group_of(toys.task(number), *[("7", 1.0)] * 3, ("1", 0.0))], [])
    assert max(s.quality for s in starts.kept) < 1


def test_a_full_buffer_gives_up_its_lowest_score_for_one_as_high() -> None:
    starts = Starts(most=2)
    for number, rewards in enumerate([(0, 1), (0, 0), (0, 0.5), (0, 0.25)]):
        starts.observe([group_of(toys.task(number), *((f"{number}", r) for r in rewards))], [])
    assert [s.task.prompt[0].content for s in starts.kept] == ["q0", "q2"]
    starts.observe([group_of(toys.task(5), ("5", 0), ("5", 0.5))], [])
    assert [s.task.prompt[0].content for s in starts.kept] == ["q0", "q5"], "an equal score replaces"


def test_starts_are_drawn_by_their_scores() -> None:
    starts = Starts(least=1, share=0.7, kappa=float(np.log(9)), different=0.25)
    for number, score in enumerate((1.0, 0.0)):
        starts.kept.append(Start(toys.task(number), np.array(toys.tokenizer().encode("5")), 0.0, 0, score))
    requests = starts.next(4000, exit_context())
    used = [r.task for r in requests if r.task]
    assert len(used) / 4000 == pytest.approx(0.7, abs=0.03)
    assert np.mean([t.prompt[0].content == "q0" for t in used]) == pytest.approx(0.9, abs=0.03)
    assert np.mean([t.prompt[-1].content == DIVERGE for t in used]) == pytest.approx(0.25, abs=0.04)
    assert starts.next(50, exit_context()) == starts.next(50, exit_context()), (
        "draws are named, not remembered"
    )


def test_a_start_state_of_a_held_out_task_cannot_be_trained(tmp_path) -> None:
    more = {"run__tasks_per_step": 4, "run__group_size": 2}
    run = start(letters.plan(tmp_path, "exit", 2, **more), tmp_path / "run", letters.words())
    held, free = run.holdout[0], run.tasks.draw(Request(), 0, 0)
    for task, allowed in ((free, True), (held, False)):
        asked = Start(task, np.array([1], np.int32), 0.0, 0, 1.0).asked(run.generator.renderer, IMPROVE)
        assert run.tasks.held(asked) is not allowed
        if allowed:
            assert sample(run, [Request(task=asked)])[0].task == asked
            continue
        for refused in (asked, held):
            with pytest.raises(UserError, match="held out for evaluation"):
                sample(run, [Request(task=refused)])
    run.close()


def test_exit_goes_on_from_answers_and_resumes(tmp_path) -> None:
    run = two_and_two(tmp_path, "exit", curriculum__least=2, curriculum__share=0.9)
    rows = run.directory.episodes(columns=["step", "prompt", "scores"]).to_pylist()
    gone_on = [r for r in rows if IMPROVE in r["prompt"] or DIVERGE in r["prompt"]]
    assert gone_on
    assert {r["step"] for r in gone_on} <= {2, 3, 4}
    assert all("quality" in r["scores"] for r in rows)
    held = {t.key for t in run.holdout}
    assert not held & {s.task.key for s in run.curriculum.kept}


def test_without_start_states_exit_is_grpo(tmp_path) -> None:
    same_run(tmp_path, "exit", "grpo", {"curriculum__share": 0.0, "curriculum__least": 1}, {})


def test_unlike_answers_count_for_more() -> None:
    """Two answers are equally far from their mean: GRPO. Of three, the one unlike the others is scaled up most."""
    _, alike, _, _ = sit("exit_diverse", ["7", "1"], samples=2)
    _, plain, _, _ = sit("grpo", ["7", "1"], samples=2)
    assert advantages(alike) == advantages(plain)
    _, mine, _, _ = sit("exit_diverse", ["7", "7", "1"], samples=3)
    _, plain, _, _ = sit("grpo", ["7", "7", "1"], samples=3)
    factors = np.array(advantages(mine)) / np.array(advantages(plain))
    assert factors[0] == pytest.approx(factors[1], abs=1e-3)
    assert factors == pytest.approx([1, 1, 2], abs=2e-3)  # distances d/3, d/3, 2d/3; their width d/3


# ---- SwS ---------------------------------------------------------------------------------------------


def phase_one(curves: dict[tuple[str, float], list[float]], **settings) -> Weakness:
    """A curriculum that has seen these accuracies, part after part, of ten attempts each."""
    weakness = Weakness(**{"first": 0.4, "parts": 2, **settings})
    for part in range(2):
        weakness.next(1, SimpleNamespace(progress=0.2 * part))
        for (kind, level), accuracy in curves.items():
            task = toys.replace(toys.task(), kind=kind, difficulty=level)
            right = round(10 * accuracy[part])
            weakness.observe([group_of(task, *[("x", 1.0)] * right, *[("x", 0.0)] * (10 - right))], [])
    return weakness


CURVES = {
    ("easy", 0.0): [0.8, 0.9],
    ("learnt", 0.0): [0.1, 0.4],
    ("mixed", 0.0): [0.9, 0.9],
    ("mixed", 1.0): [0.3, 0.2],
    ("hard", 0.0): [0.1, 0.1],
    ("hard", 1.0): [0.0, 0.0],
}


def later(progress: float):
    tasks = SimpleNamespace(levels=lambda kind: (0.0, 1.0))
    return SimpleNamespace(
        progress=progress, drawn=0, tasks=tasks, rng=lambda *parts: seeds.generator("sws", progress, *parts)
    )


def test_weak_kinds_get_what_their_failures_are_worth() -> None:
    weakness = phase_one(CURVES, share=0.5)
    assert [unit for unit, weak in weakness.weak().items() if weak] == [
        ("hard", 0.0),
        ("hard", 1.0),
        ("mixed", 1.0),
    ]
    assert weakness.report() == pytest.approx(
        {"levels": 6, "weak": 3, "weak/hard": 2 / 3, "weak/mixed": 1 / 3}
    )
    assert weakness.next(64, later(0.39)) == [Request()] * 64, "the first phase is the source's own mixture"
    requests = weakness.next(6000, later(0.4))
    extra = [r for r in requests if r.why]
    assert len(extra) / 6000 == pytest.approx(0.5, abs=0.03)
    assert np.mean([r.kind == "hard" for r in extra]) == pytest.approx(2 / 3, abs=0.03)
    assert {(r.kind, r.difficulty) for r in extra} == {("hard", 0.0), ("hard", 1.0), ("mixed", 1.0)}
    assert {r.kind for r in requests if not r.why} == {None}


def test_the_second_phase_is_not_logged() -> None:
    weakness = phase_one(CURVES)
    before = weakness.accuracy()
    weakness.next(1, later(0.4))
    weakness.observe([group_of(toys.replace(toys.task(), kind="hard", difficulty=0.0), ("x", 1.0))], [])
    assert weakness.accuracy() == before


def test_nothing_weak_changes_nothing() -> None:
    strong = {unit: curve for unit, curve in CURVES.items() if unit[0] in ("easy", "learnt")}
    assert phase_one(strong).next(64, later(0.9)) == [Request()] * 64


def test_the_band_is_for_the_second_phase() -> None:
    _, stages = build(find("sws"))
    groups = [group_of(toys.task(), *[("x", 1.0)] * right, *[("x", 0.0)] * (8 - right)) for right in range(9)]
    assert stages["filter"](groups, later(0.49)) == groups
    assert stages["filter"](groups, later(0.5)) == groups[1:8]


def test_sws_asks_for_what_is_weak_and_resumes(tmp_path) -> None:
    changes = {
        "curriculum__first": 0.3,
        "curriculum__parts": 1,
        "curriculum__share": 1.0,
        "filter__begin": 0.3,
    }
    run = two_and_two(tmp_path, "sws", **changes)
    weak = {level for (_, level), failing in run.curriculum.weak().items() if failing}
    rows = run.directory.episodes(columns=["step", "difficulty"]).to_pylist()
    assert weak
    assert {r["difficulty"] for r in rows if r["step"] > 2} <= weak
    assert run.directory.metrics()[-1]["curriculum"]["weak"] == len(weak)


def test_without_new_tasks_and_without_the_band_sws_is_grpo(tmp_path) -> None:
    same_run(tmp_path, "sws", "grpo", {"curriculum__share": 0.0, "filter__low": 0.0, "filter__high": 1.0}, {})


# ---- problems that a model writes --------------------------------------------------------------------


def example(question: str = "What is 3 + 4?", gold: str = "7", **more):
    return toys.replace(
        toys.task(), prompt=(Message("user", question),), check=Number(gold), answer=gold, **more
    )


def ask(replies: list[str], task=None, settings=None, admits=lambda task: True):
    """A group asked for because its kind is weak, of a writer and a policy that both say `replies`, in order."""
    _, stages = build(find("sws_written"), settings or {})
    sampler = toys.ScriptedSampler(replies=list(replies))
    speaker = toys.generator(sampler.policy, sampler)
    request = Request("kind0", 0.0, why=WHY)
    rollouts = GroupRollout(
        task or example(),
        request,
        2,
        speaker,
        toys.check_runner,
        stages["rollout"],
        stages["reward"],
        1,
        admits=admits,
    )
    group = asyncio.run(rollouts.group(stages["group_rollout"]))
    stages["group_rollout"].observe([group], [])
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
    from etude.lab.tasks import lab_task, warm

    for kind in ("sum", "chain", "sort", "reverse", "count"):
        for level in range(5):
            given, other = (lab_task(kind, level, seed) for seed in (1, 2))
            posed = worked_out(given, f" {other.prompt[0].content}\n1 2 3")
            assert posed is not None
            assert (posed, posed.check, posed.key) == (other, other.check, other.key)
            assert worked_out(given, given.prompt[0].content) is None
    task = lab_task("sum", 0, 1)
    assert [
        worked_out(task, text) for text in ("", "sum", "sum 12", "sum abc", "sort abc", "sum 1234567890")
    ] == [None] * 6
    known = next(said for said in (f"sum {i}" for i in range(100, 200)) if warm(said))
    assert worked_out(task, known) is None, "the warm-up's quarter is never drawn"


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
        "curriculum__first": 0.3,
        "curriculum__parts": 1,
        "curriculum__share": 1.0,
        "group_rollout__votes": 2,
    }
    run = two_and_two(tmp_path, "sws_written", **changes, group_rollout__least=1)
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


def test_failures_of_hinted_attempts_are_counted() -> None:
    def check(answer: str) -> Verdict:
        if answer.strip().startswith("x"):
            raise ValueError("no")
        return seven(answer)

    group, _, _, _ = sit("scaf_grpo", [*FAILED, "x", "7"], check=check)
    assert group.rewards.tolist() == [0, 0, 0, 1]
    assert [e.failure.where for e in group.failed if isinstance(e.failure, Failure)] == ["rollout"]
