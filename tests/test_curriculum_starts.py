"""ExIt: earlier answers become tasks of their own."""

import numpy as np
import pytest

import toys
import worlds_of_letters as letters
from etude.assembly import build
from etude.errors import UserError
from etude.methods import find
from etude.methods.sampling_and_curricula.exit import DIVERGE, IMPROVE, Start, Starts
from etude.train.collect import sample
from etude.train.setup import start
from etude.types import Episode, Group, Request, Span, Verdict
from scripted import advantages, decode, same_run, scripted_group, stopped_and_resumed


def answer(task, said: str, reward: float) -> Episode:
    tokens = toys.tokenizer().encode(said)
    span = Span("assistant", np.array(tokens, np.int32), sampled=True, logp=np.zeros(len(tokens), np.float32))
    return Episode(task, (span,), verdicts=(Verdict(reward, reward == 1),)).with_scores({"reward": reward})


def group_of(task, *outcomes: tuple[str, float]) -> Group:
    return Group(task, tuple(answer(task, said, reward) for said, reward in outcomes))


def buffer(**settings) -> Starts:
    return build(find("exit"), {f"curriculum.{name}": value for name, value in settings.items()})[1][
        "curriculum"
    ]


def test_an_answer_becomes_a_start_state() -> None:
    starts = buffer(min_starts=1, start_share=1.0, diverge_share=0.0)
    context, task = toys.context(toys.TablePolicy()), toys.task()
    assert starts.next(2, context) == [Request(), Request()]
    starts.observe([group_of(task, ("5", 0.5), ("7", 1.0), ("7", 1.0), ("7", 1.0))], [], context)
    (kept,) = starts.kept
    assert (decode(kept.reply), kept.quality, kept.steps) == ("5", 0.5, 0), (
        "a perfect answer cannot be improved"
    )
    assert kept.score == pytest.approx(np.var([0.5, 1, 1, 1]))
    (request,) = starts.next(1, context)
    assert request.task is not None
    said = [(m.role, m.content) for m in request.task.prompt]
    assert said == [("user", "q0"), ("assistant", "5"), ("user", IMPROVE)]
    assert request.task.key != task.key
    assert request.task.meta["parent"] == task.key
    _, stages = build(find("exit"))
    gained = [stages["reward"](answer(request.task, "x", q))["reward"] for q in (0.25, 0.5, 0.75, 1.0)]
    assert gained == [0, 0, 0.5, 1]
    assert stages["reward"](answer(task, "x", 0.25)) == {"reward": 0.25, "quality": 0.25}

    starts.observe([group_of(request.task, ("6", 0.5), ("6", 0.5))], [], context)
    assert [(s.steps, s.score) for s in starts.kept] == [(0, 0.0), (1, 0.0)], "the parent is scored anew"
    assert starts.kept[1].task.key == task.key
    assert starts.report() == {"starts": 2.0, "score": 0.0, "longest": 1.0}
    for number in range(1, 9):
        starts.observe([group_of(toys.task(number), *[("7", 1.0)] * 3, ("1", 0.0))], [], context)
    assert max(s.quality for s in starts.kept) < 1


def test_a_full_buffer_gives_up_its_lowest_score_for_one_as_high() -> None:
    context = toys.context(toys.TablePolicy())
    starts = buffer(max_starts=2)
    for number, rewards in enumerate([(0, 1), (0, 0), (0, 0.5), (0, 0.25)]):
        starts.observe([group_of(toys.task(number), *((f"{number}", r) for r in rewards))], [], context)
    assert [s.task.prompt[0].content for s in starts.kept] == ["q0", "q2"]
    starts.observe([group_of(toys.task(5), ("5", 0), ("5", 0.5))], [], context)
    assert [s.task.prompt[0].content for s in starts.kept] == ["q0", "q5"], "an equal score replaces"


def test_starts_are_drawn_by_their_scores() -> None:
    starts = buffer(min_starts=1, start_share=0.7, exit_kappa=float(np.log(9)), diverge_share=0.25)
    for number, score in enumerate((1.0, 0.0)):
        starts.kept.append(Start(toys.task(number), np.array(toys.tokenizer().encode("5")), 0.0, 0, score))
    requests = starts.next(4000, toys.context(toys.TablePolicy()))
    used = [r.task for r in requests if r.task]
    assert len(used) / 4000 == pytest.approx(0.7, abs=0.03)
    assert np.mean([t.prompt[0].content == "q0" for t in used]) == pytest.approx(0.9, abs=0.03)
    assert np.mean([t.prompt[-1].content == DIVERGE for t in used]) == pytest.approx(0.25, abs=0.04)
    assert starts.next(50, toys.context(toys.TablePolicy())) == starts.next(
        50, toys.context(toys.TablePolicy())
    ), "draws are named, not remembered"


def test_a_start_state_of_a_held_out_task_cannot_be_trained(tmp_path) -> None:
    more = {"run__tasks_per_step": 4, "run__group_size": 2}
    run = start(letters.plan(tmp_path, "exit", 2, **more), tmp_path / "run", letters.words())
    held, free = run.holdout[0], run.tasks.draw(Request(), 0, 0)
    for task, allowed in ((free, True), (held, False)):
        asked = Start(task, np.array([1], np.int32), 0.0, 0, 1.0).as_task(run.generator.renderer, IMPROVE)
        assert run.tasks.held(asked) is not allowed
        if allowed:
            assert sample(run, [Request(task=asked)])[0].task == asked
            continue
        for refused in (asked, held):
            with pytest.raises(UserError, match="held out for evaluation"):
                sample(run, [Request(task=refused)])
    run.close()


def test_exit_goes_on_from_answers_and_resumes(tmp_path) -> None:
    run = stopped_and_resumed(tmp_path, "exit", curriculum__min_starts=2, curriculum__start_share=0.9)
    rows = run.directory.episodes(columns=["step", "prompt", "scores"]).to_pylist()
    gone_on = [r for r in rows if IMPROVE in r["prompt"] or DIVERGE in r["prompt"]]
    assert gone_on
    assert {r["step"] for r in gone_on} <= {2, 3, 4}
    assert all("quality" in r["scores"] for r in rows)
    held = {t.key for t in run.holdout}
    assert not held & {s.task.key for s in run.curriculum.kept}


def test_without_start_states_exit_is_grpo(tmp_path) -> None:
    same_run(tmp_path, "exit", "grpo", {"curriculum__start_share": 0.0, "curriculum__min_starts": 1}, {})


def test_unlike_answers_count_for_more() -> None:
    """Two answers are equally far from their mean: GRPO. Of three, the one unlike the others is scaled up most."""
    _, alike, _, _ = scripted_group("exit_diverse", ["7", "1"], samples=2)
    _, plain, _, _ = scripted_group("grpo", ["7", "1"], samples=2)
    assert advantages(alike) == advantages(plain)
    _, mine, _, _ = scripted_group("exit_diverse", ["7", "7", "1"], samples=3)
    _, plain, _, _ = scripted_group("grpo", ["7", "7", "1"], samples=3)
    factors = np.array(advantages(mine)) / np.array(advantages(plain))
    assert factors[0] == pytest.approx(factors[1], abs=1e-3)
    assert factors == pytest.approx([1, 1, 2], abs=2e-3)  # distances d/3, d/3, 2d/3; their width d/3


def test_worlds_are_refused(tmp_path) -> None:
    lake = letters.plan(tmp_path, "exit", 1, run__eval_problems=0).but(tasks="frozen_lake:size=3")
    with pytest.raises(UserError, match="answered in words"):
        start(lake, tmp_path / "no")
