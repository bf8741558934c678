"""Methods on stale data, where a reduction on fresh data cannot tell them apart."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toys
from etude.assembly import build
from etude.credit.group import constant
from etude.curriculum.replay import Replay
from etude.fixtures.examples import example_advantages
from etude.methods import find
from etude.methods.off_policy.a_lol import estimate_value, whole_answer
from etude.methods.off_policy.topr import shifted
from etude.models.outputs import Outputs
from etude.testing.laws import close
from etude.types import Verdict
from formulas import answers, autograd, moved, parallel, prepared


@pytest.mark.parametrize("drift", [0.05, 0.2, 0.5])
def test_rec_with_one_side_and_importance_is_grpo_without_std(drift: float) -> None:
    mine = toys.gradient(toys.lesson("rec", {"objective.importance": True}, drift=drift))
    theirs = toys.gradient(
        toys.lesson("grpo", {"credit.scale": "off", "objective.mean": "token"}, drift=drift)
    )
    assert close(mine, theirs)
    unweighted = toys.gradient(toys.lesson("rec", drift=drift))
    assert not close(unweighted, theirs, 1e-3)


def test_opmd_is_one_step_on_the_consistency_of_pairs() -> None:
    """At pi_theta = pi_old, the gradient of sum_{i<j} ((r_i - r_j) - tau (d_i - d_j))^2 / (2 tau G), d = log pi - log pi_old,
    is that of group-relative REINFORCE, whatever tau; and tau d^2 has none."""
    lesson, _ = prepared("opmd", {"objective.mean": "sum"})
    tau = 0.7

    def pairs(out: Outputs, batch):
        total, episodes = torch.zeros(()), answers(batch)
        d = [(out.logp - batch.behaviour)[on].sum() for on in episodes]
        r = [float(batch.advantage[on][0]) for on in episodes]  # rewards minus a constant of the group
        group_of = [int(batch.group[on][0]) for on in episodes]
        for i in range(len(d)):
            mine = [j for j in range(len(d)) if group_of[j] == group_of[i]]
            for j in mine:
                total = total + ((r[i] - r[j]) - tau * (d[i] - d[j])) ** 2 / (4 * tau * len(mine))
        return total / len(d)

    assert close(toys.gradient(lesson), autograd(lesson, pairs), 1e-5)


def test_topr_by_the_formula_on_stale_data() -> None:
    lesson, _ = prepared("topr", {"credit.reward_shift": 0.25}, drift=0.3)

    def formula(out: Outputs, batch):
        total, episodes = torch.zeros(()), answers(batch)
        for on in episodes:
            logp, reward = out.logp[on].sum(), float(batch.advantage[on][0])
            ratio = float((logp - batch.behaviour[on].sum()).detach().exp())
            total = total - (1.0 if reward >= 0 else min(1.0, ratio)) * reward * logp
        return total / len(episodes)

    assert close(toys.gradient(lesson), autograd(lesson, formula), 1e-6)


def test_topr_forgets_wrong_answers_that_the_policy_would_not_give() -> None:
    """Without right answers, the gradient fades where the policy has moved away; REINFORCE's does not."""
    lesson, _ = prepared("topr", {"credit.reward_shift": 1.0})
    assert all(s.advantage.max() <= 0 for s in lesson.signals)
    near = toys.gradient(lesson).norm()
    stale = [replace(s, episode=older(s.episode, by=5.0)) for s in lesson.signals]
    assert toys.gradient(lesson, signals=stale).norm() < 1e-2 * near
    plain = toys.Lesson(
        {**lesson.stages, "objective": build(find("reinforce"))[1]["objective"]}, lesson.context, stale
    )
    assert toys.gradient(plain).norm() > 0.9 * near


def test_topr_baseline_stands_for_a_share_of_right_answers() -> None:
    """p~ = p (1 - c) / (1 + (1 - 2p) c): half right at c = 0.5 weighs like a quarter, c = 0 changes nothing."""
    for p, c, share in ((0.5, 0.5, 0.25), (0.3, 0.0, 0.3)):
        right, wrong = example_advantages(shifted(c), [1, 0])
        assert p * right / (p * right - (1 - p) * wrong) == pytest.approx(share)


