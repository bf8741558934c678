"""Any game of one or two players of `textarena` (the extra `games`): `textarena:TicTacToe-v0`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etude.errors import UserError, nearest
from etude.tasks import textarena_solo
from etude.tasks.game import ILLEGAL, Returns, move_of
from etude.tasks.games import GameSource, params
from etude.tasks.source import Info
from etude.tasks.spec import Param, typed
from etude.tasks.textarena_solo import OwnChance

ENV = Param("env", str, "KuhnPoker-v0-short", "the game, by textarena's name; of one player or two")
_OFFERED = re.compile(
    r"(?:[Aa]vailable|[Vv]alid|[Ll]egal) (?:[Mm]oves|[Aa]ctions)[^\n]*?:(.*)$", re.MULTILINE
)
RULES = "You play a game. Give your move as it is asked for."


class TextArenaGame(OwnChance):
    """One game of two players: `etude.tasks.game.Game`."""

    def __init__(self, env: str, seed: int) -> None:
        import textarena

        super().__init__(seed)
        self._env = self._alone(lambda: textarena.make(env))
        self._alone(lambda: self._env.reset(num_players=2, seed=seed % 2**32))
        # An illegal move is not given a second chance here: the game ends (`tasks.game.LiveGame`).
        self._env.state.error_allowance = 0
        self._seen: dict[int, str] = {0: "", 1: ""}
        self._over = False
        self._look()

    def turn(self) -> int | None:
        return None if self._over else self._seat

    def observe(self, seat: int) -> str:
        return self._seen[seat]

    def moves(self) -> list[str]:
        """The moves that the last observation offers in words, "Available Moves: '[0]', '[1]'". Raises UserError where it
        offers none."""
        offered = _OFFERED.findall(self._seen[self._seat])
        found = re.findall(r"\[[^\[\]]+\]", offered[-1]) if offered else []
        if not found:
            raise UserError(
                "this game does not offer its legal moves in words, so that no scripted player can play it"
            )
        return found

    def act(self, text: str) -> bool:
        move = move_of(text)
        move = move if "[" in move else f"[{move}]"
        seat = self._seat
        over, _ = self._alone(lambda: self._env.step(action=move))
        info = self._env.state.game_info.get(seat, {})
        if info.get("invalid_move"):
            self._over = True
            return False
        self._over = bool(over)
        if not self._over:
            self._look()
        return True

    def returns(self) -> Returns:
        rewards = self._env.state.rewards or {}
        if not rewards:
            return ILLEGAL if self._seat == 0 else (ILLEGAL[1], ILLEGAL[0])
        first, second = float(rewards.get(0, 0)), float(rewards.get(1, 0))
        return (first - second) / 2, (second - first) / 2

    def _look(self) -> None:
        self._seat, seen = self._alone(self._env.get_observation)
        self._seen[self._seat] = seen if isinstance(seen, str) else "\n".join(str(m[1]) for m in seen)


@dataclass(frozen=True)
class Arena:
    """Makes games of one sort."""

    env: str

    def __call__(self, seed: int) -> TextArenaGame:
        return TextArenaGame(self.env, seed)


class ArenaSource(GameSource):
    """A game of textarena as a source."""

    def describe(self) -> Info:
        return info(self.name)


def source(name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> Any:
    """The games of `env` as a source. Raises UserError where textarena is not installed, for a game that it does not have,
    and for one that cannot be played by two here."""
    own = dict(given or {})
    env = typed(f"task '{name}'", {"env": own.pop("env", ENV.default)}, (ENV,))["env"]
    try:
        from textarena.envs.registration import ENV_REGISTRY
    except ImportError:
        fault = "textarena is not installed; pip install 'etude[games]'"
        if given:
            raise UserError(f"task '{name}': {fault}") from None
        return _Absent(name, fault)
    if env not in ENV_REGISTRY:
        raise UserError(f"task '{name}': textarena has no game '{env}'{nearest(env, ENV_REGISTRY)}")
    if textarena_solo.alone(env):
        return textarena_solo.source(called or name, env, own)
    try:
        return ArenaSource(called or name, Arena(env), RULES, 1.0, own)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # whatever a game of textarena needs: three players, a word list, another Python
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"task '{name}': textarena's game '{env}' cannot be played by one or two here: {why}"
        ) from None


def info(name: str, fault: str = "") -> Info:
    """The catalogue's entry."""
    line = "Any game of one or two players of textarena, by textarena:NAME (extra: games)"
    return Info(
        name, "environment", line, (ENV, *params("random", "")), {name: (0.0,)}, ("environment",), fault
    )


class _Absent:
    """What the catalogue says where textarena is missing."""

    kinds: tuple[str, ...] = ()

    def __init__(self, name: str, fault: str) -> None:
        self.name, self._fault = name, fault

    def describe(self) -> Info:
        return info(self.name, self._fault)
