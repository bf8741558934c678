"""Environments of Gymnasium whose observations and actions can be said in words: `gymnasium:Taxi-v4`, `gymnasium:my_package:MyText-v0`.

Observations: `Text`, or whatever the environment draws as text (`render_mode="ansi"`), else the numbers of discrete spaces.
Actions: `Text`, which is what the policy says, or `Discrete`, whose actions are named by `actions=up;down` or by number.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude.errors import UserError
from etude.tasks.adapters.absent import Adapter, Catalogued, World, WorldSource
from etude.tasks.kind import FEEDBACK, feedback_text
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import command_of
from etude.types import Verdict

ADAPTER = Adapter(
    "gymnasium",
    "gymnasium",
    "",
    "Environments of Gymnasium that can be played in words, by gymnasium:NAME",
    (
        Param("env", str, "", "the environment, by Gymnasium's name; MODULE:NAME imports the module first"),
        Param("prompt", str, "", "what is asked; empty: the environment's name and its actions"),
        Param("actions", list[str], [], "names of discrete actions, in order: left;down;right;up"),
        Param("turns", int, 50, "turns allowed"),
        Param("low", float, 0.0, "the sum of rewards that counts as 0"),
        Param("high", float, 1.0, "the sum of rewards that counts as 1, and as right"),
        FEEDBACK,
    ),
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Gym:
    """Makes a fresh episode of one seed."""

    env: str
    seed: int
    actions: tuple[str, ...]
    turns: int
    low: float
    high: float
    feedback: str

    def __call__(self, seed: int = 0) -> GymWorld:
        """A new episode from the same beginning: `seed` decides nothing, as Gymnasium draws both from one stream."""
        return GymWorld(self)


class GymWorld:
    """One episode: `etude.types.Environment`. A reply that names no action costs the turn."""

    def __init__(self, plan: Gym) -> None:
        self._plan = plan
        self._env = opened(plan.env)
        self._names = named(self._env, plan.actions)
        self._seen, _ = self._env.reset(seed=plan.seed % 2**31)
        self._total, self._turns = 0.0, 0
        self._over = False

    def observe(self) -> str:
        """What is seen now."""
        if isinstance(self._seen, str):
            return self._seen
        if self._env.render_mode == "ansi":
            return _ANSI.sub("", str(self._env.render())).strip()
        return said(self._seen)

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the action that a reply names. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("this episode is over: call task.environment() for a new one")
        self._turns += 1
        action, wrong = self._action(command_of(text)), ""
        if action is None:
            wrong = f"That is no action. Actions: {', '.join(self._names)}.\n"
        else:
            self._seen, reward, ended, cut, _ = self._env.step(action)
            self._total += float(reward)
            self._over = bool(ended or cut)
        self._over = self._over or self._turns >= self._plan.turns
        return (self.observe(), self._verdict()) if self._over else (wrong + self.observe(), None)

    def actions(self) -> list[str]:
        """The names of the discrete actions. Raises UserError where actions are free text."""
        if not self._names:
            raise UserError(
                f"the actions of '{self._plan.env}' are free text, which no scripted player can give"
            )
        return list(self._names)

    def close(self) -> None:
        self._env.close()

    def _action(self, command: str) -> Any:
        if not self._names:
            return command if self._env.action_space.contains(command) else None
        found = [i for i, name in enumerate(self._names) if name.lower() == command.lower()]
        start = int(getattr(self._env.action_space, "start", 0))
        return np.int64(start + found[0]) if found else None

    def _verdict(self) -> Verdict:
        plan = self._plan
        share = float(np.clip((self._total - plan.low) / (plan.high - plan.low), 0, 1))
        unary, hint = "You did not reach the goal.", f"You got {self._total:g}; {plan.high:g} was wanted."
        told = feedback_text(plan.feedback, unary, hint, hint) if share < 1 else ""
        return Verdict(share, share == 1, told)


def opened(env: str) -> Any:
    """The environment, drawing itself as text where it can. Raises UserError."""
    import gymnasium

    module, _, name = env.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        spec = gymnasium.spec(name)
    except Exception as error:
        raise UserError(f"task 'gymnasium': there is no environment '{env}': {_short(error)}") from None
    try:
        entry: Any = spec.entry_point
        creator = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        modes = getattr(creator, "metadata", {}).get("render_modes", ())
        how: dict[str, Any] = {"render_mode": "ansi"} if "ansi" in modes else {}
        return gymnasium.make(name, **how)
    except Exception as error:
        raise UserError(f"task 'gymnasium': '{env}' cannot be made: {_short(error)}") from None


def named(env: Any, actions: tuple[str, ...]) -> tuple[str, ...]:
    """The names of its discrete actions; () for free text. Raises UserError where it cannot be played in words."""
    from gymnasium import spaces

    name = env.spec.id if env.spec else "the environment"
    space = env.action_space
    if not isinstance(space, spaces.Text | spaces.Discrete):
        raise UserError(
            f"task 'gymnasium': the actions of '{name}' are {space}; they must be Text or Discrete"
        )
    if not (env.render_mode == "ansi" or _sayable(env.observation_space)):
        raise UserError(
            f"task 'gymnasium': '{name}' shows {env.observation_space}; it must show Text or discrete values, or draw itself as text"
        )
    if isinstance(space, spaces.Text):
        return ()
    if actions and len(actions) != space.n:
        raise UserError(f"task 'gymnasium': actions names {len(actions)} actions, and '{name}' has {space.n}")
    return actions or tuple(str(int(space.start) + i) for i in range(int(space.n)))


def said(seen: Any) -> str:
    """A value of a discrete space in words."""
    if isinstance(seen, Mapping):
        return ", ".join(f"{k}: {said(v)}" for k, v in seen.items())
    if isinstance(seen, tuple | list):
        return ", ".join(map(said, seen))
    return " ".join(map(str, np.asarray(seen).reshape(-1).tolist()))


def _sayable(space: Any) -> bool:
    from gymnasium import spaces

    if isinstance(space, spaces.Tuple):
        return all(map(_sayable, space.spaces))
    if isinstance(space, spaces.Dict):
        return all(map(_sayable, space.spaces.values()))
    return isinstance(space, spaces.Text | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def source(name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> Any:
    """The environment `env` as a source. Raises UserError."""
    if not given:
        return Catalogued(ADAPTER)
    own = ADAPTER.read(given, "env")
    if not own["high"] > own["low"]:
        raise UserError(f"task 'gymnasium': high={own['high']:g} must be more than low={own['low']:g}")
    env = opened(own["env"])
    names = named(env, tuple(own["actions"]))
    env.close()
    told = f" Actions: {', '.join(names)}." if names else ""
    prompt = own["prompt"] or f"You act in {own['env']}.{told} Each turn, reply with one action."

    def make(seed: int) -> World:
        plan = Gym(own["env"], seed, names, own["turns"], own["low"], own["high"], own["feedback"])
        return World(prompt, plan, [own["env"], seed % 2**31])

    return WorldSource(called or name, ADAPTER.info, make, sorted(own.items(), key=repr), own["feedback"])