def test_nsr_hands_the_mass_to_what_was_believed_already() -> None:
    """Down by p_y (1 - p_y), up by p_y p_v at every other v: p = (.5, .3, .2), y = 0 was wrong."""
    z = torch.tensor([0.5, 0.3, 0.2]).log().requires_grad_()
    logp, on = z.log_softmax(0)[:1], torch.tensor([True])
    batch = SimpleNamespace(sampled=on, needed=on, behaviour=logp.detach(), advantage=torch.tensor([-1.0]))
    loss, _ = build(find("nsr"))[1]["objective"].terms[0].loss(SimpleNamespace(logp=logp), batch)
    loss.sum().backward()
    assert (-0.5 * z.grad).tolist() == pytest.approx([-0.25, 0.15, 0.10])


def older(episode, by: float):
    """The episode as if its tokens had each been likelier by `by` nats when they were sampled."""
    return replace(
        episode, spans=tuple(replace(s, logp=s.logp + by) if s.sampled else s for s in episode.spans)
    )


def test_topr_on_policy_is_reinforce_of_plus_and_minus_one() -> None:
    lesson, groups = prepared("topr")
    bare = [constant(e, e.reward - 0.5) for g in groups for e in g.episodes]
    plain = toys.Lesson(build(find("reinforce"))[1], lesson.context, bare)
    assert close(toys.gradient(lesson), 2 * toys.gradient(plain))


@pytest.mark.parametrize("whole", [False, True])
def test_nft_by_the_formula_on_stale_data(whole: bool) -> None:
    settings = {
        "objective.whole": whole,
        "objective.ratio_floor": 0.9,
        "objective.negative": 0.5,
        "objective.length_divisor": 1.0,
    }
    lesson, groups = prepared("nft", settings, drift=0.1)
    rate = {g.task.key: np.clip(np.mean([e.correct for e in g.episodes]), 0.02, 0.98) for g in groups}

    def formula(out: Outputs, batch):
        total, episodes = torch.zeros(()), answers(batch)
        keys = list(dict.fromkeys(s.episode.task.key for s in lesson.signals))
        for on in episodes:
            r = rate[keys[int(batch.group[on][0])]]
            right = float(batch.advantage[on][0]) > 0
            log_ratio = (out.logp - batch.behaviour)[on]
            for log_r in [log_ratio.sum()] if whole else log_ratio:
                n = (1 - r * log_r.exp()) / (1 - r)
                held = max(float(n.detach()), 0.9)
                loss = -log_r if right else -0.5 * n / held  # d(-log max_v(N)) = -dN / max(N, floor)
                total = total + (1 - r) * loss
        return total / len(episodes)

    assert close(toys.gradient(lesson), autograd(lesson, formula), 1e-5)


def test_nft_without_wrong_answers_is_rft() -> None:
    settings = {"objective.negative": 0.0, "credit.task_weight": "1"}
    mine = toys.gradient(toys.lesson("nft", settings, drift=0.2))
    theirs = toys.gradient(toys.lesson("rft", {"credit.distinct": False, "objective.mean": "sum"}, drift=0.2))
    assert parallel(mine, theirs)


def test_replay_keeps_what_is_recent_with_its_own_log_probabilities() -> None:
    policy = toys.TablePolicy()
    where, filter = toys.context(policy), Replay(steps=2)
    _, stages = build(find("topr"))
    first = toys.play(stages, policy, [toys.task(i) for i in range(3)])
    assert filter(first, where) == first, "at first there is nothing else"
    kept = [e.logp.copy() for g in first for e in g.episodes]
    moved(policy, 0.5)
    where.step, where.drawn = 1, 3
    second = toys.play(stages, policy, [toys.task(i) for i in range(3, 6)])
    state = filter.state_dict()
    chosen = filter(second, where)
    assert len(chosen) == 3
    again = Replay(steps=2)
    again.load_state_dict(state)
    assert [g.task.key for g in again(second, where)] == [g.task.key for g in chosen]
    mixed = {g.task.key for s in range(20) for g in at(again, state, second, where, s)}
    assert mixed == {g.task.key for g in (*first, *second)}, "old and new alike are drawn"
    where.step, where.drawn = 2, 6
    assert {g.task.key for g in filter([], where)} == set()
    assert {s for s, _ in filter.held} == {1}, "the first step is forgotten"
    assert all(
        np.array_equal(a, e.logp) for a, e in zip(kept, (e for g in first for e in g.episodes), strict=True)
    )


