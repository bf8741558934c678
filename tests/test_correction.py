"""Importance weights for what another one sampled: exact where nothing differs, right where something does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worlds_of_letters as letters
from etude.batch import pack
from etude.fixtures.examples import example_episode
from etude.objective.policy import plain
from etude.report.run import RunDirectory
from etude.testing import toys
from etude.train.correction import NOTHING, corrected, importance
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Signal, Span

RECIPES = (
    "grpo",
    "ppo",
    "dpo",
    "cispo",
    "gspo",
    "reinforce",
    "rft",
    "carft",
    "nft",
    "score",
    "distill",
    "rec",
)


def said_by(signals: list[Signal], context: Any) -> list[Signal]:
    """The signals with the log-probabilities of the context's policy."""
    rows = context.rows(signals, lambda out: out.logp)
    done = []
    for s, row in zip(signals, rows, strict=True):
        spans, start = [], 0
        for span in s.episode.spans:
            part = row[start : start + len(span)].astype(np.float32)
            spans.append(replace(span, logp=part) if span.sampled else span)
            start += len(span)
        done.append(replace(s, episode=replace(s.episode, spans=tuple(spans))))
    return done


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["truncated", "masked"])
def test_nothing_changes_where_the_sampler_is_the_policy(recipe: str, kind: str) -> None:
    made = toys.toy_batch(recipe, drift=0.2)
    signals = said_by(made.signals, made.context)
    done, found = corrected(signals, made.context, kind, 2.0, 0)
    assert torch.equal(toys.gradient(made, signals=done), toys.gradient(made, signals=signals))
    if found:
        assert found == {"gap": 0.0, "kl_sampler": 0.0, "correction/weight": 1.0, "correction/cut": 0.0}


def one_token(policy: Any, drift: float) -> tuple[list[Signal], np.ndarray, np.ndarray, Any]:
    """An episode of one token for each that there is, weighted by the chance with which a drifted sampler draws it: a sum over
    them is an expectation. Returns the log-probabilities of policy and sampler too."""
    context = toys.context(policy)
    rng = np.random.default_rng(0)
    size = policy.size
    prompt = Span("user", np.array([3], np.int32))
    with torch.no_grad():
        logits = policy.logits(torch.tensor([3]), torch.tensor([1]))[0]
    logp = torch.log_softmax(logits, -1).numpy()
    noisy = torch.log_softmax(logits + drift * torch.from_numpy(rng.normal(size=size)), -1).numpy()
    signals = []
    for token in range(size):
        span = Span("assistant", np.array([token], np.int32), True, noisy[[token]].astype(np.float32))
        episode = replace(example_episode(1.0, [token]), spans=(prompt, span))
        row = np.array([0, np.exp(noisy[token])], np.float32)
        reward = float(token % 5 == 0)
        signals.append(Signal(episode, np.array([0, reward], np.float32), {"policy": row}))
    return signals, logp, noisy, context


def expected(policy: Any, context: Any, signals: list[Signal]) -> torch.Tensor:
    learner = context.learner
    found: torch.Tensor = learner.gradient(plain("sum"), pack(signals, context.sampling))
    return found


def test_a_drifted_samplers_bias_falls() -> None:
    """E_q[w A grad log pi] against E_pi[A grad log pi], both summed over all tokens."""
    policy = toys.TablePolicy(3)
    signals, logp, noisy, context = one_token(policy, 0.5)
    true = [
        replace(s, weights={"policy": s.weights["policy"] * np.exp(own - theirs)})
        for s, own, theirs in zip(signals, logp, noisy, strict=True)
    ]
    wanted, biased = expected(policy, context, true), expected(policy, context, signals)

    def bias(kind: str, bound: float) -> float:
        done, _ = corrected(signals, context, kind, bound, 0)
        return float((expected(policy, context, done) - wanted).norm() / (biased - wanted).norm())

    assert bias("truncated", 1e6) < 1e-5  # without a bound nothing is left of it
    assert 1e-3 < bias("truncated", 2.0) < 0.3
    assert bias("truncated", 2.0) < bias("truncated", 1.2) < 1
    assert bias("masked", 3.0) < 0.5


def test_masked_tokens_stay_in_the_denominator() -> None:
    policy = toys.TablePolicy(3)
    signals, logp, noisy, context = one_token(policy, 1.0)
    done, found = corrected(signals, context, "masked", 2.0, 0)
    outside = np.abs(logp - noisy) > np.log(2)
    assert found["correction/cut"] == pytest.approx(outside.mean(), abs=0.02)
    assert 0 < outside.sum() < len(signals)
    term = plain("sum").terms[0]
    assert term.count(pack(done)) == term.count(pack(signals))
    kept = [w for w, out in zip(done, outside, strict=True) if not out]
    assert torch.allclose(
        expected(policy, context, done) * len(done), expected(policy, context, kept) * len(kept), atol=1e-9
    )


def test_importance_by_hand() -> None:
    delta = np.log(np.array([0.25, 0.5, 1.0, 2.0, 4.0], np.float32))
    assert importance(delta, "truncated", 3.0) == pytest.approx([0.25, 0.5, 1, 2, 3])
    assert importance(delta, "masked", 3.0) == pytest.approx([NOTHING, 0.5, 1, 2, NOTHING], rel=1e-5)


def test_what_a_method_replays_or_hints_at_is_left_alone() -> None:
    policy = toys.TablePolicy(3)
    signals, _, _, context = one_token(policy, 0.5)
    first = signals[7]
    prompt, reply = first.episode.spans
    others = [
        replace(first, episode=replace(first.episode, policy_version=1)),  # older than asked for
        replace(first, episode=replace(first.episode, spans=(replace(prompt, hidden=True), reply))),
        replace(first, episode=replace(first.episode, player="demonstration")),
    ]
    done, found = corrected(others, context, "truncated", 2.0, 2)
    assert all(a is b for a, b in zip(done, others, strict=True))
    assert not found


def test_a_run_whose_sampler_is_exact_is_not_changed(tmp_path: Path) -> None:
    weights = []
    for kind in ("none", "truncated"):
        plan = letters.plan(tmp_path, "grpo", 2, run__correction=kind, run__eval_problems=0)
        run = start(plan, tmp_path / kind, letters.words())
        train(run)
        weights.append({n: t.clone() for n, t in run.learner.policy.state_dict()["weights"].items()})
        run.close()
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])
    last = RunDirectory.open(tmp_path / "truncated").metrics()[-1]
    assert last["correction/weight"] == 1
    assert last["gap"] == 0
    assert last["length/trained/p90"] <= last["length/sampled/p90"]
