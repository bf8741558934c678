"""The reward that a plan or a call asks for, in the place of the recipe's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import UserError
from etude.reward.combined import reward_of
from etude.reward.parts import Part, absolute, read
from etude.tasks import TaskSet
from etude.tasks.files import Listed
from etude.tasks.isolate import Pool
from etude.train.config import Plan
from etude.train.run import RewardFunction
from etude.train.settings import RunSettings
from etude.types import Request, Task


def with_rewards(plan: Plan, reward: RewardFunction | None) -> tuple[Plan, list[Part]]:
    """The plan, with those rewards that are text, and the parts of the reward; none where the recipe's own is asked for."""
    if reward is not None and plan.rewards:
        raise UserError("the reward is named twice, by the plan and beside it")
    texts = [reward] if isinstance(reward, str) else reward
    if isinstance(texts, list | tuple) and texts and all(isinstance(t, str) for t in texts):
        plan, reward = plan.but(rewards=tuple(texts)), None
    plan = plan.but(rewards=tuple(absolute(text) for text in plan.rewards))
    return plan, read(list(plan.rewards)) if plan.rewards else [] if reward is None else read(reward)


def rewarded(
    stages: dict[str, Any],
    parts: Sequence[Part],
    pool: Pool,
    settings: RunSettings,
    weights: Mapping[str, float] | None = None,
) -> None:
    """Puts the parts in the place of the recipe's reward, their models loaded."""
    if parts:
        stages["reward"] = reward_of(parts, pool, weights)
        if hasattr(stages["reward"], "load"):
            stages["reward"].load(precision=settings.precision, device=settings.device)


def asked_for(parts: Sequence[Part]) -> Any:
    """What a run remembers of its reward, to tell whether it is still the same: functions, and the texts of all else."""
    held = [part.score if part.user else part.text for part in parts]
    return held[0] if len(held) == 1 else held or None


def users_code(tasks: TaskSet, holdout: Sequence[Task], rewards: Sequence[Part] = ()) -> list[Any]:
    """The functions of the user's that there are before the first model is loaded: a reward, checks, environments."""
    listed = [t for s in tasks.sources if isinstance(s, Listed) for t in s.tasks("train")]
    seen = [tasks.draw(Request(), 0, 0), *listed, *holdout]
    of_tasks = [part for task in seen for part in (task.check, task.environment) if part is not None]
    return [*(part.score for part in rewards if part.user), *of_tasks]
