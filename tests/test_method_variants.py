"""The objective family with the options that the defaults leave out: the laws, and what the losses report."""

import numpy as np
import pytest
import torch

import toys
from etude.assembly import build
from etude.batch import pack
from etude.fixtures.examples import example_group
from etude.methods import find
from etude.models.outputs import Outputs
from etude.objective.preference import PAIR
from etude.objective.terms import clipped_share
from etude.testing.laws import close
from etude.types import Signal
from formulas import prepared

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


def test_the_clip_cuts_off_what_goes_on_in_its_direction() -> None:
    ratio, sign = torch.tensor([1.3, 1.1, 0.7, 0.7, 0.9, 1.3]), torch.tensor([1.0, 1, 1, -1, -1, -1])
    assert clipped_share(ratio, sign, 0.2, 0.2).tolist() == [1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(("better", "worse", "preferred"), [(0.5, 0.75, 0), (1.5, 1.25, 1), (0.75, 0.5, 1)])
def test_the_share_of_preferred_pairs_is_reported_as_it_is(
    better: float, worse: float, preferred: int
) -> None:
    """Likelihoods against the reference of the chosen and of the rejected answer, whichever way both have moved."""
    signals = []
    for moved, sign in ((better, 1.0), (worse, -1.0)):
        episode = example_group([1.0], [2]).episodes[0]
        extras = {PAIR: np.ones(2, np.float32), "reference": np.array([0, -1 - np.log(moved)], np.float32)}
        signals.append(
            Signal(
                episode, np.array([0.0, sign], np.float32), {"policy": np.array([0, 1], np.float32)}, extras
            )
        )
    batch = pack(signals)
    (term,) = build(find("dpo"))[1]["objective"].terms
    _, found = term.loss(Outputs(batch.behaviour, torch.ones_like(batch.behaviour), {}), batch)
    assert found["preferred"].tolist() == [preferred] * len(batch)
