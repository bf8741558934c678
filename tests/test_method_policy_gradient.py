"""Methods of the policy-gradient family against their papers: normalisation, entropy, windows."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from etude import seeds
from etude.assembly import build
from etude.credit.group import advantage, constant, standardised, whitened
from etude.errors import UserError
from etude.fixtures.examples import example_advantages, example_group
from etude.methods import find
from etude.methods.imitation.ditto import sentences
from etude.methods.policy_gradient.bnpo import beta_density, beta_normalised
from etude.methods.policy_gradient.t1 import repeats
from etude.methods.policy_gradient.t_ppo import OPEN, RUNNING, Unfinished, egae
from etude.models.outputs import Outputs
from etude.rollout.group_rollout import GroupRollout
from etude.testing.laws import close
from etude.types import Request
from formulas import answers, autograd, moved, prepared

# ---- normalisation ----------------------------------------------------------------------------------------------------


def test_bnpo_with_alpha_and_beta_three_halves_is_grpo_up_to_a_constant() -> None:
    rewards = np.array([1.0, 1, 0, 1, 0, 0, 0, 0])
    p = rewards.mean()
    mine = (rewards - p) / beta_density(np.array([p]), 1.5, 1.5)
    np.testing.assert_allclose(mine, np.pi / 8 * standardised(rewards, 0.0), rtol=1e-9)


def test_bnpo_fits_each_score_apart() -> None:
    def two(a: float, b: float):
        own = example_group([a, 1 - a, a, b])
        return replace(own, episodes=tuple(e.with_scores({"style": b * e.reward}) for e in own.episodes))

    groups = [two(1.0, 0.5), two(0.0, 0.25)]
    both, first, second = (
        [float(s.advantage[0]) for s in beta_normalised(names)(groups, None)]
        for names in ("reward+style", "reward", "style")
    )
    np.testing.assert_allclose(both, (np.array(first) + second) / 2, rtol=1e-6)
    with pytest.raises(UserError, match="no score is called 'styel'; did you mean 'style'"):
        beta_normalised("styel")(groups, None)


def test_lite_ppo_with_one_group_is_grpo_with_a_token_mean() -> None:
    mine = toys.gradient(toys.lesson("lite_ppo", tasks=1, samples=8, drift=0.2))
    theirs = toys.gradient(toys.lesson("grpo", {"objective.mean": "token"}, tasks=1, samples=8, drift=0.2))
    assert close(mine, theirs)
    two = toys.gradient(toys.lesson("lite_ppo", samples=8))
    assert not close(two, toys.gradient(toys.lesson("grpo", {"objective.mean": "token"}, samples=8)), 1e-3)


def test_dler_pays_nothing_for_what_was_cut_off() -> None:
    lesson, groups = prepared("dler")
    episodes = [e for g in groups for e in g.episodes]
    assert {e.stop for e in episodes} == {"end", "length"}
    assert all(e.reward == 0 for e in episodes if e.stop == "length")
    assert all(e.reward == e.verdict.reward for e in episodes if e.stop == "end")
    flat = np.concatenate([s.advantage[s.episode.sampled] for s in lesson.signals])
    np.testing.assert_allclose([flat.mean(), flat.std()], [0, 1], atol=1e-5)
    assert all(g.mixed for g in lesson.stages["filter"](groups, None))


# ---- entropy ----------------------------------------------------------------------------------------------------------


def test_tea_rl_by_the_formula() -> None:
    lesson, _ = prepared("tea_rl", {"credit.tea_alpha": 3.0, "credit.bonus_bound": 1.0})

    def formula(out: Outputs, batch):
        on, a = batch.sampled, batch.advantage
        cov = (a - a[on].mean()) * (batch.behaviour - batch.behaviour[on].mean())
        gain, bonus = torch.zeros(()), torch.zeros(())
        for episode in answers(batch):
            weight = (3.0 * cov[episode].softmax(0)).clamp(max=1.0)
            bonus = bonus + (weight * out.entropy[episode]).sum()
            gain = gain + (a[episode] * (out.logp - batch.behaviour)[episode].exp()).sum()
        return -(gain + bonus) / on.sum()

    assert close(toys.gradient(lesson), autograd(lesson, formula), 1e-5)


def test_tea_rl_with_uniform_weights_is_a_plain_entropy_bonus() -> None:
    """alpha = length and no covariance: coefficient 1."""
    lesson, _ = prepared("tea_rl", {"objective.entropy_weight": 1.0})
    flat = [
        replace(
            s, advantage=np.zeros_like(s.advantage), extras={"bonus": s.episode.sampled.astype(np.float32)}
        )
        for s in lesson.signals
    ]
    plain = replace(lesson, signals=flat)
    assert close(
        toys.gradient(plain), autograd(plain, lambda out, batch: -out.entropy[batch.sampled].mean()), 1e-6
    )


def test_t1_pulls_towards_an_anchor_that_follows() -> None:
    _, stages = build(find("t1"), {"credit.anchor_weight": 1.0, "credit.momentum": 0.75})
    policy = toys.TablePolicy()
    where = toys.context(policy)
    groups = toys.play(stages, policy, [toys.task(i) for i in range(3)])
    anchor = where.auxiliary["reference"]
    before = anchor.state_dict()
    signals = stages["credit"](groups, where)
    for name, parameter in anchor.parameters():
        assert torch.allclose(parameter, 0.75 * before[name] + 0.25 * policy.state_dict()[name])
    plain = advantage("leave one out")(groups, None)
    logp = where.rows(plain, lambda out: out.logp, policy=anchor)
    for mine, bare, reference in zip(signals, plain, logp, strict=True):
        on = mine.episode.sampled
        wanted = bare.advantage[on] - (mine.episode.logp - reference)[on]
        np.testing.assert_allclose(mine.advantage[on], wanted, atol=1e-5)
        assert not mine.advantage[~on].any()


def test_t1_without_memory_has_no_pull() -> None:
    """m = 0: the anchor is the policy."""
    _, stages = build(find("t1"), {"credit.anchor_weight": 1.0, "credit.momentum": 0.0})
    policy = toys.TablePolicy()
    where = toys.context(policy)
    groups = toys.play(stages, policy, [toys.task(i) for i in range(3)])
    for mine, bare in zip(
        stages["credit"](groups, where), advantage("leave one out")(groups, None), strict=True
    ):
        np.testing.assert_allclose(mine.advantage, bare.advantage, atol=1e-5)


def test_t1_punishes_repetition_and_what_does_not_end() -> None:
    _, stages = build(find("t1"), {"reward.run_length": 2, "reward.max_repeats": 2})
    scored = {
        name: stages["reward"](replace(example_group([1.0], [n]).episodes[0], stop=stop))["reward"]
        for name, n, stop in (("fine", 6, "end"), ("cut off", 6, "length"))
    }
    assert scored == {"fine": 1.0, "cut off": 0.0}
    span = replace(example_group([1.0]).episodes[0].spans[0], tokens=np.array([1, 2] * 3), logp=np.zeros(6))
    assert stages["reward"](replace(example_group([1.0]).episodes[0], spans=(span,)))["reward"] == 0.0


# ---- windows ----------------------------------------------------------------------------------------------------------


def test_t_ppo_goes_on_where_it_stopped() -> None:
    """Three windows of two tokens: what was written stays, only the new tokens are trained, the value waits for the end."""
    _, stages = build(find("t_ppo"), {"group_rollout.window": 1 / 3})
    policy = toys.TablePolicy(0, dict(stages["objective"].heads))
    where, pool = toys.context(policy), Unfinished()
    tasks = [toys.task(i) for i in range(3)]
    requests = [Request(task=t) for t in tasks]
    written: dict[tuple[str, int], list[int]] = {}
    closed: list = []
    for step in range(3):
        groups = []
        for i, request in enumerate(requests):
            parts = (
                toys.generator(policy),
                toys.check_runner,
                stages["rollout"],
                stages["reward"],
                seeds.key(step, i),
            )
            groups.append(
                asyncio.run(
                    GroupRollout(request.task, request, request.samples or 4, *parts).group(
                        stages["group_rollout"]
                    )
                )
            )
        signals = stages["credit"](groups, where)
        for signal in signals:
            episode = signal.episode
            name = (episode.task.key, episode.index)
            words = episode.tokens[episode.sampled].tolist()
            new = episode.notes["window"]
            assert words[: len(words) - new] == written.get(name, [])
            assert 1 <= new <= 2
            written[name] = words
            last = len(signal.advantage) - new
            assert signal.weights["policy"].nonzero()[0].tolist() == [*range(last, len(signal.advantage))]
            open_ = episode.stop == OPEN
            assert open_ == (words[-1] != policy.renderer.stops[0] and len(words) < 6)
            assert (not episode.verdicts) == open_
            assert (signal.weights["value"] > 0).tolist() == (episode.sampled & (not open_)).tolist()
            if not open_:
                assert episode.correct == toys.coin(policy.renderer.decode(np.array(words))).correct
                closed.append(name)
        pool.observe(groups, signals, where)
        carried = [task for waiting, es in pool.waiting for task in (waiting, *(e.task for e in es))]
        assert not any(RUNNING in task.meta for task in carried), "no answer drags its past along"
        again = Unfinished()
        again.load_state_dict(pool.state_dict())
        requests = pool.next(3, where)
        assert [r.samples for r in again.next(3, where)] == [r.samples for r in requests]
        requests = [r for r in requests if r.task]
        moved(policy, 0.1)
    assert not requests, "after three windows of two, all six tokens are written"
    assert len(set(closed)) == len(closed) == 12
    assert pool.report() == {"open": 0.0}


def test_t_ppo_takes_the_last_value_for_what_is_not_there_yet() -> None:
    values, none = np.array([0.1, 0.5, 0.3]), np.zeros(3)
    deltas = np.array([0.9 * 0.5 - 0.1, 0.9 * 0.3 - 0.5, 0.9 * 0.3 - 0.3])
    wanted = [deltas[0] + 0.72 * (deltas[1] + 0.72 * deltas[2]), deltas[1] + 0.72 * deltas[2], deltas[2]]
    np.testing.assert_allclose(egae(none, values, 0.9, 0.8, closed=False), wanted, rtol=1e-6)
    closed = egae(none, values, 0.9, 0.8, closed=True)
    assert closed[-1] == pytest.approx(-0.3)


def test_examples_are_what_they_say() -> None:
    assert example_advantages(advantage("off"), [0.5, 1.0], [0.0]) == [0.5, 1.0, 0.0]
    assert repeats(np.array([1, 2]), 3) == 0
    assert [len(s) for s in sentences(np.arange(4), [0, 0, 0, 1])] == [4]


def test_whitened_advantages_are_zero_where_nothing_is_looked_at() -> None:
    made = [constant(e, e.reward) for e in example_group([3.0, 1.0], [2, 2]).episodes]
    found = whitened(made, on=lambda s: np.array([True, False]))
    assert [s.advantage.tolist() for s in found] == [[pytest.approx(1), 0], [pytest.approx(-1), 0]]
