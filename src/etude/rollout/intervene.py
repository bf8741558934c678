"""Correcting a failed attempt where it first went wrong, and seeing whether that saves it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Annotated, Any

from etude.rollout.player import Player
from etude.rollout.probe import Separator, continued, room, said, steps_of
from etude.settings import Setting
from etude.types import Episode, Task

INTERVENTION = 1 << 21  # the seat of whoever corrects an attempt

Proposal = tuple[int, str]  # the first wrong step, counted from 0, and what should stand there

ASK = (
    "{task}\n\nA solution that is right:\n{reference}\n\nAn attempt that failed, step by step:\n{steps}\n\n"
    "Check it step by step. Name the first wrong step and write the one step that should stand in its place, "
    "without giving the final answer away, as 'NUMBER: STEP'."
)


def read_proposal(text: str, steps: int) -> Proposal | None:
    """'NUMBER: STEP', the last such line; steps are counted from 1 in words."""
    found = re.findall(r"^\W*(?:step\s*)?(\d+)\s*[:.)]\s*(\S.*)$", text, re.IGNORECASE | re.MULTILINE)
    number, words = found[-1] if found else ("0", "")
    return (int(number) - 1, words.strip()) if 1 <= int(number) <= steps else None


def first_departure(steps: Sequence[str], reference: Sequence[str]) -> Proposal | None:
    """The first step that is not the reference's, and the reference's own."""
    pairs = zip_longest((s.strip() for s in steps), (s.strip() for s in reference), fillvalue="")
    wrong = ((i, right) for i, (mine, right) in enumerate(pairs) if mine != right and i < len(steps))
    return next(((i, right) for i, right in wrong if right), None)


def reveals(words: str, answer: str | None) -> bool:
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer or '')}(?!\w)", words) is not None


def intervening(
    until: Annotated[float, Setting("share of the run in which interventions are made", low=0, high=1)] = 0.5,
    proposer: Annotated[
        str,
        Setting(
            "who finds the wrong step: the policy, or its comparison with the reference",
            choices=("self", "reference"),
        ),
    ] = "self",
    separator: Separator = "\n",
    continuations: Annotated[int, Setting("continuations, one of which must be right", low=1)] = 8,
    suffix: Annotated[bool, Setting("keep the right continuation as well")] = False,
):
    """Attempts; where all are wrong, also the first of them up to its first wrong step, with that step replaced
    (an episode that nobody played; tags "intervention" and, if kept, "probe")."""

    async def gather(table: Any) -> list[Episode]:
        episodes = await table.plays(range(table.samples))
        hard = not any(e.correct or e.failure for e in episodes)
        if not hard or table.progress >= until:
            return episodes
        wrong = episodes[0]

        async def intervene(task: Task, player: Player) -> list[Episode]:
            tokenizer = table.voice.renderer.tokenizer
            cuts, steps = steps_of(tokenizer, wrong, separator)
            proposal = await propose(table, player, steps, proposer, separator)
            if proposal is None or reveals(proposal[1], task.answer):
                return []
            cut = cuts[proposal[0]]
            begun = table.take_up(wrong, cut, INTERVENTION)
            begun.prefill(tokenizer.encode(proposal[1] + separator), tag="intervention")
            tried = await continued(begun, continuations, max_tokens=room(table, wrong, cut))
            verdicts = await asyncio.gather(*(t.check(said(t)) for t in tried))
            right = [t for t, v in zip(tried, verdicts, strict=True) if v.correct][:1]
            return [
                replace((t if suffix else begun).done(), player="demonstration", verdicts=tuple(t.verdicts))
                for t in right
            ]

        return [*episodes, *await table.play(INTERVENTION, intervene)]

    return gather


async def propose(
    table: Any, player: Player, steps: Sequence[str], proposer: str, separator: str
) -> Proposal | None:
    task = table.task
    reference = task.reference or task.answer
    if proposer == "reference":
        return first_departure(steps, reference.split(separator) if separator else list(reference))
    listed = "\n".join(f"{i}: {step.strip()}" for i, step in enumerate(steps, 1))
    player.user(ASK.format(task=task.prompt[-1].content, reference=reference, steps=listed))
    return read_proposal(await player.reply(tag="proposal"), len(steps))
