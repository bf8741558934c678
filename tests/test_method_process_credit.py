"""Credit of steps and turns: PAV, SPAE, PRIME and SPA-RL, each against its own formula."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from etude.batch import pack
from etude.credit.group import advantage, constant
from etude.fixtures.examples import example_episode
from etude.methods.process_credit.oreal import estimate_token_reward
from etude.methods.process_credit.prime import implicit_outcome, process_advantages, to_go
from etude.methods.process_credit.spa_rl import estimate_progress, executable, turn_ends
from etude.methods.process_credit.spae import accuracy, potential
from etude.models.outputs import Outputs
from etude.rollout.basic import retry
from etude.testing import laws
from etude.testing.laws import close
from etude.types import Episode, Signal, Span, Verdict
from formulas import answers, autograd, prepared
from lessons import right_if, scripted, setting, trained

# ---- PAV -------------------------------------------------------------------------------------------------


def test_progress_by_hand() -> None:
    stages, where, groups = setting(
        "pav", {"group_rollout.separator": "", "credit.progress_weight": 2.0, "credit.best_of": 3}
    )
    for signal, (group, episode) in zip(
        stages["credit"](groups, where), [(g, e) for g in groups for e in g.episodes], strict=True
    ):
        sampled = [list(group.rewards), *episode.notes["continued"], [episode.reward] * 3]
        assert len(sampled) == episode.sampled.sum() + 1, "a step is a token"
        prover = [float(np.mean([max(some) for some in itertools.combinations(x, 3)])) for x in sampled]
        base = episode.reward - group.rewards.mean()
        expected = [base + 2 * (b - a) for a, b in itertools.pairwise(prover)]
        assert np.allclose(trained(episode, signal.advantage), expected, atol=1e-5)


def test_a_policy_that_proves_for_itself_only_scales_its_gradient() -> None:
    """Two binary steps, exact values: E[sum_h grad log pi (R + alpha A_pi)] = (1 + alpha) E[... R]; not so for
    best-of-4."""
    theta = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    reward = {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 1.0}

    def logp(state: int, action: int) -> torch.Tensor:
        return torch.nn.functional.logsigmoid(theta[state] if action else -theta[state])

    def gradient(alpha: float, best_of: int) -> torch.Tensor:
        p = {(s, a): float(logp(s, a).exp().detach()) for s in range(3) for a in (0, 1)}
        q = {a: sum(p[1 + a, b] * reward[a, b] for b in (0, 1)) for a in (0, 1)}
        start = sum(p[0, a] * q[a] for a in (0, 1))
        total = torch.zeros(3, dtype=torch.float64)
        for a, b in reward:
            progress = np.diff([1 - (1 - x) ** best_of for x in (start, q[a], reward[a, b])])
            for step, (state, action) in enumerate(((0, a), (1 + a, b))):
                (slope,) = torch.autograd.grad(logp(state, action), theta)
                total += p[0, a] * p[1 + a, b] * slope * (reward[a, b] + alpha * progress[step])
        return total

    assert laws.close(gradient(3.0, 1), 4 * gradient(0.0, 1))
    assert not laws.close(gradient(3.0, 4), 4 * gradient(0.0, 1), 0.05)


# ---- SPAE ------------------------------------------------------------------------------------------------


def test_without_its_terms_spae_is_reinforce_plus_plus_with_a_group_baseline() -> None:
    stages, where, groups = setting(
        "spae", {"credit.xi": 0, "credit.damping_strength": 0, "group_rollout.separator": ""}
    )
    mixed = stages["filter"](groups, where)
    assert all(e.notes["cuts"] for g in mixed for e in g.episodes if e.sampled.sum() > 1)
    ours, theirs = stages["credit"](mixed, where), advantage(scale="whitened")(mixed)
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a.advantage, b.advantage, atol=1e-5)
    assert any(np.abs(s.advantage).max() > 0.1 for s in ours)


def test_spae_by_hand() -> None:
    stages, where, groups = setting(
        "spae", {"group_rollout.separator": "", "credit.whiten": False, "credit.saturated": -0.2}
    )
    mixed = stages["filter"](groups, where)
    episodes = [e for g in mixed for e in g.episodes]
    phis = [
        potential(a, np.array(e.notes["confidence"]))
        for e, a in zip(episodes, accuracy(episodes, where), strict=True)
    ]
    deltas = [[0.0, *np.diff(phi)] if len(phi) else [] for phi in phis]
    flat = np.concatenate(deltas)
    scale = [np.exp((np.array(d) - flat.min()) / np.ptp(flat)) for d in deltas]
    mean = np.concatenate(scale).mean()
    base = [e.reward - g.rewards.mean() for g in mixed for e in g.episodes]
    damped = False
    for signal, r, phi, g in zip(stages["credit"](mixed, where), base, phis, scale, strict=True):
        expected = []
        for k in range(int(signal.episode.sampled.sum())):
            step = min(k, len(phi) - 1)
            before = sum(p > -0.2 for p in phi[: max(step, 0)])
            damped |= before > 0
            f = 1 - 0.5 * (1 - np.exp(-before))
            expected.append(r * f + 0.5 * (g[k] - mean if k < len(phi) else 0.0))
        assert np.allclose(trained(signal.episode, signal.advantage), expected, atol=1e-5)
    assert damped


def test_accuracy_is_the_probability_of_the_gold_answer() -> None:
    _, where, groups = setting("spae", {"group_rollout.separator": "", "group_rollout.answer_prompt": "x"})
    episode = next(e for g in groups for e in g.episodes if e.notes.get("cuts"))
    known = toys.tokenizer()
    lead, gold = int(known.encode("x")[0]), int(known.encode("7")[0])
    for cut, found in zip(episode.notes["cuts"], accuracy([episode], where)[0], strict=True):
        row = where.policy.logits(torch.tensor([lead]), torch.tensor([cut + 1]))[0]
        assert found == pytest.approx(float(torch.softmax(row, -1)[gold].detach()), rel=1e-4)


def test_confidence_is_read_from_the_probe() -> None:
    stages, *_ = setting("spae", {"group_rollout.probes": 1, "group_rollout.answer_tokens": 3})
    task = toys.task(0, right_if("a\nb"))
    group, sampler = scripted(stages, ["a\nb", "a\nc", "7", "8"], task, samples=2)
    for episode in group.episodes:
        assert episode.notes["confidence"] == [pytest.approx(np.exp(-1.0))], "log-probability -1 a token"
    asked = toys.tokenizer().decode(sampler.asked[2][len(group.episodes[0].spans[0]) :])
    assert asked == "a\n**Final Answer**\nboxed", "the toy vocabulary has no braces"
    agreed, _ = scripted(stages, ["a\nb", "a\nb"], task, samples=2)
    assert all("cuts" not in e.notes for e in agreed.episodes), "no probes where nothing would be learned"


# ---- PRIME -----------------------------------------------------------------------------------------------


def test_an_untrained_reward_model_says_nothing() -> None:
    stages, where, groups = setting("prime", {"credit.whiten": False, "credit.outcome_weight": 1})
    where.auxiliary["reference"] = toys.TablePolicy(0)
    signals = stages["credit"](groups, where)

    for a, b in zip(signals, advantage("leave one out")(groups), strict=True):
        assert np.allclose(a.advantage, b.advantage, atol=1e-6)


@pytest.mark.parametrize("unit", ["token", "whole"])
def test_prime_by_hand(unit: str) -> None:
    settings = {
        "credit.whiten": False,
        "credit.released": False,
        "credit.unit": unit,
        "credit.outcome_weight": 0.5,
    }
    stages, where, groups = setting("prime", settings)
    episodes = [e for g in groups for e in g.episodes]
    plain = [constant(e, 0.0) for e in episodes]
    prm = where.rows(plain, lambda out: out.logp, policy=where.auxiliary["prm"].policy)
    ref = where.rows(plain, lambda out: out.logp, policy=where.auxiliary["reference"])
    q = {id(e): 0.05 * (a - b)[e.sampled] for e, a, b in zip(episodes, prm, ref, strict=True)}
    if unit == "whole":
        q = {k: np.array([0.0] * (len(row) - 1) + [row.sum()]) for k, row in q.items()}
    most = max(abs(row[t:].sum()) for row in q.values() for t in range(len(row)))
    signals = {id(s.episode): s for s in stages["credit"](groups, where)}
    for group in groups:
        for e in group.episodes:
            others = [x for x in group.episodes if x is not e]
            base = np.mean([q[id(x)].mean() for x in others])
            outcome = e.reward - np.mean([x.reward for x in others])
            row = q[id(e)]
            expected = [5 / most * sum(row[t:] - base) + 0.5 * outcome for t in range(len(row))]
            assert np.allclose(trained(e, signals[id(e)].advantage), expected, atol=1e-4)


def test_the_reward_model_learns_outcomes_and_judges_first() -> None:
    found = {}
    for judged, online in itertools.product(("before", "after"), (True, False)):
        settings = {"credit.judged": judged, "credit.online": online, "credit.dpo_beta": 0.5}
        stages, where, groups = setting("prime", settings, lr=3e-2)
        where.auxiliary["reference"] = toys.TablePolicy(0)
        steps = [stages["credit"](groups, where) for _ in range(40)]
        plain = [
            replace(s, extras={"outcome": np.full(len(s.advantage), s.episode.reward, np.float32)})
            for s in steps[0]
        ]
        known, loss = where.completed(plain, {"reference"}), implicit_outcome(0.5)
        (term,), batch = loss.terms, pack(known)
        score = where.auxiliary["prm"].policy.score(batch)
        error = float(term.total(score, batch)[0]) / term.count(batch)
        found[judged, online] = (error, np.concatenate([s.advantage for s in steps[0]]))
    assert found["before", False][0] == pytest.approx(np.log(2), abs=1e-5), "frozen: it knows nothing"
    assert found["before", True][0] < 0.3
    assert np.allclose(found["before", True][1], found["before", False][1]), "judged before its own step"
    assert not np.allclose(found["after", True][1], found["after", False][1])


def test_released_baseline_scales_the_distance_to_the_mean_of_means() -> None:
    rows = [np.array([0.3, -0.1, 0.5]), np.array([0.2]), np.array([-0.4, 0.9])]
    mean = np.mean([r.mean() for r in rows])
    for row, found in zip(rows, process_advantages(rows, True), strict=True):
        assert np.allclose(found, to_go(1.5 * (row - mean)))


def test_only_tasks_in_the_band_are_trained_on() -> None:
    stages, where, groups = setting("prime")
    kept = stages["filter"](groups, where)
    shares = [np.mean([e.correct for e in g.episodes]) for g in kept]
    assert all(0.2 <= s <= 0.8 for s in shares)
    everywhere = replace(
        groups[0], episodes=tuple(replace(e, verdicts=(Verdict(1.0, True),)) for e in groups[0].episodes)
    )
    assert stages["filter"]([everywhere], where) == []


# ---- SPA-RL ----------------------------------------------------------------------------------------------


def two_turns(heard: str) -> Episode:
    turn = Span("assistant", np.array([1, 2]), True, np.zeros(2))
    return replace(
        example_episode(1.0), spans=(turn, Span("user", np.frombuffer(heard.encode(), np.uint8)), turn)
    )


def test_turns_end_with_their_last_token_and_may_do_nothing() -> None:
    assert turn_ends(two_turns("ok")).tolist() == [0, 1, 0, 0, 0, 1]

    def decode(tokens: np.ndarray) -> str:
        return bytes(tokens).decode()

    assert executable(two_turns("Nothing happens."), "nothing happens", decode).tolist() == [0.0, 1.0]
    assert executable(two_turns("ok"), "nothing happens", decode).tolist() == [1.0, 1.0]


def test_progress_of_a_good_fit_adds_up_to_the_outcome() -> None:
    stages, where, groups = setting("spa_rl", {"credit.kl_weight": 0}, lr=1e-1, rollout=retry(3))
    episodes = [e for g in groups for e in g.episodes]
    assert max(turn_ends(e).sum() for e in episodes) == 3
    for step in range(150):
        where.step = step
        stages["credit"](groups, where)
    lessons = [
        replace(constant(e, 0.0), weights={"policy": turn_ends(e).astype(np.float32)}) for e in episodes
    ]
    rows = where.rows(
        lessons, lambda out: out.heads["progress"][:, 0], policy=where.auxiliary["progress"].policy
    )
    for episode, row in zip(episodes, rows, strict=True):
        assert row[turn_ends(episode)].sum() == pytest.approx(episode.reward, abs=0.1)
    model = where.auxiliary["progress"]
    head = model.policy.heads["progress"]
    weights = head.detach().clone()
    stages["credit"](groups, where)
    assert not torch.equal(weights, head), "it goes on learning"
    weights = head.detach().clone()
    where.progress = 1.0
    stages["credit"](groups, where)
    assert torch.equal(weights, head), "frozen from credit.end_at on"


def test_turns_are_paid_for_their_own_progress() -> None:
    """gamma = lambda = 1 and V = 0: the advantage of a turn is what progress remains, and its own reward."""
    settings = {
        "credit.kl_weight": 0,
        "credit.lam": 1,
        "credit.executable_weight": 0.25,
        "credit.progress_weight": 2,
        "credit.refusal": "NO",
    }
    stages, where, groups = setting("spa_rl", settings, rollout=retry(3))
    with torch.no_grad():
        where.policy.heads["value"].zero_()
    episodes = [e for g in groups for e in g.episodes]
    lessons = [constant(e, 0.0) for e in episodes]
    model = where.auxiliary["progress"].policy
    rows = where.rows(lessons, lambda out: out.heads["progress"][:, 0], policy=model)
    for signal, row in zip(stages["credit"](groups, where), rows, strict=True):
        episode = signal.episode
        ends = np.flatnonzero(turn_ends(episode))
        # every turn but the last was answered with "no", which the world says of what it could not do
        paid = [2 * row[end] + 0.25 * (i == len(ends) - 1) for i, end in enumerate(ends)]
        raw = signal.extras["returns"]
        for i, end in enumerate(ends):
            assert raw[end] == pytest.approx(sum(paid[i:]), abs=1e-4)


def test_the_estimators_loss_is_the_squared_gap() -> None:
    _, where, groups = setting("spa_rl", rollout=retry(3))
    episodes = [e for g in groups for e in g.episodes]
    ends = [turn_ends(e) for e in episodes]
    lessons = [
        Signal(
            e,
            np.zeros(len(end), np.float32),
            {"policy": end.astype(np.float32)},
            {"outcome": np.full(len(end), e.reward, np.float32)},
        )
        for e, end in zip(episodes, ends, strict=True)
    ]
    batch, model = pack(lessons), where.auxiliary["progress"].policy
    out = model.score(batch)
    (term,) = estimate_progress().terms
    rows = where.rows(lessons, lambda o: o.heads["progress"][:, 0], policy=model)
    expected = np.mean(
        [(r[end].sum() - e.reward) ** 2 for r, end, e in zip(rows, ends, episodes, strict=True)]
    )
    assert float(term.total(out, batch)[0]) / term.count(batch) == pytest.approx(expected, rel=1e-5)


def test_oreal_with_whole_weights_is_reinforce_with_a_leave_one_out_baseline() -> None:
    """Each side divided by its own tokens, the wrong one at half the weight."""
    settings = {
        "credit.max_each": 0,
        "credit.weigh": False,
        "objective.kl_weight": 0.0,
        "objective.negative": 0.5,
    }
    lesson, groups = prepared("oreal", settings)
    plain = {
        id(s.episode): 2 * float(s.advantage.sum() / s.episode.sampled.sum())
        for s in advantage("leave one out")(groups, None)
    }

    def formula(out: Outputs, batch):
        sides = {True: [torch.zeros(()), 0], False: [torch.zeros(()), 0]}
        ordered = [
            s
            for key in dict.fromkeys(s.episode.task.key for s in lesson.signals)
            for s in lesson.signals
            if s.episode.task.key == key
        ]
        for signal, on in zip(ordered, answers(batch), strict=True):
            side = sides[signal.episode.correct]
            side[0] = side[0] - plain[id(signal.episode)] * out.logp[on].sum()
            side[1] += len(on)
        return sides[True][0] / sides[True][1] + 0.5 * sides[False][0] / sides[False][1]

    assert close(toys.gradient(lesson), autograd(lesson, formula), 1e-6)


def test_oreal_keeps_one_of_each_and_learns_where_it_went_right() -> None:
    lesson, groups = prepared("oreal")
    for one in groups:
        mine = [s for s in lesson.signals if s.episode.task is one.task]
        rights = sorted(s.episode.correct for s in mine)
        assert rights == ([False, True] if one.mixed else [])
    weights = np.concatenate([s.extras["share"][s.episode.sampled] for s in lesson.signals])
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert len(np.unique(weights)) > 2
    check_runner = lesson.context.auxiliary["token_reward"]
    check_runner.optimiser().param_groups[0]["base_lr"] = check_runner.optimiser().param_groups[1][
        "base_lr"
    ] = 0.05
    losses = [
        check_runner.learn(estimate_token_reward(), lesson.signals, 0, 0.0)["loss/outcome"]
        for _ in range(150)
    ]
    assert losses[-1] < 0.2 * losses[0]
    scores = lesson.context.rows(
        lesson.signals, lambda out: out.heads["token_reward"][:, 0], policy=check_runner.policy
    )
    for signal, row in zip(lesson.signals, scores, strict=True):
        assert (row[signal.episode.sampled].mean() > 0) == signal.episode.correct
