"""Curricula that learn from outcomes: SEC, PUDF and Skill-It."""

import numpy as np
import pytest

import toys
from etude.assembly import build
from etude.credit.group import constant
from etude.curriculum.arms import Arms
from etude.fixtures.curricula import ExampleContext, attempts_at, example_curriculum, example_tasks
from etude.methods import find
from etude.methods.sampling_and_curricula.pudf import fit_ability, fit_rasch
from etude.methods.sampling_and_curricula.skill_it import skill_graph, solution_losses
from etude.tasks import TaskSet

GRID = (("a", 0.0), ("a", 1.0), ("a", 2.0), ("b", 0.0), ("b", 1.0), ("b", 2.0))


def curriculum(name: str, arms=GRID, **settings):
    return example_curriculum(find(name), arms, settings)


# ---- SEC --------------------------------------------------------------------------------------------------------


def test_sec_learns_by_arm() -> None:
    found = curriculum("sec")
    found.observe(
        [
            attempts_at(("a", 1), [1, 0]),
            attempts_at(("a", 1), [1, 1], 1),
            attempts_at(("b", 2), [1, 0, 0, 0]),
        ],
        [],
        ExampleContext(),
    )
    np.testing.assert_allclose(found.q, [0, 0.5 * 0.5, 0, 0, 0, 0.5 * 3**0.5 / 2], atol=1e-6)
    found.next(4, ExampleContext())
    assert found.p.argmax() == 5
    assert "Q 0.43, p " in found.why(5)


def test_sec_at_infinite_temperature_is_uniform() -> None:
    found = curriculum("sec", sec_tau="inf")
    found.observe([attempts_at(("a", 1), [1, 0])], [], ExampleContext())
    np.testing.assert_allclose(found.probabilities(ExampleContext()), 1 / 6)


def test_sec_reads_grpo_s_own_credit_alike() -> None:
    """Where the credit is the standardised reward, both readings agree; what is not trained on counts as 0."""
    stages = build(find("grpo+sec"))[1]
    policy = toys.TablePolicy()
    groups = toys.play(stages, policy, [toys.task(i) for i in range(4)])
    assert any(g.mixed for g in groups)
    signals = stages["credit"](groups, None)
    tasks = TaskSet.of([g.task for g in groups] + [toys.task(i) for i in range(9)])
    by_reward, by_credit = (curriculum("sec", advantage=a) for a in ("rewards", "credit"))
    for found in (by_reward, by_credit):
        found.prepare(tasks)
    by_reward.observe(groups, signals, ExampleContext())
    by_credit.observe(groups, [s for s in signals if s.advantage.any()], ExampleContext())
    assert by_reward.q.any()
    np.testing.assert_allclose(by_reward.q, by_credit.q, atol=1e-3)


def test_sec_is_paid_by_the_credit_of_a_run() -> None:
    """One group was trained on, with |A| = 2 and 1; the other was not and counts as 0."""
    found = curriculum("sec", advantage="credit")
    trained, left = (attempts_at(("a", 1), rewards, i) for i, rewards in enumerate(([1, 0], [1, 1])))
    signals = [constant(e, a) for e, a in zip(trained.episodes, (2.0, -1.0), strict=True)]
    found.observe([trained, left], signals, ExampleContext())
    np.testing.assert_allclose(found.q, [0, 0.5 * 3 / 4, 0, 0, 0, 0])


def test_sec_moves_from_easy_to_hard_as_a_learner_gets_better() -> None:
    """A learner whose chance at level l is sigmoid(skill - 2 l), and whose skill grows with what a group teaches."""
    rng = np.random.default_rng(0)
    arms = [("a", float(level)) for level in range(5)]
    found = curriculum("sec", arms)
    skill, levels = 0.0, []
    for step in range(60):
        requests = found.next(16, ExampleContext(step=step, drawn=16 * step))
        levels.append(float(found.p @ np.arange(5)))
        chances = [1 / (1 + np.exp(-(skill - 2 * r.difficulty))) for r in requests]
        groups = [
            attempts_at(("a", r.difficulty), (rng.random(8) < p).astype(float), i)
            for i, (r, p) in enumerate(zip(requests, chances, strict=True))
        ]
        found.observe(groups, [], ExampleContext())
        skill += 0.008 * sum(g.mixed for g in groups)
    early, late = np.mean(levels[3:8]), np.mean(levels[-5:])
    assert early < 1.5
    assert late > 2.7


@pytest.mark.parametrize(("settings", "least", "most"), [({}, 0.5, 0.8), ({"decay_absent": True}, 0.1, 0.3)])
def test_sec_forgets_an_arm_that_once_agreed(settings: dict, least: float, most: float) -> None:
    """25 arms that are half right, 8 tasks a step: all attempts of the first group of one arm are right. How often that
    arm is not drawn again in 80 steps."""
    arms = [(kind, float(level)) for kind in "abcde" for level in range(5)]
    half = {arm: attempts_at(arm, [1, 0]) for arm in arms}
    forgotten = []
    for seed in range(20):
        found, again = curriculum("sec", arms, **settings), 0
        found.observe([attempts_at(arms[0], [1, 1]), *(half[arm] for arm in arms[1:8])], [], ExampleContext())
        for step in range(1, 81):
            drawn = [
                (r.kind, r.difficulty) for r in found.next(8, ExampleContext(step, drawn=8 * step, seed=seed))
            ]
            again += drawn.count(arms[0])
            found.observe([half[arm] for arm in drawn], [], ExampleContext())
        forgotten.append(again == 0)
    assert least <= np.mean(forgotten) <= most


