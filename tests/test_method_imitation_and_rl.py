"""Demonstrations beside attempts: what each recipe adds to the laws that hold for all of them."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toys
import worlds_of_letters as letters
from etude.assembly import build
from etude.batch import pack
from etude.credit.kl_penalty import drift
from etude.fixtures.examples import example_group
from etude.fixtures.given import example_answers
from etude.methods import find
from etude.methods.imitation_and_rl.carft import actor_critic_and_contrast, embedded
from etude.methods.imitation_and_rl.relift import IMITATE, Interleave
from etude.objective.terms import Term, objective
from etude.tasks import TaskSet
from etude.train.loop import train
from etude.train.setup import start
from etude.train.step import Learner
from etude.types import Signal, Verdict
from lessons import groups_of, laws_hold, never, rollouts, same

WARMED = ("reft", "carft", "amft")
OURS = ("otr", "carft", "reft", "relift", "rmt", "amft", "hpt", "prefix_rft")


@pytest.mark.parametrize("name", WARMED)
def test_laws_hold_after_the_warm_up(name: str) -> None:
    laws_hold(name, {"group_rollout.warmup_share": 0.0})
    lesson = toys.lesson(name, {"group_rollout.warmup_share": 0.0})
    assert any(s.episode.sampled.any() for s in lesson.signals)


@pytest.mark.parametrize("name", WARMED)
def test_nothing_but_warm_up_is_sft(name: str) -> None:
    mine = toys.gradient(toys.lesson(name, {"group_rollout.warmup_share": 1.0}))
    assert same(mine, toys.gradient(toys.lesson("sft")))


@pytest.mark.parametrize("name", OURS)
def test_tasks_without_a_solution_are_refused(name: str, tmp_path: Path) -> None:
    from etude.errors import Refused

    bare = [replace(t, answer=None, reference=None) for t in letters.words().sources[0].tasks("train")]
    with pytest.raises(Refused, match="needs a gold answer"):
        start(letters.plan(tmp_path, name, 1), tmp_path / "run", TaskSet.of(bare))


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
    """As while it warms up (group_rollout.warmup_share)."""
    stages, _, groups = groups_of(
        "hpt", {"credit.gate": gate, "group_rollout.warmup_share": 0.5}, tasks=[toys.task(0)]
    )
    assert [len(groups[0].episodes), len(groups[0].demonstrations)] == [0, 1]
    (signal,) = stages["credit"](groups, None)
    assert signal.episode.demonstration
    assert signal.weights["imitation"].any()


def test_relift_imitates_what_waited() -> None:
    _, stages = build(find("relift"), {"objective.entropy_weight": 0.0})
    policy = toys.TablePolicy()
    groups = [asyncio.run(rollouts(stages, policy, purpose=IMITATE).group(stages["group_rollout"]))]
    where = toys.context(policy)
    lesson = toys.Lesson(stages, where, stages["credit"](groups, where))
    assert same(toys.gradient(lesson), toys.gradient(toys.lesson("sft", tasks=1)))


def test_relift_has_moments_for_each_kind_of_step() -> None:
    """Gradients of 1 (practice), -10 (imitation), 1: AdamW's second step of practice repeats the first. Where both
    share their moments, m = 0.9 (0.9 x 0.1 - 1) + 0.1 < 0 and v is 34 times as large: it would go the other way."""
    update = build(find("relift"), {"update.head_lr": 0.1, "update.max_norm": 0.0})[1]["update"]
    of = Learner(toys.TablePolicy(0, {"value": 1}), update)
    linear = objective(
        *(
            Term(row, lambda out, batch, k=k: k * out.heads["value"][:, 0], weight=row)
            for row, k in (("policy", 1.0), ("imitation", -10.0))
        ),
        value=1,
    )
    episode, on = example_answers((1.0, (2,))).episodes[0], np.array([0.0, 1.0], np.float32)
    steps = []
    for row in ("policy", "imitation", "policy"):
        before = of.policy.state_dict()["heads.value"]
        of.learn(linear, [Signal(episode, 0 * on, {row: on})], 0, 0.0)
        steps.append(float((of.policy.state_dict()["heads.value"] - before).sum()))
    assert steps == pytest.approx([-0.1, 0.1, -0.1], abs=1e-6)


def test_what_failed_is_imitated_at_the_next_step_and_then_practised() -> None:
    curriculum, imitations = Interleave(1), []
    for failed in (True, False, False):
        requests = curriculum.next(1, None)
        imitations.append(sum(r.purpose == IMITATE for r in requests))
        curriculum.observe([example_group([0.0, 0.0])] * failed, [], None)
    assert imitations == [0, 1, 0]


def test_tasks_wait_once_newest_first_and_survive_a_checkpoint() -> None:
    curriculum = Interleave(buffer_size=3)
    _, _, hopeless = groups_of("relift", tasks=[toys.task(i, never) for i in range(3)])
    _, _, easy = groups_of("relift", tasks=[toys.task(9, lambda a: Verdict(1.0, True))])
    for group in (
        hopeless[0],
        hopeless[0],
        hopeless[1],
        *easy,
        replace(hopeless[2], failed=hopeless[2].episodes[:1]),
    ):
        curriculum.observe([group], [], None)
    assert [t.key for t in curriculum.waiting] == [hopeless[1].task.key, hopeless[0].task.key]
    assert [r.task for r in curriculum.next(2, None)] == [None, None], "two are not three"
    curriculum.observe([hopeless[2]], [], None)
    again = Interleave(buffer_size=3)
    again.load_state_dict(curriculum.state_dict())
    assert [r.task for r in again.next(2, None)] == [g.task for g in hopeless[::-1]]
    assert again.waiting == []
    assert again.report() == {"waiting": 0.0}


def test_relift_alternates_in_a_run(tmp_path: Path) -> None:
    more = {
        "run__tasks_per_step": 6,
        "run__group_size": 1,
        "run__eval_problems": 0,
        "curriculum__buffer_size": 6,
    }
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
    lesson = toys.lesson("hpt", {"credit.gate": gate, "objective.entropy_weight": 0.7})
    without = toys.lesson("hpt", {"credit.gate": gate, "objective.entropy_weight": 0.0})
    batch = pack(lesson.signals)
    on = batch.weight("imitation" if gate > 0 else "policy") != 0
    loss = -0.7 * lesson.policy.outputs(batch, {"entropy"}).entropy[on].mean()
    parameters = [p for _, p in lesson.policy.parameters()]
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    assert same(toys.gradient(lesson) - toys.gradient(without), theirs)


# ---- ReFT and CARFT -----------------------------------------------------------------------------------------


def test_reft_without_kl_and_values_is_reinforce_with_a_clip() -> None:
    settings = {
        "group_rollout.warmup_share": 0,
        "reward.partial": 0,
        "credit.kl_weight": 0,
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
        "group_rollout.warmup_share": 0,
        "credit.kl_weight": 0.3,
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
    stages, policy, groups = groups_of("reft", {"group_rollout.warmup_share": 0})
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
    stages, policy, groups = groups_of("carft", {"group_rollout.warmup_share": 0.0}, tasks)
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
    lesson = toys.lesson("carft", {"group_rollout.warmup_share": 0.0})
    batch = pack(lesson.signals)
    out = lesson.policy.outputs(batch, lesson.objective.needs)
    embed = out.heads["embed"].detach().requires_grad_()
    (term,) = (t for t in actor_critic_and_contrast().terms if t.name == "contrast")
    term.total(replace(out, heads={**out.heads, "embed": embed}), batch)[0].backward()
    shown_rows, played = batch.weight("anchor") != 0, batch.weight("policy") != 0
    assert embed.grad[shown_rows].abs().sum() == 0
    assert embed.grad[played].abs().sum() > 0
