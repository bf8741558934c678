"""AMFT and Prefix-RFT: the weight of imitation, and given prefixes."""

import asyncio
import math

import numpy as np
import pytest
import torch

import toys
from etude.batch import pack
from etude.credit.imitate import shown, tagged
from etude.credit.weigh import gradient
from etude.methods.imitation_and_rl.amft import scaled
from etude.methods.imitation_and_rl.prefix_rft import prefixed
from etude.objective.hybrid import imitation
from etude.objective.policy import plain
from etude.types import Group
from lessons import groups_of, rollouts, same

# ---- AMFT ----------------------------------------------------------------------------------------------------


def test_only_imitation_is_sft() -> None:
    settings = {
        "group_rollout.warmup_share": 0,
        "credit.mu_start": 1,
        "credit.mu_low": 1,
        "credit.mu_high": 1,
    }
    assert same(toys.gradient(toys.lesson("amft", settings)), toys.gradient(toys.lesson("sft")))


def amft(**settings):
    stages, policy, groups = groups_of(
        "amft", {"group_rollout.warmup_share": 0, **{f"credit.{k}": v for k, v in settings.items()}}
    )
    return stages["credit"], toys.context(policy), groups


@pytest.mark.parametrize("utility", ["imitation", "reward"])
def test_the_meta_gradient_is_the_slope_of_the_utility(utility: str) -> None:
    """d/dmu of -L_held after one look-ahead step, by finite differences."""
    credit, where, groups = amft(utility=utility, entropy_rate=0, mu_rate=1e-3, meta_every=1)
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
    credit, where, groups = amft(mu_rate=0, entropy_rate=0.01)
    credit(groups, where)
    seen = shown(groups)
    rows = where.rows(seen, lambda out: out.entropy, {"entropy"})
    target = np.concatenate([r[s.weights["imitation"] != 0] for r, s in zip(rows, seen, strict=True)]).mean()
    now = -np.concatenate([e.logp[e.sampled] for g in groups for e in g.episodes]).mean()
    assert credit.mu == pytest.approx(0.5 + 0.01 * (target - now), abs=1e-6)
    other, *_ = amft(mu_rate=0, entropy_rate=-0.01)
    other(groups, where)
    assert (other.mu - 0.5) * (credit.mu - 0.5) < 0, "the other reading"
    again, *_ = amft()
    again.load_state_dict(credit.state_dict())
    assert (again.mu, again.target, again.steps) == (credit.mu, credit.target, 1)


def test_mu_stays_in_its_bounds() -> None:
    credit, where, groups = amft(mu_rate=0, entropy_rate=1e6)
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
    given = [s for s in signals if tagged(s.episode, "prefix").any()]
    found = where.rows(given, lambda out: out.entropy, {"entropy"})
    every = np.sort(
        np.concatenate([r[tagged(s.episode, "prefix")] for s, r in zip(given, found, strict=True)])
    )
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
        trained = entropy >= every[-math.ceil(keep * len(every))] if keep else np.zeros(len(entropy), bool)
        assert np.allclose(signal.advantage[on], trained * (episode.reward - base))
        rest = episode.reward - (base if joined else 0.0)
        assert np.allclose(signal.advantage[episode.sampled], rest)
