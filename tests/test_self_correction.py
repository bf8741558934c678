"""Second attempts as token rows: in the same conversation, after a critique, inside the same turn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toys
from etude.assembly import build
from etude.batch import pack
from etude.curriculum.base import SourceMixture
from etude.fixtures.examples import example_group
from etude.methods import find
from etude.train import collect
from second_attempts import attempt_of, decode, plain, play, trained


def score_rows(progress: float, settings=None):
    policy = toys.TablePolicy()
    context = toys.context(policy, progress=progress)
    group, signals, sampler, _ = play("score", ["5", "7", "7", "7"], settings, samples=2, context=context)
    return group, signals, sampler


def test_score_asks_again_whether_right_or_wrong_and_does_not_say() -> None:
    group, _, sampler = score_rows(0.0)
    assert [[v.correct for v in e.verdicts] for e in group.episodes] == [[False, True], [True, True]]
    for asked in sampler.asked[1::2]:
        assert "There might be an error above" in decode(asked)
        assert "too low" not in decode(asked)
    assert not any(s.restart for e in group.episodes for s in e.spans), "one conversation"


def test_score_stage_one_rewards_second_attempts_and_holds_first_ones() -> None:
    _, signals, _ = score_rows(0.2, {"credit.centre": False})
    assert [trained(s) for s in signals] == [[("attempt 2", "7", 1.0)], [("attempt 2", "7", 1.0)]]
    for signal in signals:
        kl = {round(float(k), 3) for k in signal.weights["kl"][attempt_of(signal.episode) == 1]}
        assert kl == {0.11}
        assert {round(float(k), 3) for k in signal.weights["kl"][attempt_of(signal.episode) == 2]} == {0.01}
        assert not signal.weights["kl"][attempt_of(signal.episode) == 0].any()


def test_score_stage_two_rewards_both_and_progress_tenfold() -> None:
    _, signals, _ = score_rows(0.5, {"credit.centre": False})
    mended, kept = signals
    assert trained(mended) == [("attempt 1", "5", 0.0), ("attempt 2", "7", 11.0)]
    assert trained(kept) == [("attempt 1", "7", 1.0), ("attempt 2", "7", 1.0)]
    assert {round(float(k), 3) for k in mended.weights["kl"][attempt_of(mended.episode) > 0]} == {0.01}
    _, centred, _ = score_rows(0.5)
    assert [a for _, _, a in trained(centred[0])] == [-0.5, 5.0]


def test_score_holds_the_policy_by_the_kl_that_the_paper_names() -> None:
    """Two answers of probability 0.8 and 0.2, at the start 0.5 each: the expected gradient on their logit is that of
    KL(pi || start), 0.16 log 4, and not that of KL(start || pi), 0.3, which k3 has as a loss."""
    logit = torch.tensor(np.log(4.0), requires_grad=True)
    logp = torch.stack([torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)])
    batch = SimpleNamespace(extras={"reference": torch.full((2,), np.log(0.5))})
    (term,) = [t for t in build(find("score"))[1]["objective"].terms if t.name == "kl"]
    loss, _ = term.loss(SimpleNamespace(logp=logp), batch)
    (gradient,) = torch.autograd.grad((logp.detach().exp() * loss).sum(), logit)
    assert float(gradient) == pytest.approx(0.16 * np.log(4))


def test_ufo_says_try_again_and_pays_less_for_later_success() -> None:
    group, _, sampler, _ = play("ufo", ["5", "5", "7"])
    (episode,) = group.episodes
    second = decode(sampler.asked[1])
    assert second.startswith(decode(sampler.asked[0]) + "5")
    assert "Incorrect. Please think again." in second
    assert second.count("q0") == 1, "the question is not asked again"
    assert "too low" not in second
    assert episode.scores["won"] == 0.25
    assert episode.scores["repeated"] == pytest.approx(-0.5 / 3)
    assert episode.scores["reward"] == pytest.approx(0.25 - 0.5 / 3)
    assert len(play("ufo", ["1", "2", "3", "4", "6"])[0].episodes[0].verdicts) == 5


@pytest.mark.parametrize(("name", "kept", "drawn"), [("ufo", 2, 8), ("dapo", 8, 15)])
def test_ufo_draws_nothing_in_place_of_what_it_leaves_out(
    name: str, kept: int, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight groups a step, every other one without spread: UFO trains on two of the eight, DAPO draws seven more."""
    run = SimpleNamespace(
        settings=SimpleNamespace(tasks_per_step=8, oversample=4.0),
        context=None,
        curriculum=SourceMixture(),
        filter=build(find(name))[1]["filter"],
        recent=[],
    )
    monkeypatch.setattr(
        collect,
        "sample",
        lambda run, requests, **_: [example_group([i % 2, 1.0]) for i in range(len(requests))],
    )
    groups, paid = collect.collect(run)
    assert (len(groups), len(paid)) == (kept, drawn)


