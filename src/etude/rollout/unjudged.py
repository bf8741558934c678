"""Answers that nobody judges, and votes in the place of a judge: training without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from etude.rollout.attempts import ANSWERS, answer_of, notes_of
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.stages import GroupRolloutStage, Rollout
from etude.types import Episode, Task, Verdict


def unjudged() -> Rollout:
    """One answer, of which is noted (`ANSWERS`) what it says. No checker is asked."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.user(task.prompt)
        text = await conversation.reply()
        return conversation.done(**{ANSWERS: [answer_of(task, text)]})

    return rollout


def said(episode: Episode) -> str | None:
    """What an unjudged answer says; None where it says nothing."""
    answers = notes_of(episode, ANSWERS)
    return answers[-1] if answers else None


def commonest(answers: Sequence[str | None]) -> str | None:
    """The answer that most give; of equally many the one that was given first; None where nobody gives any."""
    given = [a for a in answers if a is not None]
    return max(dict.fromkeys(given), key=given.count) if given else None


def labelled(episode: Episode, label: str | None) -> Episode:
    """The episode with a verdict by a label that the policy itself gave: 1 where it says the same."""
    right = label is not None and said(episode) == label
    verdict = Verdict(float(right), right, "" if right else "Others say something else.")
    return replace(episode, verdicts=(verdict,), scores={**episode.scores, "reward": verdict.reward})


def voted() -> GroupRolloutStage:
    """`samples` answers, each judged by whether it says what most of them say. "correct" means that from here on."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        label = commonest([said(e) for e in episodes if e.failure is None])
        return [e if e.failure else labelled(e, label) for e in episodes]

    return group_rollout
