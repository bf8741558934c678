"""The objective family against its papers, where a row of the shared tests cannot say it: stale data, state that
lives across steps, companions, and losses written out again token by token."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toys
from etude import seeds
from etude.assembly import build
from etude.batch import pack
from etude.credit.group import advantage, constant, standardised
from etude.curriculum.replay import Replay
from etude.errors import UserError
from etude.fixtures.examples import example_advantages, example_group
from etude.methods import find
from etude.methods.imitation.ditto import sentences
from etude.methods.off_policy.a_lol import estimate_value, whole_answer
from etude.methods.off_policy.topr import shifted
from etude.methods.policy_gradient.bnpo import beta_density, beta_normalised
from etude.methods.policy_gradient.t1 import repeats
from etude.methods.policy_gradient.t_ppo import OPEN, RUNNING, Unfinished, egae
from etude.methods.process_credit.oreal import estimate_token_reward
from etude.methods.reward_shaping.dynamic_rewards import Influence, hypervolume
from etude.models.outputs import Outputs
from etude.recipe import AuxiliaryModel
from etude.rollout.group_rollout import GroupRollout
from etude.testing.laws import close
from etude.train.step import Learner, Update
from etude.types import Request, Signal, Verdict

# ---- means of this file -------------------------------------------------------------------------------------------


def prepared(name: str, settings: dict | None = None, drift: float = 0.0, tasks=None, samples: int = 4):
    """A lesson as `toys.lesson` makes it, with the companions and voices that the recipe asks for."""
    recipe, stages = build(find(name), settings or {})
    policy = toys.TablePolicy(0, dict(stages["objective"].heads))
    where = toys.context(policy)
    where.auxiliary |= {n: trained(c) for n, c in recipe.all_auxiliary.items() if c.source == "copy"}
    groups = asyncio.run(played(stages, where, tasks or [toys.task(i) for i in range(4)], samples))
    signals = where.completed(
        stages["credit"](stages["filter"](groups, where), where), stages["objective"].reads
    )
    moved(policy, drift)
    return toys.Lesson(stages, where, signals), groups


def trained(companion: AuxiliaryModel) -> Learner:
    copy = toys.TablePolicy(0, dict(companion.heads))
    return Learner(copy, Update(lr=companion.lr), micro_tokens=1 << 20)


async def played(stages, where, tasks, samples: int):
    generators = {n: toys.generator(p) for n, p in where.auxiliary.items() if isinstance(p, toys.TablePolicy)}
    speaker = toys.generator(where.policy)
    parts = (toys.check_runner, stages["rollout"], stages["reward"])
    group_rollouts = [
        GroupRollout(t, Request(), samples, speaker, *parts, seeds.key("toy", i), generators=generators)
        for i, t in enumerate(tasks)
    ]
    return await asyncio.gather(*(rollouts.group(stages["group_rollout"]) for rollouts in group_rollouts))


@torch.no_grad()
def moved(policy: toys.TablePolicy, drift: float) -> None:
    for name, parameter in policy.parameters():
        noise = torch.randn(
            parameter.shape, generator=seeds.torch_generator("drift", name), dtype=torch.float64
        )
        parameter += drift * noise


def autograd(lesson, loss) -> torch.Tensor:
    """The gradient of `loss(outputs, batch)`, a whole loss, by plain autograd."""
    batch = pack(lesson.signals)
    parameters = [p for _, p in lesson.policy.parameters()]
    total = loss(lesson.policy.outputs(batch, lesson.objective.needs), batch)
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, parameters, strict=True)]
    )


def answers(batch):
    """The token positions of every episode that the policy sampled."""
    return [((batch.episode == i) & batch.sampled).nonzero()[:, 0] for i in range(int(batch.episode[-1]) + 1)]


def parallel(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float(a @ b / (a.norm() * b.norm())) > 1 - 1e-9


# ---- the laws, with the options that the defaults leave out ----------------------------------------------------------

VARIANTS = {
    "dler by group": ("dler", {"credit.scale": "group std"}),
    "nft, one ratio per answer": ("nft", {"objective.whole": True, "credit.task_weight": "odds"}),
    "topr per token, tapered on both sides": ("topr", {"objective.per_token": True, "objective.both": True}),
    "rec in a ring": (
        "rec",
        {"objective.mask": "ring", "objective.importance": True, "objective.advantage_temperature": 1.0},
    ),
    "rec balanced": ("rec", {"objective.mask": "two-side", "credit.balance": True}),
    "ditto on loops": ("ditto", {"credit.loop_share": 1.0, "credit.ends": "+=", "credit.loop_length": 12}),
    "ditto, one-sided": (
        "ditto",
        {"credit.loop_share": 1.0, "credit.ends": "+=", "objective.one_sided": True},
    ),
    "masked thought with holes": ("masked_thought", {"credit.ramp_share": 0.0, "credit.random_share": 0.5}),
    "guide, pooled": ("guide", {"credit.pooled": True}),
    "t1, whitened": ("t1", {"credit.whiten": True, "credit.anchor_weight": 0.5}),
    "t_ppo in a long window": ("t_ppo", {"group_rollout.window": 1.0, "credit.whiten": False}),
    "a_lol": ("a_lol", {}),
    "a_lol on traces, by priority": (
        "a_lol",
        {"group_rollout.traces": True, "credit.priority": True, "objective.importance_unit": "token"},
    ),
    "a_lol with KL": ("a_lol", {"objective.importance_unit": "off", "objective.kl_weight": 0.1}),
    "oreal": ("oreal", {}),
    "oreal, all answers": ("oreal", {"credit.max_each": 0, "credit.weigh": False}),
    "bnpo, three scores": ("bnpo", {"credit.names": "reward+reward"}),
}


@pytest.mark.parametrize("case", list(VARIANTS))
@pytest.mark.parametrize("drift", [0.0, 0.2])
def test_cuts_do_not_change_the_gradient(case: str, drift: float) -> None:
    lesson, _ = prepared(*VARIANTS[case], drift)
    whole = toys.gradient(lesson)
    assert close(toys.gradient(lesson, micro_tokens=1), whole)
    assert close(toys.gradient(lesson, micro_tokens=37), whole)
    keys = list(dict.fromkeys(s.episode.task.key for s in lesson.signals))
    turned = [s for key in keys[::-1] for s in lesson.signals if s.episode.task.key == key]
    assert close(toys.gradient(lesson, signals=turned), whole)


@pytest.mark.parametrize("case", list(VARIANTS))
def test_a_step_goes_the_right_way(case: str) -> None:
    lesson, _ = prepared(*VARIANTS[case])
    batch, whole = pack(lesson.signals), toys.gradient(lesson)
    judged = any(term.proportional for term in lesson.objective.terms)

    def good() -> float:
        out = lesson.policy.score(batch, lesson.objective.needs)
        if judged:
            return float((batch.advantage * out.logp).sum())
        return -sum(
            t.coefficient * float(t.total(out, batch)[0]) / max(1, t.count(batch))
            for t in lesson.objective.terms
        )

    before = good()
    with torch.no_grad():
        for part, (_, parameter) in zip(
            whole.split([p.numel() for _, p in lesson.policy.parameters()]),
            lesson.policy.parameters(),
            strict=True,
        ):
            parameter -= 1e-3 * part.view_as(parameter)
    assert good() > before


# ---- stale data: what a reduction on fresh data cannot tell apart ----------------------------------------------------


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


# ---- what the losses report -------------------------------------------------------------------------------------------


def reported(name: str, ratio, advantage, settings: dict | None = None, **extras) -> dict[str, list[float]]:
    """Each metric of the assembled objective, a number a token, where the policy has moved by `ratio` since sampling."""
    episode = example_group([1.0], [len(ratio) + 1]).episodes[0]  # a first token has no log-probability
    led = {n: np.array([0.0, *values], np.float32) for n, values in extras.items()}
    batch = pack([Signal(episode, np.array([0.0, *advantage], np.float32), extras=led)])
    logp = batch.behaviour.double() + torch.tensor([1.0, *ratio], dtype=torch.float64).log()
    heads = {"value": torch.full((len(logp), 1), 0.5, dtype=torch.float64)}
    found = {}
    for term in build(find(name), settings or {})[1]["objective"].terms:
        loss = term.loss(Outputs(logp, torch.ones_like(logp), heads), batch)
        found |= loss[1] if isinstance(loss, tuple) else {}
    return {n: row[1:].tolist() for n, row in found.items()}


@pytest.mark.parametrize(
    ("name", "clipped"),
    [
        ("grpo", [1, 0, 0, 0, 0, 1]),  # praise that has risen enough, blame that has fallen enough
        ("rec", [1, 0, 0, 0, 0, 1]),
        ("cispo", [0, 0, 0, 0, 0, 0]),
    ],
)
def test_clip_and_ratio_are_reported_as_they_are(name: str, clipped: list[int]) -> None:
    found = reported(name, (1.5, 1.1, 0.5, 1.5, 0.9, 0.5), (1, 1, 1, -1, -1, -1))
    assert found["clip"] == clipped
    assert found["ratio"] == pytest.approx([1.5, 1.1, 0.5, 1.5, 0.9, 0.5])


def test_sequence_ratio_and_clipped_weight_are_reported_as_they_are() -> None:
    within = reported("gspo", (2.0, 1.00035**2 / 2), (1, 1))
    assert within["ratio"] == pytest.approx([1.00035] * 2)
    assert within["clip"] == [0, 0], "1.00035 is within 1.0004"
    assert reported("gspo", (1.0005,), (1,))["clip"] == [1]
    assert reported("gspo", (1.0005,), (-1,))["clip"] == [0]
    assert reported("gspo", (0.99965,), (-1,))["clip"] == [1], "beyond 0.9997"
    assert reported("cispo", (6.0, 4.0), (1, 1))["clip"] == [1, 0]


def test_the_kl_is_reported_as_it_is() -> None:
    """k3 = r - 1 - log r with r = start / policy: 2 - 1 - log 2 where the start is twice as likely."""
    extras = {"reference": (-1 + np.log(2), -1 - np.log(2), -1)}
    found = reported("grpo", (1.0, 1.0, 1.0), (1, 1, 1), {"objective.kl_weight": 0.1}, **extras)
    assert found["kl_reference"] == pytest.approx([1 - np.log(2), np.log(2) - 0.5, 0], abs=1e-6)


def test_the_other_metrics_are_reported_as_they_are() -> None:
    found = reported("ppo", (1.0,), (1,), values=(0.5,), returns=(1.0,))
    assert (found["value"], found["value_error"]) == ([0.5], [0.125])
    assert reported("nft", (1.5,), (-0.25,), rate=(0.25,))["negative_ratio"] == pytest.approx([5 / 6])
    assert reported("topr", (0.5,), (-1,))["taper"] == pytest.approx([0.5])
    assert reported("tea_rl", (1.0,), (1,), bonus=(0.1,))["exact_entropy"] == [1.0]


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


# ---- hints ------------------------------------------------------------------------------------------------------------


def lost(answer: str) -> Verdict:
    """Right only where the answer has an even number of letters, and never without a hint of that length."""
    return Verdict(0.0, False)


def test_guide_samples_with_the_hint_and_trains_without() -> None:
    policy = toys.TablePolicy()
    _, stages = build(find("guide"))
    asked = []
    speaker = toys.generator(policy)
    real = speaker.sampler.sample

    async def listening(prompt, params, key):
        asked.append(policy.tokenizer.decode(prompt))
        return await real(prompt, params, key)

    speaker.sampler.sample = listening
    (one,) = toys.play(stages, policy, [toys.task(0, lost)], 3, speaker)
    assert [("add" in text) for text in asked] == [False] * 3 + [True] * 3
    assert len(one.episodes) == 6
    guided = [e for e in one.episodes if e.notes.get("guided")]
    batch = pack([constant(e, 1.0) for e in guided])
    assert "add" not in policy.tokenizer.decode(batch.tokens.numpy())
    out = policy.score(batch)
    ratio = (out.logp - batch.behaviour)[batch.sampled]
    assert ratio.abs().min() > 1e-3, "pi_old(y|x) / pi_old(y|x,h) is not 1"
    for episode in guided:  # the table knows only the token before and the place of a token
        with_hint = np.flatnonzero(episode.sampled) - sum(len(s) for s in episode.spans if s.unseen)
        tokens = episode.tokens
        for place, at_ in zip(with_hint, np.flatnonzero(episode.sampled), strict=True):
            before = tokens[at_ - 1] if place > with_hint[0] else episode.spans[0].tokens[-1]
            logits = policy.logits(torch.tensor([before]), torch.tensor([place])).detach()
            assert float(torch.log_softmax(logits, -1)[0, tokens[at_]]) == pytest.approx(
                episode.logp[at_], abs=1e-5
            )
    assert all(not s.advantage.any() for s in stages["credit"]([one], None)), "nothing was solved"


def test_guide_leaves_solved_tasks_alone() -> None:
    policy = toys.TablePolicy()
    _, stages = build(find("guide"))
    (one,) = toys.play(stages, policy, [toys.task(0, lambda answer: Verdict(1.0, True))], 3)
    assert len(one.episodes) == 3


# ---- imitation --------------------------------------------------------------------------------------------------------


def test_ditto_repeats_a_sentence_after_the_one_before_it() -> None:
    lesson, _ = prepared("ditto", {"credit.loop_share": 1.0, "credit.ends": "+=", "credit.loop_length": 12})
    decode = lesson.policy.tokenizer.decode
    for signal in lesson.signals:
        prompt, before, loop = signal.episode.spans
        period = int(signal.extras["period"].max())
        assert decode(before.tokens) + decode(loop.tokens[:period]) in "3+4=7"
        assert len(before) + len(loop) == 12
        np.testing.assert_array_equal(loop.tokens, np.resize(loop.tokens[:period], len(loop)))
        start = len(prompt) + len(before)
        assert signal.weights["loop"].nonzero()[0].tolist() == [*range(start + period, len(signal.advantage))]
        assert signal.weights["first"].nonzero()[0].tolist() == [*range(start, start + period)]


def test_ditto_by_the_formula() -> None:
    lesson, _ = prepared("ditto", {"credit.loop_share": 1.0, "credit.ends": "+=", "credit.loop_length": 12})

    def formula(out: Outputs, batch):
        terms = []
        for t in (batch.weight("loop") > 0).nonzero()[:, 0].tolist():
            p, old = out.logp[t].exp(), out.logp[t - int(batch.extras["period"][t])].exp().detach()
            terms.append(-torch.log(1 - (p - 0.5 * old).abs()))
        return torch.stack(terms).mean()

    assert close(toys.gradient(lesson), autograd(lesson, formula))


def test_ditto_imitates_what_has_too_few_sentences() -> None:
    lesson, _ = prepared("ditto", {"credit.loop_share": 1.0, "credit.ends": "."})
    assert close(toys.gradient(lesson), toys.gradient(toys.lesson("sft")))


def test_ditto_tosses_one_coin_a_step() -> None:
    _, stages = build(find("ditto"), {"credit.ends": "+="})
    where = toys.context(toys.TablePolicy())
    groups = toys.play(stages, where.policy, [toys.task(i) for i in range(4)])
    kinds = []
    for step in range(40):
        where.step = step
        kinds.append({"loop" in s.weights for s in stages["credit"](groups, where)})
    assert all(len(kind) == 1 for kind in kinds)
    assert 10 < sum(True in kind for kind in kinds) < 30


def test_masked_thought_changes_what_is_read_and_nothing_else() -> None:
    _, stages = build(find("masked_thought"), {"credit.masked_share": 0.5, "credit.ramp_share": 0.0})
    where = toys.context(toys.TablePolicy())
    long = [toys.task(i, reference="3+4=7 " * 40) for i in range(2)]
    groups = toys.play(stages, where.policy, long)
    signals = stages["credit"](groups, where)
    batch = pack(signals)
    read = stages["objective"].corrupt(batch)
    shown = batch.weight("imitation") > 0
    assert (read == batch.tokens)[~shown].all(), "the question is never masked"
    changed = float((read != batch.tokens)[shown].double().mean())
    assert 0.42 < changed < 0.56, "half of the solution, but for fillings that hit by chance"
    where.step = 1
    assert not torch.equal(stages["objective"].corrupt(pack(stages["credit"](groups, where))), read)
    where.progress = 0.33
    _, ramped = build(find("masked_thought"))
    half = pack(ramped["credit"](groups, where))
    assert 0.13 < float((half.extras["read"] != half.tokens)[shown].double().mean()) < 0.26, "half-way to 0.4"


def test_masked_thought_with_nothing_but_holes_sees_the_question_only() -> None:
    _, stages = build(
        find("masked_thought"),
        {"credit.masked_share": 1.0, "credit.ramp_share": 0.0, "credit.random_share": 0.0},
    )
    policy = toys.TablePolicy()
    where = toys.context(policy)
    (one,) = toys.play(stages, policy, [toys.task(0)])
    batch = pack(stages["credit"]([one], where))
    read = stages["objective"].corrupt(batch)
    shown = batch.weight("imitation") > 0
    assert (read[shown] == policy.tokenizer.stops[0]).all()


def test_entropy_sft_keeps_the_tokens_whose_loss_exceeds_their_uncertainty() -> None:
    lesson, _ = prepared("entropy_sft", {"credit.trained_share": 0.5})
    sft = prepared("sft")[0].signals
    batch = pack(sft)
    out = lesson.policy.score(batch, frozenset({"entropy"}))
    shown = batch.weight("imitation") > 0
    delta = (-out.logp - 0.8 * out.entropy)[shown]
    wanted = delta >= delta.sort(descending=True).values[round(0.5 * len(delta)) - 1]
    assert torch.equal((pack(lesson.signals).weight("imitation") > 0)[shown], wanted)
    assert 0 < int(wanted.sum()) < len(wanted)


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


# ---- several rewards --------------------------------------------------------------------------------------------------


def test_dynamic_rewards_move_with_their_share_of_the_gradient() -> None:
    lesson, groups = prepared("dynamic_rewards", {"credit.weight_rate": 0.0})
    credit, where = lesson.stages["credit"], lesson.context
    np.testing.assert_allclose(np.exp(credit.log_w), 1 / 3)
    before = where.policy.state_dict()

    def alone(k: int) -> torch.Tensor:
        names = ("accuracy", "conciseness", "format")
        rewards = [np.array([e.scores[names[k]] for e in g.episodes]) for g in groups]
        signals = [
            constant(e, float(a))
            for g, r in zip(groups, rewards, strict=True)
            for e, a in zip(g.episodes, standardised(r), strict=True)
        ]
        return toys.gradient(replace(lesson, signals=signals))

    g = torch.stack([alone(k) for k in range(3)])
    influence = (g @ g.sum(0)).numpy()
    credit.rate = 40.0
    credit(groups, where)
    wanted = np.exp(40.0 * influence) / np.exp(40.0 * influence).sum()
    np.testing.assert_allclose(np.exp(credit.log_w), wanted, rtol=1e-5)
    assert wanted.max() > 0.4, "something moved"
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), where.policy.state_dict().values(), strict=True)
    )
    assert all(p.grad is None or not p.grad.any() for _, p in where.policy.parameters())
    again = Influence()
    again.load_state_dict(credit.state_dict())
    np.testing.assert_array_equal(again.log_w, credit.log_w)


def test_hypervolume_rewards_pay_what_is_new() -> None:
    _, stages = build(find("hypervolume_rewards"))
    front = stages["credit"]
    assert front.extend([0.2, 0.2, 0.2]) == 0, "the first point is the origin"
    assert front.extend([0.7, 0.4, 0.3]) == pytest.approx(0.5 * 0.2 * 0.1)
    assert front.extend([0.6, 0.3, 0.25]) == 0, "nothing beyond the front"
    assert front.extend([0.4, 0.7, 0.3]) == pytest.approx(0.2 * 0.3 * 0.1)
    assert len(front.front) == 3
    rng = seeds.generator("points")
    points, spots = rng.random((6, 3)), rng.random((200_000, 3))
    inside = (spots[:, None] < points[None]).all(2).any(1).mean()
    assert hypervolume(points.tolist(), [0.0] * 3) == pytest.approx(inside, abs=5e-3)


# ---- companions -------------------------------------------------------------------------------------------------------


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
