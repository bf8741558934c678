"""Demonstrations beside attempts: what each recipe adds to the laws that hold for all of them."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import toys
import worlds_of_letters as letters
from etude import seeds
from etude.batch import pack
from etude.credit.imitate import shown, tagged
from etude.credit.kl_penalty import drift
from etude.credit.weigh import gradient
from etude.methods import build, find
from etude.methods.imitation_and_rl.amft import scaled
from etude.methods.imitation_and_rl.carft import contrasted, embedded
from etude.methods.imitation_and_rl.prefix_rft import prefixed
from etude.methods.imitation_and_rl.relift import UNSOLVED, Interleave
from etude.methods.imitation_and_rl.rmt import Scored, bins, spots
from etude.objective.hybrid import imitation
from etude.objective.policy import plain
from etude.rollout.group_rollout import GroupRollout
from etude.testing import laws
from etude.testing.examples import example_group
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Group, Request, Verdict

WARMED = ("reft", "carft", "amft")
OURS = ("otr", "carft", "reft", "relift", "rmt", "amft", "hpt", "prefix_rft")


def never(answer: str) -> Verdict:
    return Verdict(0.0, False)


def groups_of(name: str, settings: dict | None = None, tasks=None, samples: int = 4, policy=None):
    """The recipe's stages, and the groups that they gather from a table policy."""
    _, stages = build(find(name), settings or {})
    policy = policy or toys.TablePolicy(0, dict(stages["objective"].heads))
    return stages, policy, toys.play(stages, policy, tasks or [toys.task(i) for i in range(4)], samples)


def rollouts(
    stages, policy, sampler=None, samples: int = 4, progress: float = 0.0, why: str = ""
) -> GroupRollout:
    speaker = toys.generator(policy, sampler)
    request, key = Request(why=why), seeds.key("toy", 0)
    parts = (stages["rollout"], stages["reward"], key, progress)
    return GroupRollout(toys.task(), request, samples, speaker, toys.check_runner, *parts)


