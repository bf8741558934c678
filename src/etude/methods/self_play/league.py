"""Self-play against a league of earlier selves, rated by Elo.

Who only meets itself may learn to beat its last habit and forget the one before. Here the other seat is an earlier self,
frozen, from a league that grows as the run goes on. Ratings follow the results; the next opponent is drawn where the
outcome is most open. Prioritised fictitious self-play after AlphaStar (Vinyals et al., Nature 575, 2019), with SPIRAL's
credit; ratings after Elo, The Rating of Chessplayers, 1978."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch

from etude.fixtures.curricula import ExampleContext
from etude.methods.self_play.spiral import RECIPE as SPIRAL
from etude.methods.self_play.spiral import one_side
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.seats import RETURN, RIVAL, Longest, Seats
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Group, Signal

START_RATING = 1000.0


def expected(own: float, other: float) -> float:
    """E = 1 / (1 + 10^((R_other - R_own) / 400)): the score that ratings lead one to expect, won 1, drawn 1/2, lost 0."""
    return float(1 / (1 + 10 ** ((other - own) / 400)))


def openness(own: float, others: Sequence[float]) -> Array:
    """P_j proportional to E_j (1 - E_j), f64[M]: opponents against whom one wins as often as one loses come most often."""
    e = np.array([expected(own, other) for other in others])
    return e * (1 - e) / (e * (1 - e)).sum()


class League(Seats):
    """`Seats` with an earlier self opposite. Every `league_every` steps the policy joins the league as it is; of more than
    `league_size` the lowest rated leaves. After each game R <- R + K (S - E) for both; every step another opponent is drawn."""

    def __init__(
        self,
        league_every: Annotated[int, Setting("steps between two that join the league", "steps", low=1)] = 10,
        league_size: Annotated[int, Setting("earlier selves that are kept", low=1, high=256)] = 8,
        elo_k: Annotated[float, Setting("K, how far one game moves a rating", low=0, high=400)] = 16.0,
        longest_game: Longest = 50,
    ) -> None:
        super().__init__(RIVAL, longest_game)
        self.every, self.size, self.k = league_every, league_size, elo_k
        self.rating = START_RATING  # of the policy
        self.members: list[dict[str, Any]] = []  # {"step", "rating", "weights"}
        self.opposite = 0  # whose weights the rival has

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Rates the games of the step, lets the policy join where it is due, and draws the next opponent."""
        rival = context.auxiliary[RIVAL]
        if not self.members:  # the rival of the first step is the policy as it began
            self.members = [_member(-1, START_RATING, rival)]
        for episode in (e for g in groups for e in g.episodes if RETURN in e.notes):
            self.rate(episode.notes[RETURN])
        if (context.step + 1) % self.every == 0:
            self.members.append(_member(context.step, self.rating, context.policy))
            if len(self.members) > self.size:
                self.members.remove(min(self.members, key=lambda m: m["rating"]))
        p = openness(self.rating, [m["rating"] for m in self.members])
        self.opposite = int(context.rng("league").choice(len(p), p=p))
        cost = {"meter": rival.state_dict().get("meter")}  # its count of operations stays its own
        rival.load_state_dict({**rival.state_dict(), **self.members[self.opposite]["weights"], **cost})

    def rate(self, won: float) -> None:
        """Moves both ratings after a game in which the policy won so much."""
        other = self.members[self.opposite]
        step = self.k * ((won > 0) + 0.5 * (won == 0) - expected(self.rating, other["rating"]))
        self.rating += step
        other["rating"] -= step

    def report(self) -> Mapping[str, float]:
        """The policy's rating, how many earlier selves there are, and the step at which the next opponent joined."""
        known = self.members[self.opposite]["step"] if self.members else -1
        return {"rating": self.rating, "members": float(len(self.members)), "opponent": float(known)}

    def state_dict(self) -> dict[str, Any]:
        return {"rating": self.rating, "members": [dict(m) for m in self.members], "opposite": self.opposite}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rating, self.opposite = state["rating"], state["opposite"]
        self.members = [dict(m) for m in state["members"]]


