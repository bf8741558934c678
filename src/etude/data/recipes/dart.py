"""DART: hard questions get more answers. Rejection sampling until each question has its share of right ones.

DART-Math (Tong et al., arXiv 2407.13690). With d_i the fail rate of question i, samples are drawn until n_i right answers are there:

    uniform:  n_i = k      proportional to difficulty:  n_i = max(1, ceil(k d_i / max_j d_j))

Plain rejection sampling (`vrt`) draws equally often and keeps all right answers, so easy questions get most of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Annotated

from etude.data.filters import answered, different
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.recipe import Paper
from etude.settings import Setting, stage

How = Annotated[
    str, Setting("how many right answers a question is to have", choices=("difficulty", "uniform", "vrt"))
]


def wanted(how: str, k: int, fails: list[float]) -> list[int]:
    """n_i of every question; for "vrt" there is no target (0)."""
    if how == "vrt":
        return [0] * len(fails)
    hardest = max(fails, default=0.0)
    return [k if how == "uniform" or hardest == 0 else max(1, ceil(k * d / hardest)) for d in fails]


def dart(
    how: How = "difficulty",
    k: Annotated[int, Setting("right answers that the hardest question is to have", low=1, high=10_000)] = 4,
    probe: Annotated[int, Setting("answers by which difficulty is known", "answers", low=1, high=10_000)] = 8,
    trials: Annotated[int, Setting("most answers drawn for a question", "answers", low=1, high=100_000)] = 64,
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 1.0,
) -> Callable[[Workshop], list[Item]]:
    """Answers of the policy that its tasks' checks accept. `wanted` of the workshop is the number of questions."""

    def make(shop: Workshop) -> list[Item]:
        tasks = shop.drawn(shop.wanted)
        drawn = shop.attempts(tasks, probe, temperature=temperature)
        fails = [1 - sum(e.correct for e in mine) / max(1, len(mine)) for mine in drawn]
        targets = wanted(how, k, fails)
        rights = [[e.text for e in mine if e.correct] for mine in drawn]
        spent = [len(mine) for mine in drawn]
        for again in range(1, trials):
            short = [i for i, n in enumerate(targets) if len(set(rights[i])) < n and spent[i] < trials]
            if not short:
                break
            more = shop.attempts(
                [tasks[i] for i in short], min(probe, trials), again, temperature=temperature
            )
            for i, mine in zip(short, more, strict=True):
                spent[i] += max(1, len(mine))
                rights[i] += [e.text for e in mine if e.correct]
        items = []
        for i, task in enumerate(tasks):
            base = of_task(task, shop.spec).noted(
                writer=shop.scribe("policy").name, fail_rate=round(fails[i], 4), samples=spent[i]
            )
            chosen = list(dict.fromkeys(rights[i]))
            items += [base.but(reference=text) for text in (chosen[: targets[i]] if targets[i] else chosen)]
        shop.sieve.items = items
        shop.sieve.counts.append(
            (
                "answers that the check accepts, to the number that each question is to have",
                sum(spent),
                len(items),
            )
        )
        return (
            shop.sieve.through("empty ones", answered)
            .through("the same answer to the same question", different)
            .items
        )

    return make


RECIPE = DataRecipe(
    name="dart",
    verb=MAKE,
    build=stage(dart),
    paper=Paper(
        "DART-Math: Difficulty-Aware Rejection Tuning for Mathematical Problem-Solving", "2407.13690", 2024
    ),
    idea="The model answers each question until it has as many right answers as the question is hard. So hard questions, which plain "
    "rejection sampling loses, make up most of the data.",
    departures=(
        "answers in the same words are kept once, which the paper does not say",
        "difficulty is known from the first answers, which count as samples",
    ),
    needs=("policy", "answers"),
)