def test_rise_imitates_every_turn_with_those_before_in_view() -> None:
    settings = {"rollout.candidates": 3}
    group, signals, sampler, _ = play("rise", ["5", "6", "7", "8"], settings)
    (episode,) = group.episodes
    assert [decode(s.tokens) for s in episode.spans if s.sampled] == ["5", "7"]
    assert [trained(s, "imitation") for s in signals] == [
        [("attempt 1", "5", 0.0)],
        [("attempt 2", "7", 0.0)],
    ]
    first, last = signals
    assert first.weights["imitation"][attempt_of(first.episode) == 1] == pytest.approx(1.0)
    assert len(first.episode.tokens) < len(last.episode.tokens) == len(episode.tokens)
    assert last.weights["imitation"][attempt_of(episode) == 2] == pytest.approx(np.exp(2.5))
    assert decode(sampler.asked[1]).count("q0") == 2, "the question is asked again"
    wrong = ["5", "6", "8", "9"]
    assert len(play("rise", wrong, {**settings, "credit.keep": "better"})[1]) == 1, "no better than before"
    assert len(play("rise", wrong, settings)[1]) == 2
    assert len(play("rise", ["5", "5", "5", "5"], settings)[1]) == 1, "a turn that says the same again"


def test_rise_is_worded_as_told_and_examined_without_an_oracle() -> None:
    _, _, sampler, _ = play("rise", ["5", "7"], {"rollout.candidates": 1, "rollout.again": "No. {question}?"})
    assert "No. q0?" in decode(sampler.asked[1])
    replies = ["1", "2", "3", "7", "8"]
    group, _, sampler, _ = play("rise", replies, {**find("rise").all_exam})
    assert [v.correct for v in group.episodes[0].verdicts] == [False, False, False, True]
    assert len(sampler.asked) == 4, "one try a turn"


def test_rise_may_take_the_improved_turn_from_a_teacher() -> None:
    other = toys.ScriptedSampler(replies=["37"])
    generators = {"teacher": toys.generator(other.policy, other)}
    group, signals, _, _ = play("rise", ["5"], {"rollout.writer": "teacher"}, others=generators)
    assert [v.correct for v in group.episodes[0].verdicts] == [False, True]
    assert trained(signals[1], "imitation") == [("attempt 2", "37", 0.0)]
    assert "5" in decode(other.asked[0]), "the teacher sees the attempt that failed"
    assert not group.episodes[0].spans[-1].sampled


# ---- after a critique --------------------------------------------------------------------------------


def test_rltf_sd_distils_under_the_bare_prompt_with_its_own_old_probabilities() -> None:
    group, signals, sampler, _stages = play("rltf_sd", ["5", "think", "7"], {"credit.logp_floor": -100})
    whole, kept = signals
    assert [t for t, _, _ in trained(whole)] == ["attempt 1", "attempt 2"], (
        "what the judge says is not reinforced"
    )
    assert "think" in decode(sampler.asked[2])
    assert "Do not give the right answer" in decode(sampler.asked[1])
    assert trained(kept, "distilled") == [("attempt 2", "7", 1.0)]
    batch = pack(signals)
    mine = (batch.episode == 1) & batch.sampled
    expected = sampler.policy.score(batch).logp[mine]
    assert torch.allclose(batch.behaviour[mine].double(), expected, atol=1e-6), "the ratio begins at 1"
    assert float(batch.behaviour[mine][0]) != -1.0, "not as it was sampled, with the critique in view"
    few = play("rltf_sd", ["5", "think", "7"], {"credit.logp_floor": 0})[1][1]
    assert not few.weights["distilled"].any(), "tokens too unlikely without the critique are left out"
    assert group.episodes[0].scores == {"reward": 1.0, "first": 0.0, "second": 1.0}


