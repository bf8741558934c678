"""What holds for every recipe: the laws of a step, the numbers worked by hand, the reductions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from etude.batch import pack
from etude.channels import agree, undeclared, written
from etude.methods import build, catalogue, resolved_stages
from etude.recipe import ByHand, Credited, OffPolicy, Reduction
from etude.testing import rows

NAMES = list(catalogue())
HAND = [(n, e) for n, r in catalogue().items() for e in r.examples if isinstance(e, ByHand)]
OFF = [(n, e) for n, r in catalogue().items() for e in r.examples if isinstance(e, OffPolicy)]
CREDITED = [(n, e) for n, r in catalogue().items() for e in r.examples if isinstance(e, Credited)]
REDUCED = [(n, e) for n, r in catalogue().items() for e in r.examples if isinstance(e, Reduction)]


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-6) -> bool:
    """Relative to the larger gradient; a gradient and its negative are never close."""
    assert b.norm() > 0, "a zero gradient proves nothing"
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.parametrize("name", NAMES)
def test_builds_with_a_page(name: str) -> None:
    recipe = catalogue()[name]
    build(recipe)
    assert recipe.idea.count(".") >= 2, "the idea in a few sentences"
    assert recipe.equation, "the equation"


@pytest.mark.parametrize(("name", "example"), HAND, ids=[f"{n}: {e.says}" for n, e in HAND])
def test_number_by_hand(name: str, example: ByHand) -> None:
    np.testing.assert_allclose(
        np.asarray(example.compute(), float), np.asarray(example.equals, float), atol=1e-5
    )


@pytest.mark.parametrize(("name", "example"), OFF, ids=[f"{n}: {e.says}" for n, e in OFF])
def test_off_policy_by_hand(name: str, example: OffPolicy) -> None:
    loss, gradient = rows.off_policy(catalogue()[name], example)
    np.testing.assert_allclose(loss, example.loss, atol=1e-5)
    np.testing.assert_allclose(gradient, example.gradient, atol=1e-5)


@pytest.mark.parametrize(("name", "example"), CREDITED, ids=[f"{n}: {e.says}" for n, e in CREDITED])
def test_credit_by_hand(name: str, example: Credited) -> None:
    found = rows.credited(catalogue()[name], example)
    assert [len(g) for g in found] == [len(g) for g in example.advantages]
    for mine, wanted in zip(found, example.advantages, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)


@pytest.mark.parametrize(("name", "example"), REDUCED, ids=[f"{n}: {e.says}" for n, e in REDUCED])
def test_reduction(name: str, example: Reduction) -> None:
    mine = toys.gradient(toys.lesson(name, dict(example.settings)))
    theirs = toys.gradient(toys.lesson(example.to, dict(example.to_settings)))
    assert close(mine, example.scale * theirs)
    assert not close(-mine, example.scale * theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("drift", [0.0, 0.2])
def test_cuts_do_not_change_the_gradient(name: str, drift: float) -> None:
    """Micro-batch sizes, the order of tasks, packed or one by one."""
    lesson = toys.lesson(name, drift=drift)
    whole = toys.gradient(lesson)
    assert close(toys.gradient(lesson, micro_tokens=1), whole)
    assert close(toys.gradient(lesson, micro_tokens=37), whole)
    keys = list(dict.fromkeys(s.episode.task.key for s in lesson.signals))
    turned = [s for key in keys[::-1] for s in lesson.signals if s.episode.task.key == key]
    assert close(toys.gradient(lesson, signals=turned), whole)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_off_the_mask(name: str) -> None:
    lesson = toys.lesson(name, drift=0.1)
    batch = pack(lesson.signals)
    out = lesson.policy.outputs(batch, lesson.objective.needs)
    logp = out.logp.detach().requires_grad_()
    total = sum(t.total(replace(out, logp=logp), batch)[0] for t in lesson.objective.terms)
    if not isinstance(total, torch.Tensor) or not total.requires_grad:
        pytest.skip("this objective acts through other outputs than the log-probability")
    total.backward()
    weighted = torch.zeros(len(batch), dtype=torch.bool)
    for name_ in batch.weights:
        weighted |= batch.weight(name_) != 0
    assert weighted.any()
    assert (~weighted).any()
    assert logp.grad[~weighted].abs().sum() == 0
    assert logp.grad[weighted].abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_skipping_dead_weight_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = toys.lesson(name, tasks=6)
    skipped = toys.gradient(lesson)
    monkeypatch.setattr("etude.train.step.without_dead_weight", lambda batch, objective: batch)
    assert close(skipped, toys.gradient(lesson))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_goes_the_right_way(name: str) -> None:
    """Against the gradient, what was praised gets likelier; a loss that praises nothing gets smaller."""
    lesson = toys.lesson(name)
    batch = pack(lesson.signals)
    whole = toys.gradient(lesson)
    judged = any(term.proportional for term in lesson.objective.terms)

    def good() -> float:
        out = lesson.policy.score(batch, lesson.objective.needs)
        if judged:
            return float((batch.advantage * out.logp).sum())
        return -sum(
            t.coefficient * float(t.total(out, batch)[0]) / t.count(batch)
            for t in lesson.objective.terms
            if t.count(batch)
        )

    before = good()
    with torch.no_grad():
        start = 0
        for _, parameter in lesson.policy.parameters():
            parameter -= 1e-3 * whole[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
    assert good() > before


@pytest.mark.parametrize("name", NAMES)
def test_credit_and_objective_agree_on_their_rows(name: str) -> None:
    recipe, stages = build(catalogue()[name])
    credit = resolved_stages(recipe)["credit"]
    agree(credit, stages["objective"], name)
    assert undeclared(credit, [replace(s, extras={}) for s in toys.lesson(name).signals]) is None
    assert (
        written(credit).extras
        >= {n for s in toys.lesson(name).signals for n in s.extras} - stages["objective"].reads
    )
