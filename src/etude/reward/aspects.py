"""Several rewards of one answer, for methods that weigh them."""

from __future__ import annotations

from etude.rollout.table import verdict
from etude.types import Episode

ASPECTS = "accuracy+conciseness+format"


def aspects():
    """accuracy: the verdict's reward; conciseness: 1 - sampled tokens / limit; format: whether the answer ended by
    itself. `reward` is their mean."""

    def reward(episode: Episode) -> dict[str, float]:
        accuracy = verdict()(episode)["reward"]
        conciseness = 1 - float(episode.sampled.sum()) / episode.notes["limit"]
        own = (accuracy, conciseness, float(episode.stop == "end"))
        return {"reward": sum(own) / len(own), **dict(zip(ASPECTS.split("+"), own, strict=True))}

    return reward