def same(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal gradients, where one policy may have heads (which come last) that the other lacks."""
    size = max(len(mine), len(theirs))
    a, b = (F.pad(g, (0, size - len(g))) for g in (mine, theirs))
    return laws.close(a, b) and not laws.close(-a, b)


# ---- the laws, past the warm-up and in both modes ----------------------------------------------------------


def laws_hold(name: str, settings: dict) -> None:
    """The shared laws for a recipe in another setting than its default."""
    for law in laws.STEP_LAWS:
        law(build(find(name), settings)[0])


@pytest.mark.parametrize("name", WARMED)
def test_laws_hold_after_the_warm_up(name: str) -> None:
    laws_hold(name, {"group_rollout.warmup": 0.0})
    lesson = toys.lesson(name, {"group_rollout.warmup": 0.0})
    assert any(s.episode.sampled.any() for s in lesson.signals)


@pytest.mark.parametrize("name", WARMED)
def test_nothing_but_warm_up_is_sft(name: str) -> None:
    mine = toys.gradient(toys.lesson(name, {"group_rollout.warmup": 1.0}))
    assert same(mine, toys.gradient(toys.lesson("sft")))


@pytest.mark.parametrize("name", OURS)
def test_tasks_without_a_solution_are_refused(name: str, tmp_path: Path) -> None:
    from etude.errors import Refused
    from etude.tasks import TaskSet

    bare = [replace(t, answer=None, reference=None) for t in letters.words().sources[0].tasks("train")]
    with pytest.raises(Refused, match="needs a gold answer"):
        start(letters.plan(tmp_path, name, 1), tmp_path / "run", TaskSet.of(bare))


# ---- OTR ------------------------------------------------------------------------------------------------


def dft(lesson: toys.Lesson) -> torch.Tensor:
    """-mean_t sg[pi(y*_t)] log pi(y*_t): dynamic fine-tuning (arXiv 2508.05629)."""
    batch = pack(lesson.signals)
    logp = lesson.policy.outputs(batch).logp[batch.weight("imitation") != 0]
    parameters = [p for _, p in lesson.policy.parameters()]
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(-(logp.detach().exp() * logp).mean(), parameters)]
    )


def test_otr_is_a_multiple_of_dft_when_exact_and_at_temperature_one() -> None:
    lesson = toys.lesson("otr", {"credit.samples": 0, "objective.beta": -0.1, "objective.kappa": 1.0})
    assert same(toys.gradient(lesson), 1.1 * dft(lesson))


@pytest.mark.parametrize("settings", [{}, {"objective.beta": 0.5, "objective.kappa": 2.0}])
def test_otr_draws_estimate_the_exact_gradient(settings: dict) -> None:
    exact = toys.gradient(toys.lesson("otr", {"credit.samples": 0, **settings}))
    error = [
        float(
            (toys.gradient(toys.lesson("otr", {"credit.samples": k, **settings})) - exact).norm()
            / exact.norm()
        )
        for k in (100, 40_000)
    ]
    assert error[1] < 0.05
    assert error[1] < error[0] / 8, "the error falls like 1/sqrt(K)"


# ---- HPT and ReLIFT ---------------------------------------------------------------------------------------


def test_hpt_chooses_per_task() -> None:
    stages, _, groups = groups_of("hpt", tasks=[toys.task(0), toys.task(1, never)])
    assert groups[0].mixed
    signals = stages["credit"](groups, None)
    solved = [s for s in signals if s.episode.task.key == groups[0].task.key]
    hopeless = [s for s in signals if s.episode.task.key == groups[1].task.key]
    rewards = groups[0].rewards
    for signal, reward in zip(solved, rewards, strict=True):
        assert np.allclose(signal.advantage[signal.episode.sampled], reward - rewards.mean())
    assert [s.episode.demonstration for s in hopeless] == [True]
    assert hopeless[0].weights["imitation"].sum() == len("3+4=7") + 1


def test_hpt_does_not_imitate_where_every_attempt_broke() -> None:
    stages, _, groups = groups_of("hpt", tasks=[toys.task(1, never)])
    broken = replace(groups[0], episodes=(), failed=groups[0].episodes)
    assert stages["credit"]([broken], None) == []


@pytest.mark.parametrize("gate", [-1.0, 0.0])
def test_hpt_imitates_what_nobody_attempted(gate: float) -> None:
    """As while it warms up (gather.warmup)."""
    stages, _, groups = groups_of(
        "hpt", {"credit.gate": gate, "group_rollout.warmup": 0.5}, tasks=[toys.task(0)]
    )
    assert [len(groups[0].episodes), len(groups[0].demonstrations)] == [0, 1]
    (signal,) = stages["credit"](groups, None)
    assert signal.episode.demonstration
    assert signal.weights["imitation"].any()


def test_relift_imitates_what_waited() -> None:
    _, stages = build(find("relift"), {"objective.entropy": 0.0})
    policy = toys.TablePolicy()
    groups = [asyncio.run(rollouts(stages, policy, why=UNSOLVED).group(stages["group_rollout"]))]
    where = toys.context(policy)
    lesson = toys.Lesson(stages, where, stages["credit"](groups, where))
    assert same(toys.gradient(lesson), toys.gradient(toys.lesson("sft", tasks=1)))


def test_what_failed_is_imitated_at_the_next_step_and_then_practised() -> None:
    curriculum, imitations = Interleave(1), []
    for failed in (True, False, False):
        requests = curriculum.next(1, None)
        imitations.append(sum(r.why == UNSOLVED for r in requests))
        curriculum.observe([example_group([0.0, 0.0])] * failed, [])
    assert imitations == [0, 1, 0]


def test_tasks_wait_once_newest_first_and_survive_a_checkpoint() -> None:
    curriculum = Interleave(size=3)
    _, _, hopeless = groups_of("relift", tasks=[toys.task(i, never) for i in range(3)])
    _, _, easy = groups_of("relift", tasks=[toys.task(9, lambda a: Verdict(1.0, True))])
    for group in (
        hopeless[0],
        hopeless[0],
        hopeless[1],
        *easy,
        replace(hopeless[2], failed=hopeless[2].episodes[:1]),
    ):
        curriculum.observe([group], [])
    assert [t.key for t in curriculum.waiting] == [hopeless[1].task.key, hopeless[0].task.key]
    assert [r.task for r in curriculum.next(2, None)] == [None, None], "two are not three"
    curriculum.observe([hopeless[2]], [])
    again = Interleave(size=3)
    again.load_state_dict(curriculum.state_dict())
    assert [r.task for r in again.next(2, None)] == [g.task for g in hopeless[::-1]]
    assert again.waiting == []
    assert again.report() == {"waiting": 0.0}


def test_relift_alternates_in_a_run(tmp_path: Path) -> None:
    more = {"run__tasks_per_step": 6, "run__group_size": 1, "run__eval_problems": 0, "curriculum__size": 6}
    run = start(letters.plan(tmp_path, "relift", 8, **more), tmp_path / "run", letters.words())
    train(run)
    run.close()
    kinds = [
        {"policy" if m["length"] else "", "imitation" if "loss/imitation" in m else ""}
        for m in run.directory.metrics()
    ]
    assert {"policy", ""} in kinds
    assert {"", "imitation"} in kinds
    assert {"policy", "imitation"} not in kinds, "a step does one or the other"
    assert not run.ended


@pytest.mark.parametrize("gate", [-1.0, 1.0])
def test_entropy_is_kept_up_in_both_phases(gate: float) -> None:
    """-0.7 x the mean entropy over what is trained, attempts or demonstrations."""
    lesson = toys.lesson("hpt", {"credit.gate": gate, "objective.entropy": 0.7})
    without = toys.lesson("hpt", {"credit.gate": gate, "objective.entropy": 0.0})
    batch = pack(lesson.signals)
    on = batch.weight("imitation" if gate > 0 else "policy") != 0
    loss = -0.7 * lesson.policy.outputs(batch, {"entropy"}).entropy[on].mean()
    parameters = [p for _, p in lesson.policy.parameters()]
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    assert same(toys.gradient(lesson) - toys.gradient(without), theirs)


# ---- ReFT and CARFT -----------------------------------------------------------------------------------------


def test_reft_without_kl_and_values_is_reinforce_with_a_clip() -> None:
    settings = {
        "group_rollout.warmup": 0,
        "reward.partial": 0,
        "credit.beta": 0,
        "credit.lam": 1,
        "credit.whiten": False,
    }
    stages, policy, groups = groups_of("reft", settings)
    with torch.no_grad():
        policy.heads["value"].zero_()
    signals = stages["credit"](groups, toys.context(policy))
    for signal in signals:
        assert np.allclose(signal.advantage[signal.episode.sampled], signal.episode.reward)
        assert np.allclose(signal.extras["returns"][signal.episode.sampled], signal.episode.reward)


def test_reft_pays_for_leaving_the_warmed_up_policy() -> None:
    """r_t by hand: -beta (log pi_old - log pi_ref) everywhere, the outcome at the last token."""
    settings = {
        "group_rollout.warmup": 0,
        "credit.beta": 0.3,
        "credit.lam": 0,
        "credit.gamma": 0,
        "credit.whiten": False,
    }
    stages, policy, groups = groups_of("reft", settings)
    where = toys.context(policy)
    stages["credit"].load_state_dict({"anchored": True})
    signals = stages["credit"](groups, where)
    values = where.rows(signals, lambda out: out.heads["value"][:, 0])
    reference = where.rows(signals, lambda out: out.logp, policy=where.auxiliary["reference"])
    for signal, value, ref in zip(signals, values, reference, strict=True):
        on = signal.episode.sampled
        reward = -0.3 * (signal.episode.logp - ref)[on]
        reward[-1] += signal.episode.reward
        assert np.allclose(signal.advantage[on], reward - value[on], atol=1e-5)
        assert np.abs(reward[:-1]).max() > 0.01


def test_the_reference_is_the_policy_at_the_first_attempts() -> None:
    stages, policy, groups = groups_of("reft", {"group_rollout.warmup": 0})
    where, credit = toys.context(policy), stages["credit"]
    before = drift(groups[0].episodes, where)
    credit([], where)
    assert not credit.state_dict()["anchored"], "a step of the warm-up"
    credit(groups, where)
    assert max(np.abs(d).max() for d in before) > 0.1
    assert max(np.abs(d).max() for d in drift(groups[0].episodes, where)) < 1e-5
    with torch.no_grad():
        policy.after += 1.0 * torch.randn(policy.after.shape, dtype=torch.float64)
    credit(groups, where)
    moved = (where.auxiliary["reference"].after - policy.after).detach()
    assert float(moved.abs().max()) > 0.1, "it stays where it was laid"


def contrast_lesson() -> toys.Lesson:
    """Tasks with different annotations."""
    tasks = [toys.task(i, reference=f"{i}+{i}={2 * i}") for i in range(4)]
    stages, policy, groups = groups_of("carft", {"group_rollout.warmup": 0.0}, tasks)
    where = toys.context(policy)
    return toys.Lesson(stages, where, stages["credit"](groups, where))


def test_contrast_by_the_formula() -> None:
    lesson = contrast_lesson()
    batch = pack(lesson.signals)
    out = lesson.policy.outputs(batch, lesson.objective.needs)
    (term,) = (t for t in lesson.objective.terms if t.name == "contrast")
    total = float(term.total(out, batch)[0].detach()) / term.count(batch)

    e, v = embedded(out, 64).detach().numpy(), out.heads["value"][:, 0].detach().numpy()

    def z(episode: int, row: str) -> np.ndarray:
        on = ((batch.episode == episode) & (batch.weight(row) != 0)).numpy()
        pool = np.exp(v[on]) @ e[on] / np.exp(v[on]).sum()
        return pool / np.linalg.norm(pool)

    group = {int(i): int(g) for i, g in zip(batch.episode, batch.group, strict=True)}
    having = {
        row: batch.episode[batch.weight(row) != 0].unique().tolist()
        for row in ("anchor", "policy", "contrast")
    }
    anchor = {group[i]: z(i, "anchor") for i in having["anchor"]}
    attempts = {i: z(i, "policy") for i in having["policy"]}
    assert 0 < len(having["contrast"]) < len(attempts)
    losses = []
    for i in having["contrast"]:
        own = anchor[group[i]]
        below = sum(math.exp(own @ other / 0.2) for other in attempts.values())
        losses.append(-math.log(math.exp(min(own @ attempts[i], 0.9) / 0.2) / below))
    assert total == pytest.approx(np.mean(losses), abs=1e-5)


def test_contrast_moves_attempts_and_not_the_annotation() -> None:
    lesson = toys.lesson("carft", {"group_rollout.warmup": 0.0})
    batch = pack(lesson.signals)
    out = lesson.policy.outputs(batch, lesson.objective.needs)
    embed = out.heads["embed"].detach().requires_grad_()
    (term,) = (t for t in contrasted().terms if t.name == "contrast")
    term.total(replace(out, heads={**out.heads, "embed": embed}), batch)[0].backward()
    shown_rows, played = batch.weight("anchor") != 0, batch.weight("policy") != 0
    assert embed.grad[shown_rows].abs().sum() == 0
    assert embed.grad[played].abs().sum() > 0


# ---- AMFT ----------------------------------------------------------------------------------------------------


def test_only_imitation_is_sft() -> None:
    settings = {"group_rollout.warmup": 0, "credit.start": 1, "credit.low": 1, "credit.high": 1}
    assert same(toys.gradient(toys.lesson("amft", settings)), toys.gradient(toys.lesson("sft")))


def amft(**settings):
    stages, policy, groups = groups_of(
        "amft", {"group_rollout.warmup": 0, **{f"credit.{k}": v for k, v in settings.items()}}
    )
    return stages["credit"], toys.context(policy), groups


@pytest.mark.parametrize("utility", ["imitation", "reward"])
def test_the_meta_gradient_is_the_slope_of_the_utility(utility: str) -> None:
    """d/dmu of -L_held after one look-ahead step, by finite differences."""
    credit, where, groups = amft(utility=utility, entropy_rate=0, rate=1e-3, every=1)
    signals = credit(groups, where)
    attempts = [s for s in signals if not s.episode.demonstration]
    beside = [s for s in signals if s.episode.demonstration]
    attempts, beside = scaled(attempts, 1 / (1 - credit.mu)), scaled(beside, 1 / credit.mu)
    keys = [g.task.key for g in groups]

    def part(of, index):
        return [s for s in of if s.episode.task.key in keys[index::2]]

    sft, rl = (
        gradient(imitation(), part(beside, 0), where),
        gradient(plain("token"), part(attempts, 0), where),
    )
    loss, held = (
        (imitation(), part(beside, 1)) if utility == "imitation" else (plain("token"), part(attempts, 1))
    )
    batch, parameters = pack(held), [p for _, p in where.policy.parameters()]

    def utility_after(mu: float, eta: float = 1e-4) -> float:
        step = eta * ((1 - mu) * rl + mu * sft)
        sizes = [p.numel() for p in parameters]
        with torch.no_grad():
            for p, d in zip(parameters, step.split(sizes), strict=True):
                p -= d.view_as(p)
            (term,) = loss.terms
            found = -float(term.total(where.policy.score(batch), batch)[0]) / term.count(batch)
            for p, d in zip(parameters, step.split(sizes), strict=True):
                p += d.view_as(p)
        return found / eta

    expected = utility_after(1.0) - utility_after(0.0)
    assert abs(expected) > 1e-4
    assert credit.mu - 0.5 == pytest.approx(1e-3 * expected, rel=1e-2)


def test_entropy_above_the_target_means_less_imitation() -> None:
    credit, where, groups = amft(rate=0, entropy_rate=0.01)
    credit(groups, where)
    seen = shown(groups)
    rows = where.rows(seen, lambda out: out.entropy, {"entropy"})
    target = np.concatenate([r[s.weights["imitation"] != 0] for r, s in zip(rows, seen, strict=True)]).mean()
    now = -np.concatenate([e.logp[e.sampled] for g in groups for e in g.episodes]).mean()
    assert credit.mu == pytest.approx(0.5 + 0.01 * (target - now), abs=1e-6)
    other, *_ = amft(rate=0, entropy_rate=-0.01)
    other(groups, where)
    assert (other.mu - 0.5) * (credit.mu - 0.5) < 0, "the other reading"
    again, *_ = amft()
    again.load_state_dict(credit.state_dict())
    assert (again.mu, again.target, again.steps) == (credit.mu, credit.target, 1)


def test_mu_stays_in_its_bounds() -> None:
    credit, where, groups = amft(rate=0, entropy_rate=1e6)
    signals = credit(groups, where)
    assert credit.mu in (0.05, 0.95)
    played = next(s for s in signals if s.episode.sampled.any())
    assert played.weights["policy"].max() == pytest.approx(1 - credit.mu)
    assert next(s for s in signals if s.episode.demonstration).weights["imitation"].max() == pytest.approx(
        credit.mu
    )


# ---- Prefix-RFT ----------------------------------------------------------------------------------------------


def hybrid_of(group: Group):
    return next(e for e in group.episodes if tagged(e, "prefix").any())


def test_one_attempt_continues_the_demonstration() -> None:
    stages, policy, (group, *_) = groups_of("prefix_rft")
    episode = hybrid_of(group)
    words = rollouts(stages, policy).demonstrate().spans[-1].tokens
    assert [s.tag for s in episode.spans] == ["prompt", "prefix", "attempt"]
    assert episode.spans[1].tokens.tolist() == words[:5].tolist(), "0.95 of 6 tokens at the start"
    assert sum(tagged(e, "prefix").any() for e in group.episodes) == 1
    said = toys.tokenizer().decode(np.concatenate([words[:5], episode.spans[2].tokens]))
    assert episode.correct == toys.coin(said).correct, "judged as a whole"
    late = asyncio.run(rollouts(stages, policy, progress=1.0).group(stages["group_rollout"]))
    cuts = [int(tagged(e, "prefix").sum()) for e in late.episodes]
    assert max(cuts) < 6
    assert cuts[:3] == [0, 0, 0]


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("joined", [False, True])
def test_prefix_tokens_are_the_policys_own(keep: float, joined: bool) -> None:
    _, policy, groups = groups_of("prefix_rft")
    where = toys.context(policy)
    signals = prefixed(keep, joined)(groups, where)
    for group in groups:
        episode = hybrid_of(group)
        signal = next(s for s in signals if s.episode.index == episode.index and s.episode.task == group.task)
        on = tagged(episode, "prefix")
        plain_rewards = np.array([e.reward for e in group.episodes if e is not episode])
        base = group.rewards.mean() if joined else plain_rewards.mean()
        logp = where.rows([signal], lambda out: out.logp)[0]
        assert np.allclose(signal.episode.logp[on], logp[on]), "ratio 1 before the first step"
        assert signal.episode.sampled[on].all()
        entropy = where.rows([signal], lambda out: out.entropy, {"entropy"})[0][on]
        order = np.argsort(-entropy)
        kept = round(keep * on.sum())
        expected = np.zeros(int(on.sum()))
        expected[order[:kept]] = episode.reward - base
        assert np.allclose(signal.advantage[on], expected)
        rest = episode.reward - (base if joined else 0.0)
        assert np.allclose(signal.advantage[episode.sampled], rest)


# ---- RMT -----------------------------------------------------------------------------------------------------


def test_places_are_drawn_by_rank_of_entropy() -> None:
    entropy = np.array([5.0, 1, 3, 0, 4, 2])
    for third, places in enumerate(({3, 1}, {5, 2}, {4, 0})):
        chances = np.eye(3)[third]
        drawn = {spots(entropy, 6, 1, chances, np.random.default_rng(i))[0] for i in range(50)}
        assert drawn == places
    assert {spots(None, 3, 1, np.eye(3)[0], np.random.default_rng(i))[0] for i in range(50)} == {0, 1, 2}
    assert np.allclose(bins(0.6, 0.7, 0.3, 0.7, 0.0), [0.6, 0.2, 0.2])
    assert np.allclose(bins(0.6, 0.7, 0.3, 0.7, 1.0), [0.15, 0.15, 0.7])


def test_think_then_guess_as_token_rows() -> None:
    _, stages = build(find("rmt"), {"group_rollout.start": 4})
    sampler = toys.ScriptedSampler(replies=["hm", "4"], ends=False)
    spoken = rollouts(stages, sampler.policy, sampler, samples=1)
    spoken.task = replace(spoken.task, meta={"entropy": np.array([0.0, 0, 9, 0, 0, 0])})
    for late in range(20):  # until the draw falls on the token of highest entropy
        sampler.replies, sampler.asked = ["hm", "4"], []
        spoken.key = seeds.key("spot", late)
        group = asyncio.run(spoken.group(stages["group_rollout"]))
        if group.episodes[0].notes["spot"] == 2:
            break
    (episode,), (shown_text,) = group.episodes, group.demonstrations
    decode = toys.tokenizer().decode
    rows = [(s.tag, s.sampled, decode(s.tokens)) for s in episode.spans]
    assert rows[0][2].startswith("q0\n\nContinue the text. Think in at most 4 tokens")
    assert rows[1:] == [
        ("prefix", False, "3+<think>"),
        ("thought", True, "hm"),
        ("prefix", False, "</think>"),
        ("guess", True, "4"),
    ]
    assert episode.correct
    assert (episode.notes["thought"], episode.notes["budget"]) == (2, 4)
    assert episode.reward == pytest.approx(0.8 + 0.2 * 0.5)
    signals = stages["credit"]([group], None)
    read = next(s for s in signals if s.episode is shown_text)
    text = tagged(shown_text, "demonstration")
    assert read.weights["imitation"][text].tolist() == [1, 1, 0, 1, 1, 1], "the rest is read"


def test_a_thought_may_be_twice_its_budget() -> None:
    _, _, groups = groups_of("rmt", {"group_rollout.start": 2})
    thoughts = [e.notes["thought"] for g in groups for e in g.episodes]
    assert max(thoughts) == 4
    _, stages = build(find("rmt"), {"group_rollout.start": 5, "group_rollout.least": 2})
    for progress, budget in ((0.0, 5), (0.5, 2), (1.0, 2)):  # 5, 5 sqrt(0.2) = 2.2, 1
        late = asyncio.run(
            rollouts(stages, toys.TablePolicy(), progress=progress).group(stages["group_rollout"])
        )
        assert {e.notes["budget"] for e in late.episodes} == {budget}


def test_rmt_compares_thoughts_about_the_same_token() -> None:
    stages, _, groups = groups_of("rmt", {"group_rollout.positions": 3})
    signals = stages["credit"](groups, None)
    for group in groups:
        for spot in {e.notes["spot"] for e in group.episodes}:
            mine = [e for e in group.episodes if e.notes["spot"] == spot]
            rewards = np.array([e.reward for e in mine])
            found = [s.advantage[-1] for s in signals if any(s.episode is e for e in mine)]
            assert len(rewards) == 4
            assert np.allclose(found, (rewards - rewards.mean()) / (rewards.std() + 1e-4), atol=1e-5)


def test_texts_are_scored_by_the_start(tmp_path: Path) -> None:
    more = {"run__tasks_per_step": 3, "run__eval_problems": 0}
    run = start(letters.plan(tmp_path, "rmt", 1, **more), tmp_path / "run", letters.words())
    requests = Scored().next(3, run.context)
    drawn = [run.tasks.draw(Request(), i, run.context.seed) for i in range(3)]
    run.close()
    assert [r.task.key for r in requests] == [t.key for t in drawn]
    assert all(len(r.task.meta["entropy"]) == 2 and r.task.meta["entropy"].min() > 0 for r in requests)