def test_rltf_takes_form_off_and_discounts_the_second_turn() -> None:
    settings = {"rollout.critic": "feedback", "credit.logp_floor": -100}
    group, signals, _, _ = play("rltf_sd", ["", "7", "7"], settings, samples=2)
    assert [e.scores["first"] for e in group.episodes] == [-0.1, 1.0]
    wholes = [s for s in signals if "policy" in s.weights]
    # R_1 = -0.1 + 0.1 x 1 = 0 and 1: minus their mean
    assert [trained(s)[0][2] for s in wholes] == [-0.5, 0.5]
    (kept,) = [s for s in signals if "distilled" in s.weights]
    assert trained(kept, "distilled")[0][2] == pytest.approx(1 - 0.45)


@pytest.mark.parametrize(
    ("name", "replies", "shown"),
    [
        ("rltf_sd", ["5", "3", "7"], [True, True]),  # the critic, and who answers again
        ("rltf_fm", ["5", "3", "7"], [True, True]),
        ("critique_grpo", ["5", "7"], [True]),
        ("re_rest", ["5", "7"], [True]),
        ("erl", ["5", "3", "7"], [True, False]),  # who reflects; the second attempt has the advice alone
    ],
)
def test_who_is_to_do_better_sees_the_answer_and_what_came_of_it(
    name: str, replies: list[str], shown: list[bool]
) -> None:
    _, _, sampler, _ = play(name, replies)
    asked = [decode(prompt) for prompt in sampler.asked[1:]]
    assert [":\n5\n" in prompt for prompt in asked] == shown
    assert "too low" in asked[0]


def test_rltf_fm_is_examined_by_its_own_critique() -> None:
    _, _, sampler, _ = play("rltf_fm", ["5", "3", "7"], dict(find("rltf_fm").all_exam))
    critic, again = (decode(prompt) for prompt in sampler.asked[1:])
    assert ":\n5\n" in critic
    assert "too low" not in critic + again


@pytest.mark.parametrize("critic", ["policy", "start"])
def test_rltf_fm_learns_the_critique_without_what_its_writer_knew(critic: str) -> None:
    other = toys.ScriptedSampler(replies=["think"])
    generators = {"reference": toys.generator(other.policy, other)}
    replies = ["5", "think", "7"] if critic == "policy" else ["5", "7"]
    _group, signals, sampler, _ = play("rltf_fm", replies, {"rollout.critic": critic}, others=generators)
    whole, said = signals
    assert [t for t, _, _ in trained(whole)] == ["attempt 1", "attempt 2"]
    assert trained(said, "imitation") == [("critique", "think", 0.0)]
    text = decode(said.episode.tokens)
    assert "q0" in text
    assert "5" in text
    assert "too low" not in text, "the verdict and the feedback are not in its context"
    judged = decode((sampler if critic == "policy" else other).asked[critic == "policy"])
    assert "too low" in judged


def test_critique_grpo_lets_the_best_refinement_take_a_place() -> None:
    group, signals, sampler, _ = play("critique_grpo", ["1", "4", "2", "7", "3", "6"], samples=3)
    assert "About that answer: too low" in decode(sampler.asked[1])
    (refined,) = [s for s in signals if s.extras["refined"].any()]
    mine = [s for s in signals if s is not refined]
    assert decode(refined.episode.tokens) == plain() + "7"
    assert trained(refined) == [("attempt 2", "7", 0.667)]
    assert [trained(s) for s in mine] == [[("attempt 1", "1", -0.333)], [("attempt 1", "2", -0.333)], []]
    batch = pack(signals)
    assert len(torch.unique(batch.episode[batch.weight("policy") != 0])) == 3, "n in all, as before"
    all_wrong = play("dr_grpo", ["1", "2", "3"], samples=3)[1]
    assert not any(s.advantage.any() for s in all_wrong), "without refinements this group would be silent"
    assert len(group.episodes) == 3


