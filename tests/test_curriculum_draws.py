"""Which task comes next: probabilities, what moves them, and what is refused."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toys
import worlds_of_letters as letters
from etude import seeds
from etude.batch import pack
from etude.curriculum.arms import Arms
from etude.errors import UserError
from etude.methods import build, find
from etude.methods.sampling_and_curricula.flad import alignments, exp3, head_gradients, strength
from etude.methods.sampling_and_curricula.pudf import ability, rasch
from etude.methods.sampling_and_curricula.skill_it import skills, solution_losses
from etude.tasks import TaskSet, load
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Episode, Group, Message, Task, Verdict

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


def wrong(answer: str) -> Verdict:
    return Verdict(0.0, False)


def tasks_of(*arms: tuple[str, float], number: int = 12) -> TaskSet:
    made = [
        Task((Message("user", f"{kind} {level} {i}"),), wrong, kind, level, answer="a")
        for kind, level in arms
        for i in range(number)
    ]
    return TaskSet.of(made)


GRID = (("a", 0.0), ("a", 1.0), ("a", 2.0), ("b", 0.0), ("b", 1.0), ("b", 2.0))


def curriculum(name: str, tasks: TaskSet | None = None, **settings):
    found = build(find(name), {f"curriculum.{k}": v for k, v in settings.items()})[1]["curriculum"]
    found.prepare(tasks or tasks_of(*GRID))
    return found


def where(step: int = 0, drawn: int = 0, progress: float = 0.0, seed: int = 0):
    return SimpleNamespace(
        seed=seed,
        step=step,
        drawn=drawn,
        progress=progress,
        rng=lambda purpose, *parts: seeds.generator(seed, purpose, step, *parts),
    )


def group(kind: str, level: float, rewards, key: int = 0) -> Group:
    task = Task((Message("user", f"{kind}{level}{key}"),), wrong, kind, level)
    episodes = [
        Episode(task, (), verdicts=(Verdict(r, r > 0.5),), scores={"reward": float(r)}) for r in rewards
    ]
    return Group(task, tuple(episodes))


def asked(requests) -> Counter:
    return Counter((r.kind, r.difficulty) for r in requests)


# ---- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_probabilities_sum_to_one_and_requests_are_keyed(name: str) -> None:
    first, again = curriculum(name), curriculum(name)
    requests = first.next(8, where())
    assert requests == again.next(8, where())
    shares = [p for arm, p in first.report().items() if arm in first.arms.names]
    assert sum(shares) == pytest.approx(1)
    assert len(shares) == len(GRID)
    assert all(r.why and (r.kind, r.difficulty) in GRID for r in requests)
    later = again.next(8, where(drawn=8))
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
        ("sec", {"tau": 0}, r"curriculum.tau is 0.0; it must lie in \[0.001, inf\]"),
        ("mixture", {"weights": "a"}, "it must read KIND=WEIGHT"),
        ("mixture", {"weights": "a=0"}, "a weight above 0"),
        ("mixture", {"weights": "a=1,c=2"}, "no arm 'c'; the arms are a/0, a/1"),
        ("easy_to_hard", {"begin": 0.6}, r"curriculum.end is 0.5; it must lie in \[curriculum.begin, 1\]"),
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
        curriculum(name, tasks_of(("a", 0.0), ("b", 1.0)))


def test_a_target_needs_others() -> None:
    with pytest.raises(UserError, match="leaves no other arm"):
        curriculum("exp3_flad", tasks_of(("a", 0.0), ("a", 1.0)), target="a")


# ---- arms ---------------------------------------------------------------------------------------------------


def test_arms_by_kind_by_level_and_by_both() -> None:
    tasks = tasks_of(("a", 0.0), ("a", 1.0), ("b", 1.0))
    assert Arms(tasks, "both").names == ["a/0", "a/1", "b/1"]
    assert Arms(tasks, "kind").names == ["a", "b"]
    level = Arms(tasks, "level")
    assert level.names == ["0", "1"]
    rng = np.random.default_rng(0)
    assert {level[1].request(rng, "").kind for _ in range(20)} == {"a", "b"}, (
        "a level alone: any kind that has it"
    )
    assert {level[0].request(rng, "").kind for _ in range(20)} == {"a"}
    task = Task((), wrong, "b", 1.0)
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
    train = [Task((Message("user", str(i)),), wrong, "a", float(i % 2)) for i in range(6)]
    held = [Task((Message("user", f"h{i}"),), wrong, "b", 5.0) for i in range(3)]
    assert Arms(TaskSet.of(train, held)).names == ["a/0", "a/1"]


# ---- by rule --------------------------------------------------------------------------------------------------


def test_uniform_takes_every_arm_once_a_round() -> None:
    whole = curriculum("uniform").next(12, where())
    assert asked(whole[:6]) == asked(whole[6:]) == Counter(GRID)
    assert [r.kind for r in whole[:6]] != [r.kind for r in whole[6:]] or whole[:6] != whole[6:]
    pieces = [r for i in range(0, 12, 3) for r in curriculum("uniform").next(3, where(step=i, drawn=i))]
    assert asked(pieces) == asked(whole), "rounds go on from one draw to the next"


def test_mixture_shares() -> None:
    found = curriculum("mixture", weights="a=3,b/1=1")
    found.next(4, where())
    np.testing.assert_allclose(list(found.report().values()), [0.25, 0.25, 0.25, 0, 0.25, 0])


def test_levels_open_with_progress() -> None:
    found = curriculum("easy_to_hard", end=1.0)
    highest = [max(r.difficulty for r in found.next(30, where(progress=p))) for p in (0, 0.49, 0.5, 1)]
    assert highest == [0, 0, 1, 2]


def test_the_target_follows_the_reward_and_stays_in_range() -> None:
    found = curriculum("target_difficulty")
    assert {r.difficulty for r in found.next(20, where())} == {0}
    found.observe([group("a", 0, [1, 1])], [])
    assert found.target == pytest.approx(np.tanh(1.0)), "half of the range 2, times tanh(2 x 0.5)"
    assert asked(found.next(20, where())).keys() == {("a", 1.0), ("b", 1.0)}
    for _ in range(9):
        found.observe([group("a", 2, [1, 1])], [])
    assert found.target == 2
    found.observe([group("a", 2, [])], [])
    assert found.target == 2, "no attempts say nothing"
    found.observe([group("a", 2, [0, 0])], [])
    assert found.target < 2


# ---- SEC --------------------------------------------------------------------------------------------------------


def test_sec_learns_by_arm() -> None:
    found = curriculum("sec")
    found.observe([group("a", 1, [1, 0]), group("a", 1, [1, 1], 1), group("b", 2, [1, 0, 0, 0])], [])
    np.testing.assert_allclose(found.q, [0, 0.5 * 0.5, 0, 0, 0, 0.5 * 3**0.5 / 2], atol=1e-6)
    found.next(4, where())
    assert found.now.argmax() == 5
    assert "Q 0.43, p " in found.why(5)


def test_sec_at_infinite_temperature_is_uniform() -> None:
    found = curriculum("sec", tau="inf")
    found.observe([group("a", 1, [1, 0])], [])
    np.testing.assert_allclose(found.chances(None), 1 / 6)


def test_sec_reads_grpo_s_own_credit_alike() -> None:
    """Where the credit is the standardised reward, both readings agree; what is not trained on counts as 0."""
    stages = build(find("grpo+sec"))[1]
    policy = toys.TablePolicy()
    groups = toys.play(stages, policy, [toys.task(i) for i in range(4)])
    assert any(g.mixed for g in groups)
    signals = stages["credit"](groups, None)
    tasks = TaskSet.of([g.task for g in groups] + [toys.task(i) for i in range(9)])
    by_reward, by_credit = (curriculum("sec", tasks, advantage=a) for a in ("rewards", "credit"))
    by_reward.observe(groups, signals)
    by_credit.observe(groups, [s for s in signals if s.advantage.any()])
    assert by_reward.q.any()
    np.testing.assert_allclose(by_reward.q, by_credit.q, atol=1e-3)


def test_sec_moves_from_easy_to_hard_as_a_learner_gets_better() -> None:
    """A learner whose chance at level l is sigmoid(skill - 2 l), and whose skill grows with what a group teaches."""
    rng = np.random.default_rng(0)
    arms = [("a", float(level)) for level in range(5)]
    found = curriculum("sec", tasks_of(*arms))
    skill, levels = 0.0, []
    for step in range(60):
        requests = found.next(16, where(step=step, drawn=16 * step))
        levels.append(float(found.now @ np.arange(5)))
        chances = [1 / (1 + np.exp(-(skill - 2 * r.difficulty))) for r in requests]
        groups = [
            group("a", r.difficulty, rng.random(8) < p, i)
            for i, (r, p) in enumerate(zip(requests, chances, strict=True))
        ]
        found.observe(groups, [])
        skill += 0.008 * sum(g.mixed for g in groups)
    early, late = np.mean(levels[3:8]), np.mean(levels[-5:])
    assert early < 1.5
    assert late > 2.7


# ---- PUDF -------------------------------------------------------------------------------------------------------


def test_rasch_finds_the_difficulties_that_made_the_answers() -> None:
    rng = np.random.default_rng(0)
    theta, b = rng.normal(size=12), np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    tried = np.full((12, 5), 400.0)
    right = rng.binomial(400, 1 / (1 + np.exp(b - theta[:, None]))).astype(float)
    found_theta, found_b = rasch(right, tried)
    np.testing.assert_allclose(found_theta - found_b[2], theta - b[2], atol=0.4)
    np.testing.assert_allclose(found_b - found_b[2], b - b[2], atol=0.2)


def test_ability_is_pulled_to_zero_and_bounded() -> None:
    one = np.ones(1)
    assert 0 < ability(2 * one, one, 2 * one) < 2, "half right at b = 2"
    assert ability(0 * one, 9 * one, 9 * one) > ability(0 * one, 3 * one, 3 * one) > 0
    assert ability(0 * one, 1000 * one, 1000 * one) < 6


def test_pudf_opens_what_the_policy_is_able_to_do() -> None:
    found = curriculum("pudf", crowd=2, every=1, least=1)
    rates = [7, 4, 1, 6, 2, 0]

    def answers(right):
        return [group(k, lv, [1.0] * r + [0.0] * (8 - r)) for (k, lv), r in zip(GRID, right, strict=True)]

    found.observe(answers(rates), [])
    assert found.difficulty is None
    np.testing.assert_allclose(found.chances(None), 1 / 6)
    found.observe(answers(rates), [])
    assert np.argsort(found.difficulty).tolist() == np.argsort([-r for r in rates]).tolist()
    fixed = found.difficulty.copy()
    opened = found.chances(None) > 0
    assert opened.any()
    assert not opened.all()
    assert (fixed[opened].max() <= fixed[~opened]).all()
    cap = found.cap
    found.observe(answers(rates), [])
    assert found.cap == pytest.approx(cap + 0.1), "no progress"
    found.observe(answers([8] * 6), [])
    assert found.cap == found.theta > cap
    assert (found.chances(None) > 0).sum() > opened.sum()
    np.testing.assert_array_equal(found.difficulty, fixed)


def test_pudf_keeps_the_easiest_open() -> None:
    found = curriculum("pudf", least=2)
    found.difficulty, found.cap = np.array([1.0, 2.0, 3.0, 0.5, 4.0, 5.0]), -9.0
    np.testing.assert_allclose(found.chances(None), [0.5, 0, 0, 0.5, 0, 0])


# ---- Skill-It ---------------------------------------------------------------------------------------------------


def test_graphs() -> None:
    arms = Arms(tasks_of(*GRID))
    assert (skills(arms, "own", 0.5) == np.eye(6)).all()
    chain = skills(arms, "levels", 0.5)
    assert sorted(zip(*np.nonzero(chain - np.eye(6)), strict=True)) == [(0, 1), (1, 2), (3, 4), (4, 5)]
    given = skills(arms, "a/0>b, b/2 > a/2", 0.3)
    assert sorted(zip(*np.nonzero(given - np.eye(6)), strict=True)) == [(0, 3), (0, 4), (0, 5), (5, 2)]
    kinds = Arms(tasks_of(*GRID), "kind")
    assert (skills(kinds, "levels", 0.5) == np.eye(2)).all(), "kinds are no levels of each other"


def test_skill_it_adds_the_last_losses_up() -> None:
    found = curriculum("skill_it", tasks_of(("a", 0.0), ("b", 0.0)), every=1, window=2, eta=1.0, graph="own")
    np.testing.assert_allclose(found.chances(None), 0.5)
    for rewards in ([1, 1], [1, 0], [1, 0]):
        found.observe([group("a", 0, rewards)], [])
    np.testing.assert_allclose(
        found.recent, [1.0, 2.0], err_msg="a: 0.5 + 0.5; b was never drawn and keeps its 1"
    )
    np.testing.assert_allclose(found.chances(None)[1], 1 / (1 + np.exp(-1.0)))


def test_solutions_are_scored_by_arm() -> None:
    policy = toys.TablePolicy()
    context = toys.context(policy)
    context.tasks = TaskSet.of([toys.task(i, answer=str(i)) for i in range(24)])
    arms = Arms(context.tasks)
    losses = solution_losses(arms, 1, context)
    assert losses.shape == (len(arms),)
    assert (losses > 0).all()
    found = curriculum("sft+skill_it", context.tasks, loss="nll", every=2)
    for step in range(3):
        context.step = step
        found.next(4, context)
        found.observe([], [])
    assert len(found.losses) == 1
    context.step = 2
    np.testing.assert_allclose(found.losses[0], solution_losses(arms, 2, context))


# ---- FLAD -------------------------------------------------------------------------------------------------------


def taught_lesson(name: str = "reinforce") -> toys.Lesson:
    found = toys.lesson(name, tasks=6, samples=6)
    assert sum(bool(s.advantage.any()) for s in found.signals) > 6 or name == "sft"
    return found


@pytest.mark.parametrize("name", ["reinforce", "sft"])
def test_the_gradient_of_the_output_projection_is_exact(name: str) -> None:
    """Against autograd through an explicit projection W = 1 on top of a table policy's outputs."""
    lesson = taught_lesson(name)
    batch = pack(lesson.signals, lesson.context.sampling)
    out = lesson.policy.outputs(batch, frozenset({"hidden"}))
    w = torch.eye(lesson.policy.size, dtype=torch.float64, requires_grad=True)
    logp = torch.log_softmax(out.hidden.detach() @ w.T, -1)
    chosen = logp.gather(1, batch.tokens[:, None])[:, 0]
    (strength(batch) * batch.needed * chosen).sum().backward()
    (_, found), (_, half) = head_gradients({-1: lesson.signals, 3: lesson.signals[::2]}, lesson.context)
    assert w.grad.norm() > 0
    torch.testing.assert_close(found.double(), w.grad, rtol=1e-4, atol=1e-5)
    ((_, alone),) = head_gradients({0: lesson.signals[::2]}, lesson.context)
    torch.testing.assert_close(half, alone, rtol=1e-4, atol=1e-5)


