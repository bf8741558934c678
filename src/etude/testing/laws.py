"""The laws of a step, which hold for every recipe. Each is a function of a recipe that raises AssertionError, with a
sentence for the recipe's author, where it is broken. `tests/test_laws.py` runs them over the catalogue, `etude try`
over a user's recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import torch

from etude.assembly import build, resolved_stages
from etude.batch import Batch, pack
from etude.channels import agree, undeclared, written
from etude.errors import UserError
from etude.recipe import Recipe
from etude.testing import toys

Law = Callable[[Recipe], None]


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-6) -> bool:
    """Relative to the norm of `b`; a gradient and its negative are never close."""
    assert b.norm() > 0, "the gradient is zero, which proves nothing"
    return bool((a - b).norm() <= tolerance * b.norm())


def it_builds_and_explains_itself(recipe: Recipe) -> None:
    build(recipe)
    build(recipe, recipe.all_exam)
    assert recipe.idea.count(".") >= 2, "`idea` should explain the method in two or three sentences"
    assert recipe.equation, "`equation` is empty"


def cuts_do_not_change_the_gradient(recipe: Recipe) -> None:
    """Whatever the size of the micro-batches and the order of the tasks, on-policy and off."""
    for drift in (0.0, 0.2):
        made = toys.toy_batch(recipe, drift=drift)
        whole = toys.gradient(made)
        for size in (1, 37):
            assert close(toys.gradient(made, micro_tokens=size), whole), (
                "the gradient depends on how the step is cut into micro-batches: a loss must see one episode (or "
                "`unit`) at a time and leave averaging to its Mean"
            )
        keys = list(dict.fromkeys(s.episode.task.key for s in made.signals))
        turned = [s for key in keys[::-1] for s in made.signals if s.episode.task.key == key]
        assert close(toys.gradient(made, signals=turned), whole), (
            "the gradient depends on the order of the tasks in the batch"
        )


def the_gradient_is_that_of_the_terms(recipe: Recipe) -> None:
    """What a step accumulates is the gradient of sum_k coefficient_k x total_k / count_k, taken in one piece."""
    made = toys.toy_batch(recipe, drift=0.1)
    batch, objective = pack(made.signals, made.context.sampling), made.objective
    inputs = objective.corrupt(batch) if objective.corrupt else None
    out = made.policy.outputs(batch, objective.needs, inputs)
    loss = torch.zeros((), dtype=torch.float64)
    for term in objective.terms:
        if count := term.count(batch):
            loss = loss + term.coefficient * term.total(out, batch)[0] / count
    parameters = [p for _, p in made.policy.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = [
        torch.zeros(p.numel(), dtype=p.dtype) if g is None else g.flatten()
        for p, g in zip(parameters, found, strict=True)
    ]
    assert close(toys.gradient(made), torch.cat(flat)), (
        "the gradient of a step is not that of the sum of its terms, each divided by its own count"
    )


def no_gradient_off_the_mask(recipe: Recipe) -> None:
    """d loss / d log pi is 0 on every token whose weights are all 0, and is not 0 everywhere else. Of a loss of heads alone the
    same holds for their outputs."""
    made = toys.toy_batch(recipe, drift=0.1)
    batch = pack(made.signals)
    out = made.policy.outputs(batch, made.objective.needs)
    logp = out.logp.detach().requires_grad_()
    heads = {name: head.detach().requires_grad_() for name, head in out.heads.items()}
    total = sum(t.total(replace(out, logp=logp, heads=heads), batch)[0] for t in made.objective.terms)
    if not isinstance(total, torch.Tensor) or not total.requires_grad:
        return  # acts through other outputs than these
    gradient, *others = torch.autograd.grad(total, [logp, *heads.values()], allow_unused=True)
    if gradient is None:
        gradient = sum(g.abs().sum(1) for g in others if g is not None)
    weighted = torch.zeros(len(batch), dtype=torch.bool)
    for name in batch.weights:
        weighted |= batch.weight(name) != 0
    assert weighted.any(), "every weight is 0: nothing is trained on"
    assert (~weighted).any(), "every token is trained on, the prompts included"
    assert gradient[~weighted].abs().sum() == 0, "the loss acts on tokens whose weights are all 0"
    assert gradient[weighted].abs().sum() > 0, "the loss has no gradient on the tokens that have a weight"


def skipping_dead_weight_changes_nothing(recipe: Recipe) -> None:
    """Episodes without advantage may be left out of the forward pass where every term is `proportional`."""
    made = toys.toy_batch(recipe, tasks=6)
    skipped = toys.gradient(made)

    def keep(batch: Batch, objective: object) -> Batch:
        return batch

    with patch("etude.train.step.without_dead_weight", keep):
        assert close(skipped, toys.gradient(made)), (
            "a term is marked `proportional`, but episodes without advantage have a gradient"
        )


def a_step_goes_the_right_way(recipe: Recipe) -> None:
    """A small step against the gradient makes tokens with a positive advantage likelier than those with a negative
    one; where no term is proportional to the advantage, it makes the loss smaller."""
    made = toys.toy_batch(recipe)
    batch = pack(made.signals)
    whole = toys.gradient(made)
    by_advantage = any(term.proportional for term in made.objective.terms)

    def quality() -> float:
        out = made.policy.score(batch, made.objective.needs)
        if by_advantage:
            return float((batch.advantage * out.logp).sum())
        return -sum(
            t.coefficient * float(t.total(out, batch)[0]) / t.count(batch)
            for t in made.objective.terms
            if t.count(batch)
        )

    before = quality()
    with torch.no_grad():
        start = 0
        for _, parameter in made.policy.parameters():
            parameter -= 1e-3 * whole[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
    assert quality() > before, "a step makes what has a positive advantage less likely: look for a wrong sign"


def credit_and_objective_agree_on_their_rows(recipe: Recipe) -> None:
    """Every weight row and extra that is written is declared and read, and every one that is read is written."""
    changed, stages = build(recipe)
    credit = resolved_stages(changed)["credit"]
    try:
        agree(credit, stages["objective"], recipe.name)
    except UserError as error:
        raise AssertionError(str(error)) from None
    signals = toys.toy_batch(recipe).signals
    name = undeclared(credit, [replace(s, extras={}) for s in signals])
    assert name is None, f"credit writes the weight row '{name}' and does not declare it (`@writes`)"
    extras = {n for s in signals for n in s.extras} - stages["objective"].reads - written(credit).extras
    assert not extras, f"credit writes the extra '{min(extras)}' and does not declare it (`@writes`)"


STEP_LAWS: tuple[Law, ...] = (
    cuts_do_not_change_the_gradient,
    the_gradient_is_that_of_the_terms,
    no_gradient_off_the_mask,
    skipping_dead_weight_changes_nothing,
    a_step_goes_the_right_way,
)
LAWS: tuple[Law, ...] = (it_builds_and_explains_itself, *STEP_LAWS, credit_and_objective_agree_on_their_rows)