def test_re_rest_stores_repairs_for_the_agent_and_for_the_reflector() -> None:
    group, signals, _sampler, _ = play("re_rest", ["7", "1", "17", "2", "3"], samples=3)
    assert [[v.correct for v in e.verdicts] for e in group.episodes] == [
        [True],
        [False, True],
        [False, False],
    ]
    rows = [trained(s, "imitation") for s in signals]
    assert rows == [
        [("attempt 1", "7", 0.0)],
        [("attempt 2", "17", 0.0)],
        [("attempt 2", "17", 0.0)],
        [("attempt 1", "7", 0.0)],
    ]
    texts = [decode(s.episode.tokens) for s in signals]
    assert texts[1] == plain() + "17", "the agent's repair is stored without the reflection"
    assert "too low" in texts[2]
    assert "An earlier answer:\n2" in texts[3], "what was not repaired is answered with what a sibling said"
    assert texts[3].endswith("7")
    criticised = play("re_rest", ["7", "2", "why", "3"], {"rollout.critic": "policy"}, samples=2)[1]
    assert "About that answer: why" in decode(criticised[-1].episode.tokens), (
        "as the second attempt was asked"
    )
    agent_only = play("re_rest", ["7", "1", "17", "2", "3"], {"credit.train_repair": False}, samples=3)[1]
    assert len(agent_only) == 2


def guided(answers=("1",), said="no, 7", **settings):
    other = toys.ScriptedSampler(replies=[said] * len(answers))
    generators = {"reference": toys.generator(other.policy, other)}
    settings = {"group_rollout.first_share": 1.0, **{f"group_rollout.{k}": v for k, v in settings.items()}}
    return *play("think_tuning", answers, settings, len(answers), generators), other


def test_think_tuning_writes_the_teacher_into_the_students_turn() -> None:
    group, (signal,), _sampler, _stages, other = guided()
    (episode,) = group.episodes
    stop = toys.tokenizer().stops[0]
    assert [(s.tag, s.sampled) for s in episode.spans] == [
        ("prompt", False),
        ("attempt", True),
        ("guidance", False),
    ]
    student, teacher = episode.spans[1:]
    assert decode(student.tokens) == "1"
    assert stop not in student.tokens.tolist(), "the turn goes on"
    assert decode(teacher.tokens) == "\nno, 7"
    assert teacher.tokens[-1] == stop
    assert episode.correct, "the whole is judged"
    assert [t for t, _, _ in trained(signal)] == ["attempt", "guidance"]
    assert signal.extras["guidance"].sum() == len(teacher)
    assert "A student's answer:\n1" in decode(other.asked[0])


def test_think_tuning_teaches_the_teachers_words() -> None:
    """The gradient reaches guidance tokens, with the weight A where g = 0."""
    _group, signals, sampler, _stages, _ = guided(("1", "2"))
    for signal, sign in zip(signals, (1.0, -1.0), strict=True):
        signal.advantage[:] = np.where(signal.weights["policy"] > 0, sign, 0)
    batch = pack(signals)
    out = sampler.policy.outputs(batch)
    logp = out.logp.detach().requires_grad_()
    (term,) = build(find("think_tuning"), {"objective.slack": 0.0})[1]["objective"].terms
    term.total(toys.replace(out, logp=logp), batch)[0].backward()
    theirs = batch.extras["guidance"] > 0
    assert logp.grad is not None
    usual = theirs & (logp > np.log(1e-3))  # below, the denominator is kept at 0.001
    assert int(usual.sum()) > 8
    assert torch.allclose(logp.grad[usual], -batch.advantage[usual].double(), atol=1e-6)


def test_the_student_may_write_on_after_the_teacher() -> None:
    other = toys.ScriptedSampler(replies=["try more"])
    generators = {"reference": toys.generator(other.policy, other)}
    settings = {"group_rollout.first_share": 1.0, "group_rollout.goes_on": True}
    group, (signal,), _, _ = play("think_tuning", ["1", "7"], settings, 1, generators)
    assert [t for t, _, _ in trained(signal)] == ["attempt", "guidance", "attempt"]
    assert group.episodes[0].correct


def test_satori_without_backtracking_goes_on_after_the_whole_attempt() -> None:
    group, *_ = play("satori", ["3+5\n=8", "7"], {"group_rollout.backtrack": 0}, samples=2)
    first, again = group.episodes
    assert decode(again.tokens).startswith(decode(first.tokens) + "\nWait")
    assert [e.correct for e in group.episodes] == [False, True]