def at(filter: Replay, state: dict, groups, where, drawn: int):
    filter.load_state_dict(state)
    where.drawn = drawn
    return filter(groups, where)


def test_a_lol_learns_from_the_start_and_its_value_from_a_frozen_trunk() -> None:
    lesson, groups = prepared("a_lol", samples=6)
    reference, where = lesson.context.auxiliary["reference"], lesson.context
    signals = [constant(e, 0.0) for g in groups for e in g.episodes]
    logp = where.rows(signals, lambda out: out.logp, policy=reference)
    for signal, row in zip(signals, logp, strict=True):
        np.testing.assert_allclose(
            row[signal.episode.sampled], signal.episode.logp[signal.episode.sampled], atol=1e-5
        )
    assert lesson.signals
    assert all(s.advantage[s.weights["policy"] > 0].min() > 0 for s in lesson.signals)
    critic = where.auxiliary["critic"]
    fresh = toys.TablePolicy(0, {"value": 1}).state_dict()
    now = critic.policy.state_dict()
    assert torch.equal(now["after"], fresh["after"])
    assert not torch.equal(now["heads.value"], fresh["heads.value"])
    critic.optimiser().param_groups[1]["base_lr"] = 0.1
    own = [whole_answer(e) for g in groups for e in g.episodes]
    for _ in range(150):
        critic.learn(estimate_value(), own, 0, 0.0)
    values = where.rows(own, lambda out: out.heads["value"][:, 0], policy=critic.policy)
    mean = np.mean([e.reward for g in groups for e in g.episodes])  # the table cannot tell the prompts apart
    for signal, row in zip(own, values, strict=True):
        assert row @ signal.weights["first"] == pytest.approx(mean, abs=0.05)


def test_a_lol_without_value_and_weight_clones_the_right_answers() -> None:
    settings = {"credit.subtract_value": False, "objective.importance_unit": "off"}
    lesson, groups = prepared("a_lol", settings, drift=0.2)
    _, stages = build(find("rft"), {"credit.distinct": False, "objective.mean": "sum"})
    theirs = toys.Lesson(stages, lesson.context, stages["credit"](groups, None))
    assert close(toys.gradient(lesson), toys.gradient(theirs))


def test_a_lol_judges_the_traces_it_is_given() -> None:
    settings = {"group_rollout.traces": True, "credit.subtract_value": False}
    lesson, groups = prepared(
        "a_lol", settings, tasks=[toys.task(0, only_seven), toys.task(1, only_seven, reference="8")]
    )
    good, bad = (g.demonstrations[0] for g in groups)
    assert (good.reward, bad.reward) == (1.0, 0.0)
    used = [s.episode for s in lesson.signals]
    assert any(e is good for e in used)
    assert not any(e is bad for e in used)
    _, stages = build(find("a_lol"), {"group_rollout.traces": True})
    taught: list = []
    critic = lesson.context.auxiliary["critic"]
    critic.learn = lambda objective, signals, step, progress: taught.extend(signals)
    stages["credit"](groups, lesson.context)
    assert len(taught) == sum(len(g.episodes) for g in groups), "what others wrote says nothing of the start"
    assert not any(s.episode.demonstration for s in taught)


def only_seven(answer: str) -> Verdict:
    right = answer.endswith("7")
    return Verdict(float(right), right)


def test_a_lol_by_the_formula_on_data_of_the_start() -> None:
    lesson, _ = prepared("a_lol", {"credit.subtract_value": False, "objective.weight_clip": 0.5}, drift=0.3)

    def formula(out: Outputs, batch):
        total, episodes = torch.zeros(()), answers(batch)
        for on in episodes:
            logp = out.logp[on].sum()
            ratio = float((logp - batch.behaviour[on].sum()).detach().exp())
            total = total - min(1.5, max(0.5, ratio)) * float(batch.advantage[on][0]) * logp
        return total / len(episodes)

    assert close(toys.gradient(lesson), autograd(lesson, formula), 1e-5)
