"""Scripted players of environments that say what can be done (`actions`): what they reach is the bar that a model has to pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude import seeds
from etude.errors import UserError, nearest
from etude.evaluate.intervals import Interval, clustered
from etude.evaluate.run import hold_out
from etude.tasks import TaskSet
from etude.tasks.settled import settled
from etude.types import Task, Verdict

LONGEST = 1000  # turns after which a player is stopped

Player = Callable[[Any, Task, "list[str]", np.random.Generator], str]
"""(environment, its task, replies so far, randomness) -> the next reply."""


def random_player(environment: Any, task: Task, before: list[str], rng: np.random.Generator) -> str:
    """Any of the actions, each equally likely."""
    found = environment.actions()
    return str(found[int(rng.integers(len(found)))])


def greedy_player(environment: Any, task: Task, before: list[str], rng: np.random.Generator) -> str:
    """The action that shares most words with the task's question, of those that were given least often so far; of equal
    ones any."""
    asked = set(_words(task.prompt[-1].content))
    found = environment.actions()
    scored = [(before.count(a), -len(asked & set(_words(a)))) for a in found]
    best = [a for a, s in zip(found, scored, strict=True) if s == min(scored)]
    return str(best[int(rng.integers(len(best)))])


def expert_player(environment: Any, task: Task, before: list[str], rng: np.random.Generator) -> str:
    """What the environment's own expert does."""
    return str(environment.expert())


PLAYERS: Mapping[str, Player] = {
    "random": random_player,
    "greedy": greedy_player,
    "expert": expert_player,
}


@dataclass(frozen=True)
class Played:
    """What a scripted player reached. `solved`: with its 95 % interval over the tasks; `turns`: the mean of an episode."""

    player: str
    solved: Interval
    reward: float
    turns: float

    def to_dict(self) -> dict[str, Any]:
        s = self.solved
        return {
            "player": self.player,
            "solved": [s.mean, s.low, s.high],
            "problems": s.problems,
            "reward": self.reward,
            "turns": self.turns,
        }


def play(player: str, task: Task, seed: int = 0) -> tuple[Verdict, list[str]]:
    """One episode: its verdict and the replies. Raises UserError where the environment does not say what can be done."""
    if player not in PLAYERS:
        raise UserError(f"there is no scripted player '{player}'{nearest(player, PLAYERS)}")
    if task.environment is None:
        raise UserError(f"'{task.kind}' is no environment, so nothing can be played")
    key = seeds.key(seed, "player", player, task.key)
    environment: Any = task.environment(key)
    needed = "expert" if player == "expert" else "actions"
    if not hasattr(environment, needed):
        raise UserError(f"the environment of '{task.kind}' has no {needed}(), which '{player}' needs")
    rng = seeds.generator(key, "moves")
    replies: list[str] = []
    try:
        settled(environment.observe())
        for _ in range(LONGEST):
            replies.append(PLAYERS[player](environment, task, replies, rng))
            _, verdict = settled(environment.act(replies[-1]))
            if verdict is not None:
                return verdict, replies
    finally:
        if hasattr(environment, "close"):
            settled(environment.close())
    raise UserError(f"the environment of '{task.kind}' has no end: {LONGEST} turns were played")


def measure(player: str, tasks: TaskSet, problems: int = 200, seed: int = 0) -> Played:
    """The player on the held-out tasks, each once. Raises UserError as `play` does."""
    found = [play(player, task, seed) for task in hold_out(tasks, problems)]
    return Played(
        player,
        clustered([float(v.correct) for v, _ in found]),
        float(np.mean([v.reward for v, _ in found])),
        float(np.mean([len(replies) for _, replies in found])),
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
