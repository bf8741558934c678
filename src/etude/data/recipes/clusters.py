"""Iterative cluster resampling: a diverse choice that goes on where the model is still bad.

Diversify and Conquer (Yu et al., arXiv 2409.11378). Items are embedded and clustered by k-means; the budget is spent in R rounds. The
first takes equally many of every cluster; after each the model is trained on what was chosen, and clusters are weighed by how badly it
does on their last choice,

    w_c  proportional to  w_c (before) x mean perplexity of the items just chosen of c,

and the next round draws clusters from w. One round is a stratified random choice; one cluster, a random one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np

from etude.credit.imitate import imitate, tagged
from etude.data.embedding import clustered, embedded
from etude.data.items import Item, messages
from etude.data.recipe import CHOOSE, DataRecipe
from etude.data.workshop import Workshop, losses
from etude.models.policy import Policy
from etude.objective.imitation import cross_entropy
from etude.recipe import Paper
from etude.rollout.demonstrate import DEMONSTRATED, solution
from etude.settings import Setting, stage
from etude.train.step import Learner
from etude.types import Array, Episode, Task, Verdict
from etude.update import Update


def _never(answer: str) -> Verdict:
    return Verdict(0.0, False)


def read_by(policy: Policy, item: Item) -> Episode:
    """An item as the model reads it: what is asked and what is answered."""
    return solution(Task(tuple(messages(item)), _never, reference=item.text), policy.renderer)


def trained(policy: Policy, items: Sequence[Item], steps: int, batch: int, lr: float, seed: int) -> None:
    """Imitation of what was chosen, in keyed permutations."""
    signals = []
    for item in items:
        episode = read_by(policy, item)
        signals.append(imitate(episode, tagged(episode, DEMONSTRATED)))
    learner, rng = Learner(policy, Update(lr=lr), "choosing", seed), np.random.default_rng(seed)
    for step in range(steps):
        some = rng.permutation(len(signals))[:batch]
        learner.learn(cross_entropy(), [signals[i] for i in some], step, step / steps)


def shares(number: int, weights: Array, left: Sequence[int], rng: np.random.Generator) -> list[int]:
    """How many items each cluster gives: `number` draws of clusters from `weights`, none more than it has left."""
    found = np.zeros(len(left), int)
    open_weights = np.where(np.array(left) > 0, weights, 0.0)
    for _ in range(min(number, int(sum(left)))):
        choice = int(rng.choice(len(left), p=open_weights / open_weights.sum()))
        found[choice] += 1
        if found[choice] == left[choice]:
            open_weights[choice] = 0.0
    return [int(n) for n in found]


def reweighed(weights: Array, perplexity: dict[int, float]) -> Array:
    """w_c x mean perplexity of its last choice, renormalised; clusters of which nothing was chosen keep their weight relative to the
    mean."""
    middle = float(np.mean(list(perplexity.values())))
    factors = np.array([perplexity.get(c, middle) for c in range(len(weights))])
    found = weights * factors
    return np.asarray(found / found.sum())


def clusters(
    number: Annotated[int, Setting("clusters", low=1, high=100_000)] = 8,
    rounds: Annotated[int, Setting("rounds in which the budget is spent", low=1, high=100)] = 3,
    steps: Annotated[int, Setting("updates of training after a round", low=1, high=100_000)] = 10,
    batch: Annotated[int, Setting("items an update", low=1, high=10_000)] = 16,
    lr: Annotated[float, Setting("learning rate of that training", low=0, high=1)] = 1e-5,
) -> Callable[[Workshop, list[Item]], list[Item]]:
    """The workshop's `wanted` items, of a file."""

    def choose(shop: Workshop, items: list[Item]) -> list[Item]:
        rng = shop.random("clusters")
        centres, labels = clustered(embedded(shop.own, [read_by(shop.own, i) for i in items]), number, rng)
        k = len(centres)
        left = [[int(i) for i in rng.permutation(np.flatnonzero(labels == c))] for c in range(k)]
        weights = np.full(k, 1 / k)
        policy = shop.own.clone(frozen=False) if rounds > 1 else shop.own
        chosen: list[Item] = []
        for turn in range(rounds):
            budget = shop.wanted * (turn + 1) // rounds - len(chosen)
            sizes = [len(mine) for mine in left]
            take = _even(budget, sizes) if turn == 0 else shares(budget, weights, sizes, rng)
            new: dict[int, list[Item]] = {}
            for c, n in enumerate(take):
                mine, left[c] = left[c][:n], left[c][n:]
                if mine:
                    new[c] = [
                        items[i].noted(cluster=c, round=turn, weight=round(float(weights[c]), 5))
                        for i in mine
                    ]
            chosen += [item for some in new.values() for item in some]
            if turn + 1 < rounds and new:
                trained(policy, chosen, steps, batch, lr, seed=shop.seed + turn)
                lost = {c: losses(policy, some) for c, some in new.items()}
                perplexity = {
                    c: float(np.mean([np.exp(min(20.0, float(x.mean()))) for x in xs]))
                    for c, xs in lost.items()
                }
                weights = reweighed(weights, perplexity)
        shop.sieve.items = chosen
        told = ", ".join(f"{w:.3f}" for w in weights)
        shop.sieve.counts.append(
            (f"chosen from {k} clusters in {rounds} rounds (weights at last {told})", len(items), len(chosen))
        )
        return chosen

    return choose


def _even(budget: int, sizes: Sequence[int]) -> list[int]:
    """Equally many of every cluster, as far as they reach."""
    take, left = [0] * len(sizes), budget
    while left > 0 and any(t < s for t, s in zip(take, sizes, strict=True)):
        for c, size in enumerate(sizes):
            if left and take[c] < size:
                take[c] += 1
                left -= 1
    return take


RECIPE = DataRecipe(
    name="clusters",
    verb=CHOOSE,
    build=stage(clusters),
    paper=Paper(
        "Diversify and Conquer: Diversity-Centric Data Selection with Iterative Refinement",
        "2409.11378",
        2024,
    ),
    idea="Items are clustered and chosen in rounds. After each round the model is trained on the choice so far, and clusters on which it is "
    "still bad give more to the next.",
    departures=(
        "items are embedded by the model's own hidden states, not by a service; the weight is by perplexity, the paper's variant without a "
        "reward model",
        "the released code divides the number of draws by the number of clusters, which looks like a slip and is not followed",
    ),
    needs=("policy",),
)
