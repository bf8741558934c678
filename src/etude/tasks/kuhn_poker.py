"""Kuhn poker (1950): three cards, one chip each in the pot, one bet. Small enough that its equilibrium is known and that
how much any way to play loses to its best answer can be computed exactly."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from etude.tasks.game import Player, Returns, move_of
from etude.tasks.games import made, params, refused
from etude.tasks.kind import Kind

CARDS = "JQK"
PASS, BET = "P", "B"
VALUE = -1 / 18
"""What seat 0 wins a game where both play as well as one can."""

MOVERS = {"": 0, "P": 1, "B": 1, "PB": 0}
"""{moves made: the seat on turn}; every other history is an end."""

Strategy = Mapping[tuple[str, str], float]
"""{(own card, moves made): probability of a bet}: 12 numbers, 6 for each seat."""

INFORMATION: Sequence[tuple[str, str]] = tuple((c, h) for h in MOVERS for c in CARDS)
DEALS = tuple(itertools.permutations(CARDS, 2))

RULES = (
    "Kuhn poker: there are three cards, J below Q below K, and each player has one and has put one chip into the pot. A move "
    "is P (pass) or B (bet one chip more). A player who passes after a bet loses the pot; otherwise the higher card wins it. "
    "Give your move as <answer>P</answer> or <answer>B</answer>."
)


def payoff(deal: Sequence[str], moves: str) -> float:
    """What seat 0 wins at the end `moves` of a game with these cards."""
    if moves in ("PBP", "BP"):
        return -1.0 if moves == "PBP" else 1.0
    high = 1.0 if CARDS.index(deal[0]) > CARDS.index(deal[1]) else -1.0
    return high * (2.0 if moves.endswith("BB") else 1.0)


class KuhnPoker:
    """One game: `etude.tasks.game.Game`. `seed` deals."""

    def __init__(self, seed: int = 0, deal: Sequence[str] | None = None) -> None:
        self.deal = deal or DEALS[seed % len(DEALS)]
        self.history = ""

    def turn(self) -> int | None:
        return MOVERS.get(self.history)

    def moves(self) -> list[str]:
        return [PASS, BET]

    def observe(self, seat: int) -> str:
        made = " ".join(self.history) or "none"
        return f"Your card: {self.deal[seat]}. Moves so far: {made}. Your move?"

    def act(self, text: str) -> bool:
        move = move_of(text).upper()
        if move not in (PASS, BET):
            return False
        self.history += move
        return True

    def returns(self) -> Returns:
        won = payoff(self.deal, self.history)
        return won, -won

    players: ClassVar[Mapping[str, Player]] = {
        "equilibrium": lambda game, seat, rng: _drawn(equilibrium(), game, seat, rng)
    }


def _drawn(strategy: Strategy, game: Any, seat: int, rng: np.random.Generator) -> str:
    return BET if rng.random() < strategy[game.deal[seat], game.history] else PASS


def equilibrium(alpha: float = 1 / 3) -> dict[tuple[str, str], float]:
    """A Nash equilibrium; there is one for every `alpha` in [0, 1/3], with which seat 0 bets the J."""
    bets = {
        "": (alpha, 0.0, 3 * alpha),
        "P": (1 / 3, 0.0, 1.0),
        "B": (0.0, 1 / 3, 1.0),
        "PB": (0.0, alpha + 1 / 3, 1.0),
    }
    return {(card, history): p for history, row in bets.items() for card, p in zip(CARDS, row, strict=True)}


def value(strategy: Strategy) -> float:
    """What seat 0 wins a game on average where each seat plays its part of the strategy."""

    def on(deal: Sequence[str], history: str) -> float:
        if history not in MOVERS:
            return payoff(deal, history)
        p = strategy[deal[MOVERS[history]], history]
        return p * on(deal, history + BET) + (1 - p) * on(deal, history + PASS)

    return float(np.mean([on(deal, "") for deal in DEALS]))


def best_answers(strategy: Strategy) -> Returns:
    """What each seat would win against the strategy with the best of all answers to it: of the 2^6 ways to play without
    chance, one of which is always among the best."""
    found = []
    for seat, sign in ((0, 1.0), (1, -1.0)):
        own = [place for place in INFORMATION if MOVERS[place[1]] == seat]
        plans = itertools.product((0.0, 1.0), repeat=len(own))
        found.append(max(sign * value({**strategy, **dict(zip(own, p, strict=True))}) for p in plans))
    return found[0], found[1]


def exploitability(strategy: Strategy) -> float:
    """How much is lost a game, on the mean of both seats, against the best answer: 0 in an equilibrium (NashConv / 2)."""
    return sum(best_answers(strategy)) / 2


# ---- as tasks --------------------------------------------------------------------------------------------------


KIND = Kind(
    "Kuhn poker against a scripted opponent, or itself (recipe spiral)",
    params("equilibrium"),
    ({},),
    lambda s: refused(s, KuhnPoker),
    lambda s, seed: made(KuhnPoker, RULES, 2.0, s, seed),
)
