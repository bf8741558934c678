"""Games played in several seats: the policy in both, or against a frozen self, a second model, or a scripted player. Each
seat hears only what it may know, and the policy's side of a game is an episode of its own, with the seat's own return."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

from etude import seeds
from etude.rollout.attempts import attempt, below
from etude.rollout.conversation import Conversation
from etude.rollout.writers import AUXILIARY
from etude.settings import Setting
from etude.tasks.game import LONGEST, LiveGame, Match, said, scripted
from etude.types import Episode, Task

SEAT, RETURN, ILLEGALLY = "seat", "return", "illegally"
"""Notes of one side of a game: its seat, what it won, and whether its own reply ended it because it was no legal move."""

MOVE = "move"
"""The tag of a reply in a game."""

SELF, RIVAL = "self", "rival"
"""Opponents: the policy itself, and an earlier one (`curriculum.league`)."""

MODELS = {**AUXILIARY, RIVAL: RIVAL}
"""The auxiliary model that an opponent is."""

Opponent = Annotated[
    str,
    Setting(
        "who sits opposite: self (the policy in both seats), start (its frozen start), teacher (run.teacher), rival (an "
        "earlier self), or a scripted player by name, such as random"
    ),
]
Longest = Annotated[int, Setting("turns after which a game is a draw", "turns", low=1)]


Mover = Callable[[LiveGame, int], Awaitable[str]]


class Seats:
    """Plays the game of a task (`Match`), one episode for each seat that the policy takes. A turn is a sequence of its own:
    the rules and all that its seat knows, then the reply. A task that is no game has one seat and is attempted once."""

    def __init__(self, opponent: Opponent = SELF, longest_game: Longest = LONGEST) -> None:
        self.opponent, self.longest = opponent, longest_game
        self.reads = frozenset({MODELS[opponent]} if opponent in MODELS else ())

    async def __call__(self, task: Task, conversation: Conversation) -> list[Episode]:
        match = task.environment
        if not isinstance(match, Match):
            verdict, _ = await attempt(conversation, task.prompt, 1, tag=MOVE)
            return [conversation.done(**{SEAT: 0, RETURN: verdict.reward, ILLEGALLY: False})]
        table = LiveGame(match.game(), self.longest)
        own = [0, 1] if self.opponent == SELF else [conversation.index % 2]
        talks = {seat: conversation.fork(seat) if len(own) > 1 else conversation for seat in own}
        other = self._other(task, conversation, match)
        while (seat := table.turn) is not None:
            if seat in talks:
                asked = below(task.prompt, table.game.observe(seat))
                begin = talks[seat].new_context if talks[seat].spans else talks[seat].user
                begin(asked)
                table.act(await talks[seat].reply(MOVE))
            else:
                table.act(await other(table, seat))
        return [
            self._ended(talks[seat], table, seat, match)
            for seat in own
            if any(s.sampled for s in talks[seat].spans)
        ]

    def _other(self, task: Task, conversation: Conversation, match: Match) -> Mover:
        """Who moves in the seat that is not the policy's."""
        if self.opponent in MODELS:
            model = conversation.generators[MODELS[self.opponent]]
            key = seeds.key(conversation.key, "opposite")

            async def speak(table: LiveGame, seat: int) -> str:
                asked = below(task.prompt, table.game.observe(seat))
                talk = Conversation(
                    task, model, conversation.check_runner, seeds.key(key, table.turns), conversation.index
                )
                talk.user(asked)
                return await talk.reply()

            return speak
        rng = seeds.generator(conversation.key, "opposite")

        async def scripted_move(table: LiveGame, seat: int) -> str:
            return said(scripted(table.game, self.opponent)(table.game, seat, rng))

        return scripted_move

    def _ended(self, talk: Conversation, table: LiveGame, seat: int, match: Match) -> Episode:
        talk.verdict(table.verdict(seat, match.most, match.feedback))
        notes = {SEAT: seat, RETURN: table.returns[seat], ILLEGALLY: table.illegal == seat}
        # Two seats of one game are two attempts at its task: numbered apart.
        return replace(talk.done(**notes), index=2 * talk.index + seat)
