"""Answers that a task brings with it, of which one is preferred, laid out as episodes that nobody sampled."""

from __future__ import annotations

from dataclasses import replace

from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.stages import GroupRolloutStage
from etude.tasks.pairs import CHOSEN, REJECTED
from etude.types import Episode, Task

SIDES = (CHOSEN, REJECTED)  # columns of `Task.meta`, and tags of the spans


def given(task: Task) -> dict[str, str]:
    """The answers that a task brings, by side: both, or one whose like or dislike is known, or none."""
    found = {side: task.meta.get(side) for side in SIDES}
    return {side: text for side, text in found.items() if isinstance(text, str) and text}


def side_of(episode: Episode) -> str:
    """Which side of a given pair an episode is; "" for any other."""
    return next((s.tag for s in episode.spans if s.tag in SIDES), "")


def lay_out(rollouts: GroupRollout) -> list[Episode]:
    """The given answers as demonstrations, each ended as a reply is; the chosen one has reward 1, the rejected 0."""
    found = []
    for number, (side, text) in enumerate(given(rollouts.task).items()):
        conversation = rollouts.conversation(DEMONSTRATION + number)
        conversation.user(rollouts.task.prompt)
        conversation.inject(text, side)
        episode = replace(conversation.done(), player=DEMONSTRATED)
        found.append(episode.with_scores({"reward": float(side == CHOSEN)}))
    return found


# ---- stages ------------------------------------------------------------------------------------------


def pairs_or_attempts() -> GroupRolloutStage:
    """The answers that the task brings; where it brings none, attempts, whose rewards say which is preferred."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        return lay_out(rollouts) or await rollouts.plays(range(rollouts.samples))

    return group_rollout


def pairs_or_solution() -> GroupRolloutStage:
    """The answers that a task brings; of any other task its own solution. Nothing is sampled."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        return lay_out(rollouts) or [rollouts.demonstrate()]

    return group_rollout
