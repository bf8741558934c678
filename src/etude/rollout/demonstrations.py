"""Group rollouts in which a demonstration stands beside the attempts."""

from __future__ import annotations

from typing import Annotated

from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting
from etude.stages import GroupRolloutStage
from etude.types import Episode

WarmupShare = Annotated[
    float, Setting("share of the run that imitates before the first attempt", low=0, high=1)
]


def demonstration_and_attempts(warmup_share: WarmupShare = 0.0) -> GroupRolloutStage:
    """The demonstration, and after the warm-up attempts as well."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        attempts = [] if rollouts.progress < warmup_share else await rollouts.plays(range(rollouts.samples))
        return [*attempts, rollouts.demonstrate()]

    return group_rollout
