"""Games of TextWorld, made on the spot: `textworld:rooms=3,quest=4`. Played by TextWorld's own rules, without its compiler of
interactive fiction: what is seen is its description of the room and of what one holds."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.tasks.adapters.absent import Adapter, Catalogued, World, WorldSource
from etude.tasks.kind import FEEDBACK, feedback_text, out_of_range
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import command_of
from etude.tasks.worlds.play import UNKNOWN
from etude.types import Verdict

ADAPTER = Adapter(
    "textworld",
    "textworld",
    "textworld",
    "Games of TextWorld, made on the spot (extra: textworld)",
    (
        Param("rooms", int, 2, "1 to 20"),
        Param("objects", int, 4, "1 to 40"),
        Param("quest", int, 2, "actions that the quest takes, 1 to 20"),
        Param("turns", int, 0, "turns allowed; 0: four times what the quest takes, and 6 more"),
        Param("listed", bool, True, "say after every turn what can be done"),
        Param("partial", bool, False, "a failed attempt gets its share of TextWorld's score as its reward"),
        FEEDBACK,
    ),
    ("reference", "feedback", "environment"),
)


@dataclass(frozen=True)
class Game:
    """Makes a fresh play of one game, which its seed and its size make."""

    seed: int
    rooms: int
    objects: int
    quest: int
    turns: int
    listed: bool
    partial: bool
    feedback: str

    def __call__(self, seed: int = 0) -> GameWorld:
        """A new play; nothing in it is left to chance."""
        return GameWorld(self)

    @property
    def size(self) -> tuple[int, int, int, int]:
        return self.seed, self.rooms, self.objects, self.quest


class GameWorld:
    """One play: `etude.types.Environment`."""

    def __init__(self, plan: Game) -> None:
        from textworld import EnvInfos
        from textworld.envs import TextWorldEnv

        self._plan = plan
        wanted = ("description", "inventory", "admissible_commands", "policy_commands", "score", "max_score")
        self._env = TextWorldEnv(EnvInfos(won=True, lost=True, **dict.fromkeys(wanted, True)))
        with tempfile.TemporaryDirectory() as place:
            file = Path(place, "game.json")
            file.write_text(made(*plan.size)[0], encoding="utf-8")
            self._env.load(str(file))
            self._state = self._env.reset()
        self._turns, self._over = 0, False

    def observe(self) -> str:
        """The room, what one holds, and, where it was asked for, what can be done."""
        state = self._state
        lines = [_plain(state.description), _plain(state.inventory)]
        if self._plan.listed:
            lines.append(f"You can: {'; '.join(self.actions())}")
        return "\n".join(line for line in lines if line)

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Carries out the command that a reply names. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("this game is over: call task.environment() for a new one")
        self._turns += 1
        command, said = command_of(text).lower(), ""
        if command in self._state.admissible_commands:
            self._state, _, _ = self._env.step(command)
        else:
            said = f"{UNKNOWN}\n"
        state, plan = self._state, self._plan
        if state.won:
            self._over = True
            return "You have done it.", Verdict(1.0, True)
        if state.lost or self._turns >= plan.turns:
            self._over = True
            way = "; ".join(made(*plan.size)[2])
            hint = f"You got {state.score} of {state.max_score} points."
            full = f"{hint} A way that works: {way}."
            told = feedback_text(plan.feedback, "You did not do what was asked.", hint, full)
            share = min(state.score / max(state.max_score, 1), 0.99) if plan.partial else 0.0
            return "The game is over.", Verdict(share, False, told)
        return said + self.observe(), None

    def actions(self) -> list[str]:
        """What can be done now, without looking."""
        return [c for c in self._state.admissible_commands if c not in ("look", "inventory")]

    def expert(self) -> str:
        """The next action of TextWorld's own winning policy."""
        return str(self._state.policy_commands[0])

    def solve(self) -> list[str]:
        """Commands that win from the beginning."""
        return list(made(*self._plan.size)[2])


@lru_cache(maxsize=64)
def made(seed: int, rooms: int, objects: int, quest: int) -> tuple[str, str, tuple[str, ...]]:
    """A game as JSON, what it asks for, and commands that win it."""
    from textworld.generator import make_game
    from textworld.generator.game import GameOptions

    options = GameOptions()
    options.seeds = seed % 2**31
    options.nb_rooms, options.nb_objects = rooms, objects
    options.chaining.max_length = options.chaining.max_depth = quest
    game = make_game(options)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "game.json")
        game.save(str(file))
        return file.read_text(encoding="utf-8"), _plain(game.objective), tuple(game.metadata["walkthrough"])


def _plain(text: str) -> str:
    """Without the marks of headings, in one paragraph."""
    return " ".join(re.sub(r"-=\s*(.*?)\s*=-", r"\1.", text or "").split())


def source(name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> Any:
    """Games of one size as a source. Raises UserError."""
    if not given and ADAPTER.fault:
        return Catalogued(ADAPTER)
    own = ADAPTER.read(given or {})
    if why := out_of_range(own, rooms=(1, 20), objects=(1, 40), quest=(1, 20), turns=(0, 1000)):
        raise UserError(f"task '{name}': {why}")
    turns = own["turns"] or 4 * own["quest"] + 6

    def make(seed: int) -> World:
        size = (seed % 2**31, own["rooms"], own["objects"], own["quest"])
        try:
            _, asked, way = made(*size)
        except Exception as error:  # sizes that its generator cannot bring together
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"task '{name}': TextWorld makes no such game: {why}") from None
        plan = Game(*size, turns, own["listed"], own["partial"], own["feedback"])
        prompt = f"{asked} Each turn, reply with one command."
        return World(prompt, plan, [*size, turns], "\n".join(way))

    return WorldSource(called or name, ADAPTER.info, make, sorted(own.items(), key=repr), own["feedback"])
