"""Attempts read by a critic who quotes what is good and what is poor in them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.reward.spans import token_marks
from etude.rollout.probe import noting
from etude.settings import Setting
from etude.types import Episode, Task

Spans = tuple[list[str], list[str]]  # good and poor

ASK = (
    "{task}\n\nResponse:\n{response}\n\nCriticise the response. Quote its good and its poor passages word for word, "
    'as JSON: {{"good_spans": [...], "poor_spans": [...]}}'
)


def against_reference(task: Task, text: str, separator: str) -> Spans:
    """Steps that stand in the reference are good, up to the first that does not: that one is poor."""
    known = {step.strip() for step in (task.reference or task.answer or "").split(separator)}
    good: list[str] = []
    for step in filter(None, (s.strip() for s in text.split(separator))):
        if step not in known:
            return good, [step]
        good.append(step)
    return good, []


def read_critique(text: str) -> Spans:
    """The spans of a critique in JSON; none where it cannot be read."""
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
        good, poor = (
            [s for s in found.get(f"{k}_spans", []) if isinstance(s, str)] for k in ("good", "poor")
        )
    except (ValueError, AttributeError, TypeError):
        return [], []
    return good, poor


def criticised(
    critic: Annotated[
        str, Setting("the reference, or run.teacher (else the policy) asked", choices=("reference", "model"))
    ] = "reference",
    separator: Annotated[
        str, Setting("what separates the steps that are compared with the reference")
    ] = "\n",
    threshold: Annotated[
        float, Setting("likeness at which a quotation counts as found", low=0, high=1)
    ] = 0.7,
):
    """Attempts, with a mark of +1, 0 or -1 for each of their tokens (note `marks`)."""

    async def gather(table: Any) -> list[Episode]:
        renderer = table.voice.renderer

        async def spans_of(episode: Episode, text: str) -> Spans:
            if critic == "reference":
                return against_reference(table.task, text, separator or "\n")
            player = table.player(seeds.key("critic", episode.index), voice=table.voices.get("teacher"))
            player.user(ASK.format(task=table.task.prompt[-1].content, response=text))
            return read_critique(await player.reply(tag="critique"))

        async def look(episode: Episode) -> dict[str, Any]:
            said = episode.tokens[episode.sampled]
            spans = await spans_of(episode, renderer.decode(said))
            marks = np.zeros(len(episode.tokens), np.int64)
            marks[episode.sampled] = token_marks(renderer.tokenizer, said, *spans, threshold)
            return {"marks": marks.tolist()}

        return await noting(table, await table.plays(range(table.samples)), look)

    return gather