def _member(step: int, rating: float, policy: Any) -> dict[str, Any]:
    """A copy of a policy's weights, with what it is known by."""
    state = {k: v for k, v in policy.state_dict().items() if k != "meter"}
    return {"step": step, "rating": rating, "weights": _copied(state)}


def _copied(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    return {k: _copied(v) for k, v in state.items()} if isinstance(state, Mapping) else state


# ---- the recipe -------------------------------------------------------------------------------------------------


class _Model:
    """Stands for a policy in the numbers below."""

    def __init__(self, weight: float) -> None:
        self.state = {"weights": torch.tensor([weight])}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = {"weights": state["weights"]}


def _after(*won: float, steps: int = 1, **settings: Any) -> League:
    """The league after steps in each of which these games were played; the policy's weight is the step."""
    league: League = League(**settings)
    rival = _Model(-1.0)
    for step in range(steps):
        sides = tuple(one_side(0, w) for w in won)
        where = ExampleContext(step, policy=_Model(float(step)), auxiliary={RIVAL: rival})
        league.observe([Group(sides[0].task, sides)] if sides else [], [], where)
    return league


RECIPE = Recipe(
    name="spiral_league",
    base=SPIRAL,
    paper=Paper("Grandmaster level in StarCraft II using multi-agent reinforcement learning", "", 2019),
    idea="The policy plays against frozen earlier selves, so that it cannot forget how to beat what it once was. Each of them has an "
    "Elo rating that follows the results. Whoever is about as strong as the policy comes most often.",
    equation="E = 1 / (1 + 10^((R_j - R) / 400));  P(j) ~ E_j (1 - E_j);  R <- R + K (S - E)",
    departures=(
        "one league of the policy's own earlier selves; AlphaStar's has three sorts of agents, two of which look for weaknesses",
        "results enter by ratings; AlphaStar counts the share of games won against each opponent",
        "one opponent a step, drawn anew after each",
        "the policy takes seat 0 and seat 1 by turns, and an earlier self is never trained",
    ),
    stages={"rollout": stage(League)},
    auxiliary={RIVAL: AuxiliaryModel("start")},
    claim="In a game with cycles the policy's play is less exploitable than under pure self-play, and its rating rises.",
    manipulation=(Manipulated("the league grows", r"rollout\.members", 1, read="max"),),
    examples=(
        ByHand(
            "equal ratings: a half; 400 more: 10 of 11",
            lambda: [expected(0, 0), expected(400, 0)],
            [0.5, 10 / 11],
        ),
        ByHand(
            "a win among equals moves both by K/2",
            lambda: [_after(1.0).rating, _after(1.0).members[0]["rating"]],
            [1008, 992],
        ),
        ByHand(
            "a draw among equals moves nobody; a loss by K/2",
            lambda: [_after(0.0).rating, _after(-2.0).rating],
            [1000, 992],
        ),
        ByHand(
            "E (1 - E) is 1/4 among equals and 10/121 at 400 apart, above or below",
            lambda: openness(0, [0, 400, -400]),
            [x / (1 / 4 + 20 / 121) for x in (1 / 4, 10 / 121, 10 / 121)],
        ),
        ByHand(
            "twenty steps: the start and those of steps 9 and 19, with the weights they had",
            lambda: [[m["step"], float(m["weights"]["weights"])] for m in _after(steps=20).members],
            [[-1, -1], [9, 9], [19, 19]],
        ),
        ByHand(
            "of more than two the lowest rated leaves: the start, which lost",
            lambda: [m["step"] for m in _after(1.0, steps=20, league_size=2).members],
            [9, 19],
        ),
        Reduction("tasks that are no games: SPIRAL", "spiral"),
    ),
)
