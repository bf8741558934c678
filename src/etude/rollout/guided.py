"""Attempts that are helped: a second round with a hint where the first one failed, or a teacher's words written into the
policy's own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.rollout.attempts import reworded
from etude.rollout.player import Player
from etude.rollout.speakers import Address, Longest, Speaker, Who
from etude.rollout.table import Gather, Table
from etude.settings import Setting
from etude.types import Episode, Message, Task

GUIDANCE = "guidance"
ASK = (
    "{question}\n\nA student's answer:\n{answer}\n\nGo on in the student's own voice. {style} "
    "Say whether the answer is right and why, then lead on to the right answer."
)
STYLES = {
    "self-conflict": "Doubt it: 'Wait, that cannot be, because ...'",
    "self-agreement": "Confirm what holds: 'Yes, this fits, since ...'",
    "self-critic": "Criticise it step by step: 'Let me check. The first step ...'",
    "self-consultation": "Ask and answer yourself: 'What if I try it another way? ...'",
}


def hinted(number: int) -> Callable[[Task, Player], Awaitable[Episode]]:
    """One answer to the prompt with hint `number` (from 1, the vaguest) below it; training sees the prompt."""

    async def rollout(task: Task, player: Player) -> Episode:
        *before, last = task.prompt
        hint = task.hints[min(number, len(task.hints)) - 1]
        player.user((*before, Message(last.role, f"{last.content}\n\nHint: {hint}")), instead=task.prompt)
        await player.check(await player.reply())
        return player.done(guided=True)

    return rollout


def after_failure(
    hint: Annotated[int, Setting("which of the task's hints, from 1, the vaguest", low=1)] = 1,
    attempts: Annotated[float, Setting("guided attempts per failed one; 0: never", low=0, high=8)] = 1.0,
) -> Gather:
    """Every player on its own; where all of them are wrong, as many again with a hint
    (Guide, arXiv 2506.13923)."""

    async def gather(table: Table) -> list[Episode]:
        first = await table.plays(range(table.samples))
        if any(e.correct for e in first):
            return first
        seats = range(table.samples, table.samples + round(attempts * table.samples))
        return first + await table.plays(seats, hinted(hint))

    return gather


def share_at(progress: float, begin: float, end: float, until: float, cut: float) -> float:
    """Linear from `begin` to `end` over the first `until` of the run; 0 from where it falls below `cut`."""
    part = min(1.0, progress / until) if until else 1.0
    share = begin + (end - begin) * part
    return share if share >= cut and part < 1 else 0.0


class Guided:
    """Every player on its own; a share of the answers, drawn by key, is continued by the teacher inside the same
    turn (span "guidance") before it is judged as a whole (ThinkTuning, arXiv 2508.07616)."""

    def __init__(
        self,
        begin: Annotated[float, Setting("share of answers that are guided at first", low=0, high=1)] = 0.1,
        end: Annotated[float, Setting("share towards which it falls", low=0, high=1)] = 0.01,
        until: Annotated[float, Setting("share of the run over which it falls", low=0, high=1)] = 1 / 3,
        cut: Annotated[float, Setting("share below which nobody is guided any more", low=0, high=1)] = 0.05,
        teacher: Who = "start",
        goes_on: Annotated[bool, Setting("the student writes on after the teacher")] = False,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.speaker = Speaker(teacher, address, longest)
        self.reads, self.goes_on = self.speaker.reads, goes_on
        self.begin, self.end, self.until, self.cut = begin, end, until, cut

    async def __call__(self, table: Any) -> list[Episode]:
        share = share_at(table.progress, self.begin, self.end, self.until, self.cut)
        drawn = [seeds.key(table.key, "guided", i) / 2**63 < share for i in range(table.samples)]
        jobs = [table.play(i, self.guided if yes else None) for i, yes in enumerate(drawn)]
        return [e for found in await asyncio.gather(*jobs) for e in found]

    async def guided(self, task: Task, player: Player) -> Episode:
        """An answer, the teacher's words after it, and one verdict on both."""
        player.user(task.prompt)
        answer = await player.reply()
        style = list(STYLES.values())[seeds.key(player.key, "style") % len(STYLES)]
        asked = reworded(
            task.prompt, ASK.format(question=task.prompt[-1].content, answer=answer, style=style)
        )
        words = await self.speaker.words(player, asked, greedy=True)
        renderer = player.voice.renderer
        last = player.spans[-1]
        if player.stop == "end" and last.logp is not None:  # the turn goes on
            player.spans[-1] = replace(last, tokens=last.tokens[:-1], logp=last.logp[:-1])
        tokens = renderer.tokenizer.encode("\n" + words)
        if not self.goes_on:
            tokens = np.append(tokens, renderer.stops[:1]).astype(np.int32)
        player.prefill(tokens, tag=GUIDANCE)
        more = await player.reply() if self.goes_on else ""
        player.stop = "end" if not self.goes_on else player.stop
        await player.check(f"{answer}\n{words}{more}")
        return player.done()