def test_alignment_of_the_same_of_the_opposite_and_of_nothing() -> None:
    lesson = taught_lesson()
    alive = [s for s in lesson.signals if s.advantage.any()]
    against = [replace(s, advantage=-s.advantage) for s in alive]
    silent = [replace(s, advantage=0 * s.advantage) for s in alive]
    found = alignments(alive, {0: alive, 1: against, 2: silent}, 0, lesson.context)
    assert found == {0: pytest.approx(1), 1: pytest.approx(-1)}
    assert alignments(silent, {0: alive}, 0, lesson.context) == {}
    few = alignments(alive, {0: alive}, 2, lesson.context)
    assert -1 <= few[0] <= 1


def test_a_share_of_the_tasks_is_the_target_s() -> None:
    found = curriculum("exp3_flad", target="b/1", share=0.25)
    counts = asked(r for i in range(50) for r in found.next(6, where(step=i)))
    assert counts["b", 1.0] == pytest.approx(75, abs=15)
    assert found.next(8, where())[0].why
    assert sum(r.why == "the target" for r in found.next(8, where())) == 2
    assert found.report()["b/1"] == 0.25


def test_exp3_pays_by_the_share_of_plays() -> None:
    found = curriculum("exp3_flad", tasks_of(("a", 0.0), ("b", 0.0), ("c", 0.0)), target="c")
    found.played = np.array([3.0, 1.0])
    found.learn({0: 0.5, 1: -1.0})
    np.testing.assert_allclose(found.totals, [0.75 * 0.5 / 0.5, -0.25 / 0.5])
    for _ in range(40):
        found.learn({0: 0.5, 1: -0.5})
    pi = exp3(found.totals, found.turn)
    assert pi[0] > 0.8
    assert pi[1] > 0


def test_ucb1_measures_every_arm_and_returns_to_the_best() -> None:
    found = curriculum("ucb1_flad", target="b/2", share=0.01)
    rng = np.random.default_rng(0)
    assert sorted(found.play(5, rng)) == [0, 1, 2, 3, 4]
    found.learn({i: 0.9 if i == 3 else 0.0 for i in range(5)})
    assert found.means[3] == 0.9, "the first measurement stands"
    found.learn({3: -0.1})
    assert found.means[3] == pytest.approx(0.8)
    plays = Counter(found.play(60, rng))
    assert plays.most_common(1)[0][0] == 3
    assert len(plays) == 5


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
