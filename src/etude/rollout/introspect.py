"""Attempts in one conversation, the last of which is improved: the best of several, or another speaker's."""

from __future__ import annotations

import asyncio
from typing import Annotated

from etude.rollout.attempts import attempt, joined, nth
from etude.rollout.player import Player
from etude.rollout.speakers import Address, Longest, Speaker, Who
from etude.settings import Setting
from etude.types import Episode, Task

WRONG = "Your answer is not right. Try again."


class Introspect:
    """Attempts in one conversation until one is right. The last turn allowed is an improved one: the best of
    several tries of the policy's own, or one answer of another speaker's (RISE, arXiv 2407.18219)."""

    def __init__(
        self,
        turns: Annotated[int, Setting("attempts in all, the improved one among them", low=1, high=16)] = 2,
        candidates: Annotated[int, Setting("tries of which the best is kept", low=1)] = 16,
        improver: Who = "policy",
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.speaker = Speaker(improver, address, longest)
        self.reads, self.turns, self.candidates = self.speaker.reads, turns, candidates

    async def __call__(self, task: Task, player: Player) -> Episode:
        said = task.prompt
        for number in range(1, self.turns):
            verdict, _ = await attempt(player, said, number)
            if verdict.correct:
                return player.done()
            said = joined(WRONG, task.prompt)
        if self.speaker.who != "policy":
            text = await self.speaker.words(player, [*player.messages, *said])
            player.user(said)
            player.overhear(text, nth(self.turns))
            await player.check(text)
            return player.done()
        tries = [player, *(player.fork(k) for k in range(1, self.candidates))]
        verdicts = await asyncio.gather(*(attempt(t, said, self.turns) for t in tries))
        best = max(range(len(tries)), key=lambda k: (verdicts[k][0].reward, -k))
        return tries[best].done()