# ---- PUDF -------------------------------------------------------------------------------------------------------


def test_rasch_finds_the_difficulties_that_made_the_answers() -> None:
    rng = np.random.default_rng(0)
    theta, b = rng.normal(size=12), np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    tried = np.full((12, 5), 400.0)
    right = rng.binomial(400, 1 / (1 + np.exp(b - theta[:, None]))).astype(float)
    found_theta, found_b = fit_rasch(right, tried)
    np.testing.assert_allclose(found_theta - found_b[2], theta - b[2], atol=0.4)
    np.testing.assert_allclose(found_b - found_b[2], b - b[2], atol=0.2)


def test_ability_is_pulled_to_zero_and_bounded() -> None:
    one = np.ones(1)
    assert 0 < fit_ability(2 * one, one, 2 * one) < 2, "half right at b = 2"
    assert fit_ability(0 * one, 9 * one, 9 * one) > fit_ability(0 * one, 3 * one, 3 * one) > 0
    assert fit_ability(0 * one, 1000 * one, 1000 * one) < 6


def test_pudf_opens_what_the_policy_is_able_to_do() -> None:
    found = curriculum("pudf", crowd=2, every=1, min_arms=1)
    rates = [7, 4, 1, 6, 2, 0]

    def answers(right):
        return [attempts_at(arm, [1.0] * r + [0.0] * (8 - r)) for arm, r in zip(GRID, right, strict=True)]

    found.observe(answers(rates), [], ExampleContext())
    assert found.difficulty is None
    np.testing.assert_allclose(found.probabilities(ExampleContext()), 1 / 6)
    found.observe(answers(rates), [], ExampleContext())
    assert np.argsort(found.difficulty).tolist() == np.argsort([-r for r in rates]).tolist()
    fixed = found.difficulty.copy()
    opened = found.probabilities(ExampleContext()) > 0
    assert opened.any()
    assert not opened.all()
    assert (fixed[opened].max() <= fixed[~opened]).all()
    cap = found.cap
    found.observe(answers(rates), [], ExampleContext())
    assert found.cap == pytest.approx(cap + 0.1), "no progress"
    found.observe(answers([8] * 6), [], ExampleContext())
    assert found.cap == found.theta > cap
    assert (found.probabilities(ExampleContext()) > 0).sum() > opened.sum()
    np.testing.assert_array_equal(found.difficulty, fixed)


def test_pudf_keeps_the_easiest_open() -> None:
    found = curriculum("pudf", min_arms=2)
    found.difficulty, found.cap = np.array([1.0, 2.0, 3.0, 0.5, 4.0, 5.0]), -9.0
    np.testing.assert_allclose(found.probabilities(ExampleContext()), [0.5, 0, 0, 0.5, 0, 0])
    found.cap = 2.0
    np.testing.assert_allclose(
        found.probabilities(ExampleContext()), [1 / 3, 1 / 3, 0, 1 / 3, 0, 0], err_msg="b = cap is open"
    )


# ---- Skill-It ---------------------------------------------------------------------------------------------------


def test_graphs() -> None:
    arms = Arms(example_tasks(*GRID))
    assert (skill_graph(arms, "own", 0.5) == np.eye(6)).all()
    chain = skill_graph(arms, "levels", 0.5)
    assert sorted(zip(*np.nonzero(chain - np.eye(6)), strict=True)) == [(0, 1), (1, 2), (3, 4), (4, 5)]
    given = skill_graph(arms, "a/0>b, b/2 > a/2", 0.3)
    assert sorted(zip(*np.nonzero(given - np.eye(6)), strict=True)) == [(0, 3), (0, 4), (0, 5), (5, 2)]
    kinds = Arms(example_tasks(*GRID), "kind")
    assert (skill_graph(kinds, "levels", 0.5) == np.eye(2)).all(), "kinds are no levels of each other"


def test_skill_it_adds_the_last_losses_up() -> None:
    found = curriculum("skill_it", [("a", 0.0), ("b", 0.0)], every=1, loss_window=2, eta=1.0, graph="own")
    np.testing.assert_allclose(found.probabilities(ExampleContext()), 0.5)
    for rewards in ([1, 1], [1, 0], [1, 0]):
        found.observe([attempts_at(("a", 0), rewards)], [], ExampleContext())
    np.testing.assert_allclose(
        found.recent, [1.0, 2.0], err_msg="a: 0.5 + 0.5; b was never drawn and keeps its 1"
    )
    np.testing.assert_allclose(found.probabilities(ExampleContext())[1], 1 / (1 + np.exp(-1.0)))


def test_solutions_are_scored_by_arm() -> None:
    policy = toys.TablePolicy()
    context = toys.context(policy)
    context.tasks = TaskSet.of([toys.task(i, answer=str(i)) for i in range(24)])
    arms = Arms(context.tasks)
    losses = solution_losses(arms, 1, context)
    assert losses.shape == (len(arms),)
    assert (losses > 0).all()
    flat = toys.context(policy)
    flat.tasks = context.tasks
    flat.rows = lambda signals, read: [np.full(len(s.advantage), -2.0) for s in signals]
    np.testing.assert_allclose(solution_losses(arms, 3, flat), 2.0, err_msg="a mean over tokens and tasks")
    found = curriculum("sft+skill_it", loss="nll", every=2)
    found.prepare(context.tasks)
    for step in range(3):
        context.step = step
        found.next(4, context)
        found.observe([], [], ExampleContext())
    assert len(found.losses) == 1
    context.step = 2
    np.testing.assert_allclose(found.losses[0], solution_losses(arms, 2, context))
