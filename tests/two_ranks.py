"""What a recipe does with its models, done twice: by a process alone and by two ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from etude import seeds
from etude.assembly import build
from etude.batch import pack
from etude.methods import find
from etude.models.policy import Policy
from etude.scale import mirrored
from etude.scale.ranks import Ranks
from etude.testing import toys
from etude.testing.laws import close
from etude.train.context import RunContext
from etude.train.sharded import ShardedLearner
from etude.train.step import Learner
from etude.types import Group, SamplingParams, Signal, Span

MICRO = 40  # tokens a piece: several pieces for each rank, and not the same number
STEPS = 3


@contextmanager
def two_ranks(deadline: float = 600.0) -> Iterator[Ranks]:
    ranks = Ranks(2, deadline=deadline)
    ranks.start()
    try:
        yield ranks
    finally:
        ranks.close()


@dataclass
class Side:
    """The models of one side, and the stages that are used with them."""

    context: RunContext
    stages: dict[str, Any]

    @property
    def learner(self) -> Learner:
        return self.context.learner

    def weights(self) -> dict[str, torch.Tensor]:
        """Of the policy and of all models that are trained beside it."""
        found: dict[str, torch.Tensor] = {}
        for name, part in {"policy": self.learner, **self.context.auxiliary}.items():
            policy = getattr(part, "policy", part)
            found |= {f"{name}.{n}": t.clone() for n, t in policy.state_dict()["weights"].items()}
        return found


def side(recipe: str, model: str, teacher: str, ranks: Ranks | None, device: str = "cpu") -> Side:
    """The recipe's models and stages: of this process, or shared by ranks."""
    found, stages = build(find(recipe), {"update.lr": "1e-3"})
    learns = Learner if ranks is None else ShardedLearner

    def read(name: str, where: str, **how: Any) -> Policy:
        common = {"precision": "fp32", "backbone": "transformers", "device": device, **how}
        if ranks is None:
            return Policy.load(where, **common)
        return mirrored.load(ranks, name, where, **common)

    def learner(policy: Policy, update: Any, name: str) -> Learner:
        return learns(policy, update, name, 0, MICRO, SamplingParams(max_tokens=6))

    policy = read("policy", model, heads=dict(stages["objective"].heads))
    others: dict[str, Any] = {"reference": policy.clone(frozen=True), "teacher": read("teacher", teacher)}
    for name, own in found.all_auxiliary.items():
        if own.source == "copy":
            update = type(stages["update"])(lr=own.lr * stages["update"].lr)
            others[name] = learner(read(name, model, heads=dict(own.heads)), update, name)
    main = learner(policy, stages["update"], "policy")
    context = RunContext(0, None, main, SamplingParams(max_tokens=6), others)
    return Side(context, stages)


def attempts(recipe: str) -> list[Group]:
    """What the recipe would train on, of toys, with log-probabilities near those of nobody in particular."""
    found, stages = build(find(recipe))
    table = toys.TablePolicy(0, dict(stages["objective"].heads))
    where = toys.context(table, auxiliary=found.all_auxiliary)
    size = found.all_defaults.get("group_size", 4)
    problems = [toys.task(i) for i in range(4)]
    groups = toys.play(stages, table, problems, size, None, where.auxiliary)
    kept: list[Group] = stages["filter"](groups, where)
    return kept


def near(groups: list[Group], of: Side) -> list[Group]:
    """The same with log-probabilities close to the model's own: as sampled by it some steps ago."""
    episodes = [e for g in groups for e in g.episodes]
    signals = [Signal(e, np.zeros(len(e.tokens), np.float32)) for e in episodes]
    rows = iter(of.context.rows(signals, lambda out: out.logp))

    def moved(episode: Any) -> Any:
        row, spans, start = next(rows), [], 0
        for number, span in enumerate(episode.spans):
            part = row[start : start + len(span)]
            start += len(span)
            spans.append(shifted(span, part, number) if span.sampled else span)
        return replace(episode, spans=tuple(spans))

    return [replace(g, episodes=tuple(moved(e) for e in g.episodes)) for g in groups]


def shifted(span: Span, logp: np.ndarray, number: int) -> Span:
    noise = seeds.generator("drift", number, len(span)).normal(0, 0.1, len(span))
    return replace(span, logp=np.minimum(logp + noise, -1e-3).astype(np.float32))


def same_as_alone(recipe: str, model: str, teacher: str, ranks: Ranks, device: str = "cpu") -> None:
    """Credit, gradient and three steps of AdamW by two ranks are those of a process alone."""
    one, two = (side(recipe, model, teacher, r, device) for r in (None, ranks))
    groups = near(attempts(recipe), one)
    one.learner.policy.meter.scored = 0
    signals = []
    for of in (one, two):
        found = of.context.completed(of.stages["credit"](groups, of.context), of.stages["objective"].reads)
        signals.append(found)
        assert found
    for a, b in zip(*signals, strict=True):
        for name, row in {"advantage": a.advantage, **a.weights, **a.extras}.items():
            other = {"advantage": b.advantage, **b.weights, **b.extras}[name]
            assert np.allclose(row, other, atol=1e-4, rtol=1e-4), f"credit writes another row '{name}'"
    objective, batch = one.stages["objective"], pack(signals[0], one.context.sampling)
    whole, added = (of.learner.gradient(objective, batch).cpu() for of in (one, two))
    assert close(added, whole, 1e-6), f"{float((added - whole).norm() / whole.norm()):.1e}"
    for wrong in (-whole, whole / 2):  # as a sign turned, or as ranks that average
        assert not close(added, wrong, 1e-3)
    for step in range(STEPS):
        told = [of.learner.learn(of.stages["objective"], signals[0], step, 0.0) for of in (one, two)]
        assert told[0].keys() == told[1].keys()
        for name, value in told[0].items():
            assert told[1][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
        assert told[0]["grad_norm"] == pytest.approx(told[1]["grad_norm"], rel=1e-5)
    ours, theirs = one.weights(), two.weights()
    assert ours.keys() == theirs.keys()
    assert max(float((ours[n].cpu() - theirs[n]).abs().max()) for n in ours) < 1e-5
    meters = [of.learner.policy.meter.state_dict() for of in (one, two)]
    assert meters[0] == meters[1]
    ranks.everywhere(forget)


def forget(held: Any) -> None:
    held.policies.clear(), held.learners.clear(), held.origins.clear()
