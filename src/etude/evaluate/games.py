"""How well a policy plays: won, drawn and lost against fixed opponents, what it wins a game, and how far its Kuhn poker is
from an equilibrium."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude import seeds
from etude.errors import UserError
from etude.evaluate.intervals import Interval, clustered
from etude.evaluate.run import attempt
from etude.rollout.attempts import below
from etude.rollout.conversation import CheckRunner, Conversation, Generator
from etude.rollout.seats import ILLEGALLY, RETURN, SEAT, Seats
from etude.tasks.game import Match, move_of
from etude.tasks.kuhn_poker import BET, INFORMATION, MOVERS, PASS, KuhnPoker, Strategy, best_answers, value
from etude.types import Array, Episode, Task


@dataclass(frozen=True)
class Score:
    """Games against one opponent. Shares in [0, 1] and the mean return in the game's own unit, each with a 95 % interval over
    the games; `seats`: the mean return of each seat, None where it was never taken."""

    opponent: str
    games: int
    won: Interval
    drawn: float
    mean_return: tuple[float, float, float]  # mean, low, high
    seats: tuple[float | None, float | None]
    illegal: float  # share of games that the policy ended with a reply that is no legal move

    def to_dict(self) -> dict[str, Any]:
        return {
            "opponent": self.opponent,
            "games": self.games,
            "won": [self.won.mean, self.won.low, self.won.high],
            "drawn": self.drawn,
            "return": list(self.mean_return),
            "seats": list(self.seats),
            "illegal": self.illegal,
        }


def mean_interval(values: Sequence[float] | Array) -> tuple[float, float, float]:
    """The mean of independent values and its 95 % interval, by Student's t; as wide as the values' range for a single one."""
    from scipy import stats

    row = np.asarray(values, float)
    mean = float(row.mean())
    if len(row) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.975, len(row) - 1) * row.std(ddof=1) / len(row) ** 0.5)
    return mean, mean - half, mean + half


def score(opponent: str, sides: Sequence[Episode]) -> Score:
    """The score of these sides of games. Raises ValueError where there are none."""
    if not sides:
        raise ValueError("there is no game to be scored")
    returns = np.array([e.notes[RETURN] for e in sides])
    own = [returns[[e.notes[SEAT] == seat for e in sides]] for seat in (0, 1)]
    return Score(
        opponent,
        len(sides),
        clustered((returns > 0).astype(float)),
        float((returns == 0).mean()),
        mean_interval(returns),
        (float(own[0].mean()) if len(own[0]) else None, float(own[1].mean()) if len(own[1]) else None),
        float(np.mean([bool(e.notes[ILLEGALLY]) for e in sides])),
    )


async def against(
    opponent: str,
    generator: Generator,
    check_runner: CheckRunner,
    tasks: Sequence[Task],
    seed: int = 0,
    models: Mapping[str, Generator] | None = None,
) -> Score:
    """Each task's deal twice, once from each seat (`rollout.seats.Seats`), against `opponent`, a scripted player or one of
    `models`. Raises UserError where a task is no game."""
    if odd := next((t for t in tasks if not isinstance(t.environment, Match)), None):
        raise UserError(
            f"'{odd.kind}' is no game of two players; choose one such as kuhn_poker or tic_tac_toe"
        )
    groups = await attempt(
        generator,
        check_runner,
        tasks,
        2,
        seed,
        Seats(opponent),
        lambda e: {"reward": 0.0},
        generators=models or {},
    )
    failed = [e.failure for g in groups for e in g.failed]
    if failed and failed[0] is not None:
        raise UserError(f"a game against '{opponent}' could not be played: {failed[0].error}")
    return score(opponent, [e for g in groups for e in g.episodes])


# ---- Kuhn poker: the policy as a strategy ------------------------------------------------------------------------


@dataclass(frozen=True)
class KuhnPlay:
    """A policy's Kuhn poker: how often it bets in each of the 12 places, of its legal replies, and what follows from that,
    exactly. `value`: what seat 0 wins where the policy plays both seats; `exploitability`: what it loses a game to the best
    answer, on the mean of both seats. Sampling error makes the latter larger, never smaller on average: of an equilibrium
    read from 200 replies a place it is about 0.02."""

    strategy: Strategy
    illegal: float  # share of replies that were no legal move
    samples: int

    @property
    def value(self) -> float:
        return value(self.strategy)

    @property
    def exploitability(self) -> float:
        return sum(best_answers(self.strategy)) / 2

    def to_dict(self) -> dict[str, Any]:
        bets = {f"{card} after {history or 'nothing'}": p for (card, history), p in self.strategy.items()}
        return {
            "exploitability": self.exploitability,
            "value": self.value,
            "illegal": self.illegal,
            "samples": self.samples,
            "bets": bets,
        }


async def kuhn_play(
    generator: Generator, check_runner: CheckRunner, task: Task, samples: int = 200, seed: int = 0
) -> KuhnPlay:
    """Asks the policy `samples` times in each place of Kuhn poker. A place without any legal reply counts as a half."""

    async def asked(card: str, history: str) -> list[str]:
        other = next(c for c in "JQK" if c != card)
        game = KuhnPoker(deal=(card, other) if MOVERS[history] == 0 else (other, card))
        game.history = history
        said = below(task.prompt, game.observe(MOVERS[history]))
        talks = [
            Conversation(task, generator, check_runner, seeds.key(seed, "kuhn", card, history, i))
            for i in range(samples)
        ]
        for talk in talks:
            talk.user(said)
        return [move_of(text).upper() for text in await asyncio.gather(*(talk.reply() for talk in talks))]

    await generator.sampler.refresh()
    replies = await asyncio.gather(*(asked(*place) for place in INFORMATION))
    legal = [[m for m in found if m in (PASS, BET)] for found in replies]
    strategy = {
        place: float(np.mean([m == BET for m in found])) if found else 0.5
        for place, found in zip(INFORMATION, legal, strict=True)
    }
    whole = samples * len(INFORMATION)
    return KuhnPlay(strategy, 1 - sum(map(len, legal)) / whole, samples)
