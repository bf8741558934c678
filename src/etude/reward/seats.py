"""What one side of a game is worth."""

from __future__ import annotations

from etude.curriculum.filter import VERDICT
from etude.rollout.seats import RETURN
from etude.stages import Reward
from etude.types import Episode


def seat_return() -> Reward:
    """What the episode's seat won (note `RETURN`), in the game's own unit; the last verdict's reward where there was no
    game. Score `VERDICT`: the verdict's own reward."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        return {
            "reward": float(episode.notes.get(RETURN, episode.verdict.reward)),
            VERDICT: episode.verdict.reward,
        }

    return reward
