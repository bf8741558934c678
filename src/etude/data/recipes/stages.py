"""Mixtures that are trained on one after the other.

`dmt` (Dong et al., arXiv 2310.05492): first all specialised data, then general data with a small share k of the specialised replayed,
so that what the first stage taught is not forgotten. k = 0 is two plain stages; k = 1 without the first is multi-task training.

`stable_decay` (OctoThinker, arXiv 2506.20512): first much plain data at a constant learning rate, then a little data of the wanted form,
with a tenth of the plain data, while the rate decays.

`in_order` (Orca, arXiv 2306.02707; also any curriculum of files): the files as they are, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np

from etude import seeds
from etude.data.items import Item
from etude.data.recipe import MIX, DataRecipe
from etude.errors import UserError
from etude.recipe import Paper
from etude.settings import Setting, stage

Mixed = Callable[[Sequence[list[Item]], int], Mapping[str, list[Item]]]


def some(items: Sequence[Item], share: float, seed: int, *name: object) -> list[Item]:
    """A share of the items (one at least, where the share is above 0), in their order."""
    number = 0 if share == 0 else max(1, round(share * len(items)))
    chosen = seeds.generator(seed, "mix", *name).permutation(len(items))[:number]
    return [items[i] for i in np.sort(chosen)]


def shuffled(items: Sequence[Item], seed: int, *name: object) -> list[Item]:
    return [items[i] for i in seeds.generator(seed, "shuffle", *name).permutation(len(items))]


def _two(parts: Sequence[list[Item]], what: str) -> tuple[list[Item], list[Item]]:
    if len(parts) != 2:
        raise UserError(f"this mixture is of two files, {what}; {len(parts)} were named")
    return parts[0], parts[1]


Replay = Annotated[
    float, Setting("share of the first file that is replayed in the second stage", low=0, high=1)
]


def dmt(replay: Replay = 1 / 256) -> Mixed:
    """Stage 1: the first file, specialised. Stage 2: the second, general, with `replay` of the first, shuffled."""

    def mix(parts: Sequence[list[Item]], seed: int) -> Mapping[str, list[Item]]:
        special, general = _two(parts, "specialised and general")
        again = [i.noted(replayed=True) for i in some(special, replay, seed, "dmt")]
        return {"specialised": shuffled(special, seed, 1), "mixed": shuffled([*general, *again], seed, 2)}

    return mix


def stable_decay(
    plain: Annotated[
        float, Setting("share of the first file that stays in the second stage", low=0, high=1)
    ] = 0.1,
) -> Mixed:
    """Stage 1: the first file at a constant rate. Stage 2: the second with a share of the first, while the rate decays."""

    def mix(parts: Sequence[list[Item]], seed: int) -> Mapping[str, list[Item]]:
        stable, wanted = _two(parts, "plain and of the wanted form")
        kept = [i.noted(replayed=True) for i in some(stable, plain, seed, "decay")]
        return {"stable": shuffled(stable, seed, 1), "decay": shuffled([*wanted, *kept], seed, 2)}

    return mix


def in_order() -> Mixed:
    """The files, each a stage."""
    return lambda parts, seed: {f"stage{i}": shuffled(p, seed, i) for i, p in enumerate(parts, 1)}


RECIPES = (
    DataRecipe(
        name="dmt",
        verb=MIX,
        build=stage(dmt),
        paper=Paper(
            "How Abilities in Large Language Models are Affected by Supervised Fine-tuning Data Composition",
            "2310.05492",
            2023,
        ),
        idea="All specialised data first, then general data with a small share of the specialised replayed.",
    ),
    DataRecipe(
        name="stable_decay",
        verb=MIX,
        build=stage(stable_decay),
        paper=Paper(
            "OctoThinker: Mid-training Incentivizes Reinforcement Learning Scaling", "2506.20512", 2025
        ),
        idea="Plain data at a constant rate, then data of the wanted form while the rate decays; reinforcement learning afterwards.",
        training={"decay": {"update.decay": "cosine"}},
        departures=("the share of plain data in the second stage is a guess",),
    ),
    DataRecipe(
        name="in_order",
        verb=MIX,
        build=stage(in_order),
        paper=Paper(
            "Orca: Progressive Learning from Complex Explanation Traces of GPT-4", "2306.02707", 2023
        ),
        idea="Files one after the other: an intermediate teacher's data before a stronger one's, easy before hard.",
    ),
)
