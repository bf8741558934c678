"""SPIRAL: one policy sits in both seats of a zero-sum game, and each seat is credited against its own average.

A player that gets better meets an opponent that got better. The first player of a game may have an edge, so a baseline over
both seats would praise one and blame the other for where it sits; each seat of each game has a running mean of its own
returns instead. A turn is a sample of its own. Liu et al., arXiv 2506.24119; numbers after the released
`train_spiral.py` (spiral-rl/spiral)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch

from etude.credit.attempts import on_parts
from etude.fixtures.attempts import credited_signals, example_attempts
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_group
from etude.objective.policy import High, Length, Low, clipped
from etude.objective.terms import Mean, Objective, averaged
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.seats import seat_return
from etude.rollout.seats import ILLEGALLY, MOVE, SEAT, Seats
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Episode, Group, Signal
from etude.update import Update

# ---- credit: A = R - b[game, seat], b <- a b + (1 - a) R -------------------------------------------------------

Role = tuple[str, int]  # the game, and the seat


class RoleAdvantage:
    """A_k = gamma^(K - 1 - k) (R - b_gp) on turn k of K, for the return R of seat p in game g; b_gp is read before the
    game, then moves: b_gp <- a b_gp + (1 - a) R, from 0. Turns with A = 0 are left out of the mean, unless `keep_zero`."""

    def __init__(
        self,
        role_decay: Annotated[float, Setting("a, how much of a seat's baseline stays", low=0, high=1)] = 0.95,
        turn_gamma: Annotated[
            float, Setting("gamma, discount for every turn that still follows", low=0, high=1)
        ] = 1.0,
        keep_zero: Annotated[bool, Setting("count turns without advantage in the mean")] = False,
    ) -> None:
        self.decay, self.gamma, self.keep_zero = role_decay, turn_gamma, keep_zero
        self.baseline: dict[Role, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        return [self._signal(e) for g in groups for e in g.episodes]

    def _signal(self, episode: Episode) -> Signal:
        role = (episode.task.kind, int(episode.notes.get(SEAT, 0)))
        before = self.baseline.get(role, 0.0)
        self.baseline[role] = self.decay * before + (1 - self.decay) * episode.reward
        own = episode.reward - before
        turns = [i for i, span in enumerate(episode.spans) if span.sampled]
        row = np.zeros(len(episode.tokens), np.float32)
        starts = np.cumsum([0, *(len(s) for s in episode.spans)])
        for left, i in enumerate(reversed(turns)):
            row[starts[i] : starts[i + 1]] = own * self.gamma**left
        on = episode.sampled if self.keep_zero else episode.sampled & (row != 0)
        return Signal(episode, row, {"policy": on.astype(np.float32)})

    def report(self) -> Mapping[str, float]:
        """The baseline of every seat."""
        return {f"{game}/seat {seat}": b for (game, seat), b in sorted(self.baseline.items())}

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": dict(self.baseline)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.baseline = dict(state["baseline"])


# ---- loss: every turn summed over its tokens and divided by a constant ---------------------------------------------


def per_turn(length: float) -> Mean:
    """Sum over the tokens / (turns x a constant length). A turn is a sequence of its own."""

    def turns(batch: Any, active: torch.Tensor) -> float:
        return length * float(len(torch.unique(batch.sequence[active])))

    return Mean(f"turns of {length:g}", lambda b, a: torch.ones_like(b.behaviour), turns)


def clipped_turns(clip_low: Low = 0.2, clip_high: High = 0.2, length_divisor: Length = 64.0) -> Objective:
    """-1/(K L) sum over K turns and their tokens of min(rho A, clip(rho, 1-e, 1+e) A), L = length_divisor."""
    return averaged(clipped(clip_low, clip_high), per_turn(length_divisor))


# ---- the recipe -------------------------------------------------------------------------------------------------


def one_side(seat: int, won: float, turns: int = 1) -> Episode:
    """One side of a game: replies of 1, 2, ... tokens, and what it won."""
    made = example_attempts(*[0.0] * turns)
    spans = tuple(replace(s, tag=MOVE) if s.sampled else s for s in made.spans)
    return replace(made, spans=spans, notes={SEAT: seat, "return": won})


def _credit(*sides: Episode, **settings: Any) -> list[float]:
    """The advantage of every turn of these sides of games, in order."""
    signals = credited_signals(RECIPE, list(sides), settings=settings)
    found = []
    for signal in signals:
        at = 0
        for span in signal.episode.spans:
            found += [float(signal.advantage[at])] if span.sampled else []
            at += len(span)
    return found


def _counted(turns: int) -> float:
    """What the loss of one game of so many turns is divided by."""
    from etude.batch import pack

    episode = one_side(0, 1.0, turns)
    batch = pack([on_parts(episode, {MOVE: 1.0})])
    (term,) = built(RECIPE, "objective").terms
    return float(term.count(batch))


def _state_after(*rewards: float) -> list[float]:
    credit = built(RECIPE, "credit")
    credit([example_group(rewards)])
    return list(credit.report().values())


RECIPE = Recipe(
    name="spiral",
    paper=Paper(
        "SPIRAL: Self-Play on Zero-Sum Games Incentivizes Reasoning via Multi-Agent Multi-Turn Reinforcement Learning",
        "2506.24119",
        2025,
    ),
    published_lr=1e-6,
    idea="The policy plays both sides of a game against itself, so that its opponent is always as good as it is. What a side wins is "
    "compared with what that seat of that game has won lately, because the player who begins may have an edge. Every turn of a side "
    "is reinforced by that difference.",
    equation="A_k = gamma^(K-1-k) (R_p - b_gp), b_gp <- a b_gp + (1-a) R_p;  "
    "L = - 1/(K L) sum_k sum_t min(rho A, clip(rho, 1-e, 1+e) A)",
    departures=(
        "a step trains on all turns of its games, whose number varies; the release draws 128 of them",
        "baselines move from game to game in the order of the batch, as in the release, whose actors each hold their own",
        "the length that divides is a setting (64); the release divides by the longest reply",
        "clip 0.2 is the default of the library that the release uses; the paper does not name it",
        "own Kuhn poker counts chips and is one hand; textarena's, which the paper plays, counts who holds more after five",
        "a task that is no game has one seat, whose baseline is the running mean of its kind's rewards",
    ),
    stages={
        "rollout": stage(Seats),
        "reward": stage(seat_return),
        "credit": stage(RoleAdvantage),
        "objective": stage(clipped_turns),
        "update": stage(Update, passes=2),
    },
    claim="In a game where it matters who begins, advantages of each seat's own baseline vary less than without one, and self-play does "
    "better against a new opponent than training against a random one.",
    manipulation=(
        Manipulated("nine games of ten end by the rules", f"noted/{ILLEGALLY}", at_most=0.1, read="last"),
    ),
    examples=(
        Credited(
            "baseline from 0, read before it moves: 1, then 0 - 0.05, then 1 - 0.0475",
            [[1.0, 0.0, 1.0]],
            [[1.0, -0.05, 0.9525]],
        ),
        ByHand("... and after it: 0.95 x 0.0475 + 0.05", lambda: _state_after(1.0, 0.0, 1.0), [0.095125]),
        ByHand(
            "each seat has its own: a game won 2 by seat 0, then one lost by it",
            lambda: _credit(one_side(0, 2.0), one_side(1, -2.0), one_side(0, -1.0), one_side(1, 1.0)),
            [2.0, -2.0, -1.1, 1.1],
        ),
        ByHand(
            "three turns, discounted by a half for each that follows",
            lambda: _credit(one_side(0, 1.0, 3), **{"credit.turn_gamma": 0.5}),
            [0.25, 0.5, 1.0],
        ),
        ByHand("three turns count thrice, each by 64 tokens", lambda: _counted(3), 192.0),
        OffPolicy(
            "two turns, each divided by 64; praise above the clip, within, below; blame above, within, below",
            ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            lengths=(1, 5),
            loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 128,
            gradient=(0, -1.1 / 128, -0.5 / 128, 1.5 / 128, 0.9 / 128, 0),
        ),
        Reduction(
            "a baseline that never moves, L = 1, one turn: REINFORCE without a baseline",
            "reinforce",
            {"credit.role_decay": 1.0, "credit.keep_zero": True, "objective.length_divisor": 1.0},
            {"credit.baseline": "off"},
        ),
    ),
)
