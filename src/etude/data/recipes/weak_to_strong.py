"""Labels of a weak supervisor, and debates that help it to give them.

`weak_labels` labels pairs by one reward model or by several, whose probabilities are averaged: what `etude train weak_to_strong` learns
from. `debate` (Debate Helps Weak-to-Strong Generalization, arXiv 2501.13124) lets a strong model argue for either answer in turn; the
transcripts stand below the question, so that a weak reward model which reads them can judge more than it could by itself. Several
transcripts of one pair are several members of an ensemble. The strong model that learns from the labels sees the question alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np

from etude.data.items import Item, messages
from etude.data.recipe import CHOOSE, DataRecipe
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.recipe import Paper
from etude.reward.model import RewardModel
from etude.settings import Setting, stage
from etude.tasks.pairs import CHOSEN, REJECTED, STRENGTH
from etude.types import Array, Message

ASKED = "asked"  # column: the prompt without its transcript
SURE = 1e-6  # probabilities are kept this far from 0 and 1

SPEAK = (
    "Question:\n{question}\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}\n\n{before}You argue that answer {side} is the better one. Say why in a few "
    "sentences, and reply to what the other side has said."
)
HEARD = "{question}\n\nTwo debaters have argued about two answers.\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}\n\n{transcript}"


def sides(item: Item) -> tuple[str, str]:
    """The chosen and the rejected answer, texts. Raises UserError for an item that holds no such pair."""
    found = item.row.get(CHOSEN), item.row.get(REJECTED)
    if not all(isinstance(side, str) and side.strip() for side in found):
        raise UserError(
            f"the item '{item.prompt[:40]}' holds no pair; its '{CHOSEN}' and '{REJECTED}' must be text"
        )
    return str(found[0]), str(found[1])


def debate(
    speeches: Annotated[int, Setting("speeches of either side", low=1, high=16)] = 3,
    transcripts: Annotated[int, Setting("debates about each pair", low=1, high=64)] = 4,
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 1.0,
) -> Callable[[Workshop, Sequence[Item]], list[Item]]:
    """Every pair as often as there are transcripts, each below the question. Which answer is A is drawn."""

    def make(shop: Workshop, items: Sequence[Item]) -> list[Item]:
        rng = shop.random("sides")
        cases = [(item, k) for item in items[: shop.wanted] for k in range(transcripts)]
        shown = [sides(item)[:: 1 if rng.random() < 0.5 else -1] for item, _ in cases]
        said: list[list[str]] = [[] for _ in cases]
        for number in range(2 * speeches):
            side = "AB"[number % 2]
            prompts = []
            for (item, _), (a, b), before in zip(cases, shown, said, strict=True):
                talk = "".join(f"{line}\n\n" for line in before)
                text = SPEAK.format(question=item.prompt, a=a, b=b, before=talk, side=side)
                prompts.append([*messages(item)[:-1], Message("user", text)])
            replies = shop.said(prompts, f"speech {number}", temperature=temperature)
            for lines, reply in zip(said, replies, strict=True):
                lines.append(f"{side}: {reply.strip()}")
        made = []
        for (item, k), (a, b), lines in zip(cases, shown, said, strict=True):
            heard = HEARD.format(question=item.prompt, a=a, b=b, transcript="\n\n".join(lines))
            first = [{"role": m.role, "content": m.content} for m in messages(item)[:-1]]
            prompt = [*first, {"role": "user", "content": heard}] if first else heard
            if all(len(line) > 3 for line in lines):
                made.append(item.but(prompt=prompt, **{ASKED: item.row["prompt"]}).noted(transcript=k))
        shop.sieve.counts.append(("debates in which nobody was silent", len(cases), len(made)))
        return made

    return make


def chances(model: RewardModel, items: Sequence[Item]) -> Array:
    """f64[n]: P(the item's first answer is preferred), a mean over the members of an ensemble."""
    both = [model.members([(messages(i), sides(i)[k]) for i in items])[0] for k in (0, 1)]
    found: Array = (1 / (1 + np.exp(both[1] - both[0]))).mean(axis=1)
    return found


def weak_labels(
    models: Annotated[tuple[str, ...], Setting("reward models, joined by ;: directories or runs")] = (),
) -> Callable[[Workshop, Sequence[Item]], list[Item]]:
    """Each pair once, without its transcripts: what the models prefer is chosen, and their log-odds are its strength."""
    loaded = [RewardModel(name) for name in models]

    def label(shop: Workshop, items: Sequence[Item]) -> list[Item]:
        if not loaded:
            raise UserError("weak_labels needs a reward model: --set weak_labels.models=DIRECTORY")
        tried = list(items[: shop.wanted])
        p = np.mean([chances(model, tried) for model in loaded], axis=0)
        pairs: dict[tuple[str, str, str], list[int]] = {}
        for i, item in enumerate(tried):
            pairs.setdefault((str(item.row.get(ASKED, item.row["prompt"])), *sides(item)), []).append(i)
        made, agreed = [], 0
        for where in pairs.values():
            item, chance = tried[where[0]], float(np.clip(p[where].mean(), SURE, 1 - SURE))
            one, other = sides(item)
            agreed += chance >= 0.5
            row = {
                "prompt": item.row.get(ASKED, item.row["prompt"]),
                CHOSEN: one if chance >= 0.5 else other,
                REJECTED: other if chance >= 0.5 else one,
                STRENGTH: abs(float(np.log(chance / (1 - chance)))),
            }
            made.append(Item(row, {**item.came, "judgements": len(where) * len(loaded)}))
        shop.sieve.counts.append(("pairs", len(tried), len(made)))
        shop.sieve.counts.append(("of which as they were labelled before", len(made), agreed))
        return made

    return label


RECIPES = [
    DataRecipe(
        name="debate",
        verb=CHOOSE,
        build=stage(debate),
        paper=Paper("Debate Helps Weak-to-Strong Generalization", "2501.13124", 2025),
        idea="Two voices of a strong model argue for one answer each. A weak model that reads both judges better than it would alone.",
        departures=(
            "the two answers of a pair are argued for, where the paper has questions with two answers; which is A is drawn anew for each debate",
            "an ensemble is several debates about a pair, read by one reward model (or by several, to weak_labels); the paper trains one model "
            "for each debate",
            "wording of the requests: a guess",
        ),
    ),
    DataRecipe(
        name="weak_labels",
        verb=CHOOSE,
        build=stage(weak_labels),
        paper=Paper(
            "Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision",
            "2312.09390",
            2023,
        ),
        idea="Reward models label pairs, with how sure they are. What they prefer is chosen, right or wrong, for a stronger model to learn from.",
        departures=(
            "labels are log-odds of one pair; a file of transcripts is averaged over those of each pair",
        ),
    ),
]
