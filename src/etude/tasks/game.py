"""Games of two players, told in words. A `Game` is one play of one; a `Match` makes it a task for one player, against a
scripted opponent, so that whatever learns from an environment can learn it. Rollouts with several seats
(`rollout.seats`) take both places themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from etude import seeds
from etude.errors import UserError, nearest
from etude.tasks.extract import extract
from etude.tasks.kind import feedback_text
from etude.types import Verdict

Returns = tuple[float, float]

ILLEGAL: Returns = (-1.5, 0.5)
"""What the player of a move that cannot be made gets, and what the other one gets (SPIRAL, arXiv 2506.24119)."""

LONGEST = 50
"""Turns after which a game is a draw."""


@runtime_checkable
class Game(Protocol):
    """One play of a game of two players, seats 0 and 1. Made by a picklable `(seed) -> Game`; `seed` decides the deal.

    It may also have `moves() -> list[str]`: replies that can be made now. Scripted opponents need it."""

    def turn(self) -> int | None:
        """The seat that moves now; None once the game is over."""
        ...

    def observe(self, seat: int) -> str:
        """All that this seat knows, and what it is asked for: enough to move without having heard what was said before."""
        ...

    def act(self, text: str) -> bool:
        """Makes the move that the reply `text` of the seat on turn names. False where that is no legal move; then
        nothing changes."""
        ...

    def returns(self) -> Returns:
        """What each seat wins, once the game is over; the two sum to 0."""
        ...


Player = Callable[[Any, int, np.random.Generator], str]
"""A scripted player: (game, its seat, randomness) -> a reply."""


def move_of(text: str) -> str:
    """The move that a reply names: what it marks as its answer, else its last line."""
    return (extract(text, "tag") or next((x for x in text.splitlines()[::-1] if x.strip()), "")).strip()


def said(move: str) -> str:
    """A reply that makes the move."""
    return f"<answer>{move}</answer>"


def random_player(game: Any, seat: int, rng: np.random.Generator) -> str:
    """Any legal move, each equally likely."""
    moves = game.moves()
    return str(moves[int(rng.integers(len(moves)))])


def first_player(game: Any, seat: int, rng: np.random.Generator) -> str:
    """Always the first of the legal moves."""
    return str(game.moves()[0])


PLAYERS: Mapping[str, Player] = {"random": random_player, "first": first_player}


def scripted(game: Any, name: str) -> Player:
    """A scripted player of a game, or of its class, by name: one of `PLAYERS`, or of those that the game itself knows (its
    `players`). Raises UserError."""
    known: dict[str, Player] = {**PLAYERS, **getattr(game, "players", {})}
    if name not in known:
        raise UserError(f"there is no opponent '{name}' for this game{nearest(name, known)}")
    if not hasattr(game, "moves"):
        raise UserError(
            f"this game does not tell its legal moves (`moves`), which the opponent '{name}' needs"
        )
    return known[name]


class LiveGame:
    """A game as it is played: a reply that is no legal move ends it, and so does its `LONGEST` turn."""

    def __init__(self, game: Game, longest: int = LONGEST) -> None:
        self.game, self.longest = game, longest
        self.turns = 0
        self.illegal: int | None = None  # the seat whose reply was no legal move

    @property
    def turn(self) -> int | None:
        """The seat that moves now; None once the game is over."""
        if self.illegal is not None or self.turns >= self.longest:
            return None
        return self.game.turn()

    def act(self, text: str) -> None:
        """Takes the reply of the seat on turn."""
        seat = self.turn
        if seat is None:
            raise RuntimeError("the game is over: begin a new one")
        self.turns += 1
        if not self.game.act(text):
            self.illegal = seat

    @property
    def returns(self) -> Returns:
        """What each seat wins. Raises RuntimeError while the game goes on."""
        if self.turn is not None:
            raise RuntimeError("the game is not over yet")
        if self.illegal is not None:
            own, other = ILLEGAL
            return (own, other) if self.illegal == 0 else (other, own)
        return self.game.returns() if self.game.turn() is None else (0.0, 0.0)

    def verdict(self, seat: int, most: float, feedback: str = "unary") -> Verdict:
        """The outcome for a seat as a verdict: won is right, and the reward is (1 + return / `most`) / 2, within [0, 1]."""
        own = self.returns[seat]
        result = "You won." if own > 0 else "You lost." if own < 0 else "It is a draw."
        if self.illegal == seat:
            result = "That is no legal move, so the game is lost."
        elif self.illegal is not None:
            result = "The other player made no legal move, so the game is won."
        full = f"{result} You get {own:g}, the other player {self.returns[1 - seat]:g}."
        told = feedback_text(feedback, "You did not win.", result, full) if own <= 0 else ""
        return Verdict(float(np.clip((1 + own / most) / 2, 0, 1)), own > 0, told)


@dataclass(frozen=True)
class Match:
    """Makes a fresh game from one deal (`seed`) for the player in `seat`, against `opponent`. `most`: the most that a
    seat can win. `shows`: the scripted player whose replies stand as the task's solution."""

    make: Callable[[int], Game]
    seed: int
    seat: int
    opponent: str = "random"
    shows: str = "random"
    most: float = 1.0
    feedback: str = "unary"
    may_lose: ClassVar[bool] = True  # the best play too

    def game(self) -> Game:
        """The game by itself, with both seats free."""
        return self.make(self.seed)

    def __call__(self, seed: int = 0) -> Opposed:
        """A new game; `seed` decides what a scripted opponent leaves to chance."""
        return Opposed(self, seed)


class Opposed:
    """One game against a scripted opponent: `etude.types.Environment`."""

    def __init__(self, match: Match, seed: int) -> None:
        self._match, self._seed = match, seed
        self._table = LiveGame(match.game())
        self._opponent = scripted(self._table.game, match.opponent)
        self._rng = seeds.generator(seed, "opponent", match.seed, match.seat)
        self._wait()

    def observe(self) -> str:
        """What the player's seat knows."""
        return self._table.game.observe(self._match.seat)

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Makes the player's move, then the opponent's."""
        self._table.act(text)
        self._wait()
        if self._table.turn is not None:
            return self.observe(), None
        verdict = self._table.verdict(self._match.seat, self._match.most, self._match.feedback)
        return "The game is over.", verdict

    def solve(self) -> list[str]:
        """The replies of the scripted player `shows` in this game, from its beginning."""
        again, own = Opposed(self._match, self._seed), scripted(self._table.game, self._match.shows)
        rng, replies = seeds.generator(self._seed, "shown", self._match.seed, self._match.seat), []
        while again._table.turn is not None:
            replies.append(said(own(again._table.game, self._match.seat, rng)))
            again.act(replies[-1])
        return replies

    def _wait(self) -> None:
        """Plays the opponent's turns."""
        while self._table.turn not in (None, self._match.seat):
            seat = 1 - self._match.seat
            self._table.act(said(self._opponent(self._table.game, seat, self._rng)))


def tally(returns: Sequence[float]) -> dict[str, float]:
    """Shares of games won, drawn and lost, and the mean return."""
    row = np.asarray(returns, float)
    found = {"won": row > 0, "drawn": row == 0, "lost": row < 0}
    return {**{k: float(v.mean()) for k, v in found.items()}, "return": float(row.mean())}
