"""Games of `textarena` for one player: `textarena:TowerOfHanoi-v0`. An illegal move may be made again once, as textarena has it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude.tasks.adapters.absent import World, WorldSource
from etude.tasks.game import move_of
from etude.tasks.kind import FEEDBACK, feedback_text
from etude.tasks.source import Info
from etude.tasks.spec import Param, typed
from etude.types import Verdict

RULES = "You play a game by yourself. Give your move as it is asked for."
TURNS = Param("turns", int, 50, "turns allowed, where the game does not end before")


class OwnChance:
    """What textarena draws from Python's shared random numbers comes from a stream of this game's own, so that games played
    side by side do not disturb each other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed % 2**32).getstate()

    def _alone(self, call: Any) -> Any:
        """Calls textarena with this game's own random numbers in the place of the shared ones."""
        shared = random.getstate()
        random.setstate(self._random)
        try:
            return call()
        finally:
            self._random = random.getstate()
            random.setstate(shared)


@dataclass(frozen=True)
class Solo:
    """Makes a fresh play of one game."""

    env: str
    seed: int
    turns: int
    feedback: str

    def __call__(self, seed: int = 0) -> SoloGame:
        """A new play from the same beginning."""
        return SoloGame(self)


class SoloGame(OwnChance):
    """One play: `etude.types.Environment`. Each observation is what is new in it."""

    def __init__(self, plan: Solo) -> None:
        import textarena

        super().__init__(plan.seed)
        self._plan = plan
        self._env = self._alone(lambda: textarena.make(plan.env))
        self._alone(lambda: self._env.reset(num_players=1, seed=plan.seed % 2**32))
        self._seen, self._turns, self._over = "", 0, False

    def observe(self) -> str:
        """What the game says first."""
        return self._new()

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Makes the move that a reply names. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the game is over: call task.environment() for a new one")
        self._turns += 1
        move = move_of(text)
        over, _ = self._alone(lambda: self._env.step(action=move if "[" in move else f"[{move}]"))
        state = self._env.state
        self._over = bool(over) or self._turns >= self._plan.turns
        if not self._over:
            return self._new(), None
        share = float(np.clip((state.rewards or {}).get(0, 0.0), 0, 1))
        why = str(state.game_info.get(0, {}).get("reason") or "You have no turns left.")
        told = feedback_text(self._plan.feedback, "You did not win.", why, why) if share < 1 else ""
        return "The game is over.", Verdict(share, share == 1, told)

    def _new(self) -> str:
        _, seen = self._alone(self._env.get_observation)
        seen = seen if isinstance(seen, str) else "\n".join(str(m[1]) for m in seen)
        new, self._seen = seen.removeprefix(self._seen), seen
        return new.strip() or seen


def alone(env: str) -> bool:
    """Whether one player plays this game."""
    import textarena

    def begun() -> None:
        textarena.make(env).reset(num_players=1, seed=0)

    try:
        OwnChance(0)._alone(begun)
    except Exception:
        return False
    return True


def source(name: str, env: str, given: Mapping[str, Any]) -> WorldSource:
    """Plays of one game as a source. Raises UserError for an unknown parameter."""
    params = (TURNS, FEEDBACK)
    own = {p.name: p.default for p in params} | typed(f"task '{name}'", given, params)
    info = Info(
        name, "environment", f"textarena's game {env}", params, {name: (0.0,)}, ("feedback", "environment")
    )

    def make(seed: int) -> World:
        return World(RULES, Solo(env, seed % 2**32, own["turns"], own["feedback"]), [env, seed % 2**32])

    return WorldSource(name, info, make, [env, *sorted(own.items())], own["feedback"])
