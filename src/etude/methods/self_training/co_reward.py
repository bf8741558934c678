"""Co-Reward (Zhang et al., arXiv 2508.00410): two wordings of a question judge each other's answers.

Answers are drawn to the question and to a rewording of it. The majority among the answers to one is the label for the other,
and the other way round; each half is then credited as GRPO credits a group. A wording on which the model agrees with itself for a
bad reason does not reward itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.assembly import build
from etude.credit.group import assigned, standardised
from etude.fixtures.unjudged import group_of
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.attempts import reworded
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.rollout.unjudged import commonest, labelled, said, unjudged
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Episode, Group, Signal

VIEW = "view"
"""Note: which wording an answer was given to, 0 or 1."""

SecondView = Annotated[str, Setting("the second wording; {question} is the first")]


def two_views(
    second_view: SecondView = "Here is a problem to be solved.\n\n{question}\n\nWhat is its answer?",
) -> GroupRolloutStage:
    """Half of the samples for each wording; each judged by what most of the other half say."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        task, half = rollouts.task, max(1, rollouts.samples // 2)
        text = second_view.replace("{question}", task.prompt[-1].content)
        other = replace(
            task,
            prompt=reworded(task.prompt, text),
            meta={**task.meta, "parent": task.meta.get("parent", task.key)},
        )
        first = await rollouts.plays(range(half))
        more = [await rollouts.play(i, task=other) for i in range(half, 2 * half)]
        views = [first, [e for found in more for e in found]]
        labels = [commonest([said(e) for e in view if e.failure is None]) for view in views]
        judged = []
        for number, view in enumerate(views):
            for episode in view:
                noted = replace(episode, task=task, notes={**episode.notes, VIEW: number})
                judged.append(noted if noted.failure else labelled(noted, labels[1 - number]))
        return judged

    return group_rollout


def within_views() -> Credit:
    """A_i = (r_i - mean r) / (std r + 1e-4) among the answers to the same wording."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        rows = []
        for group in groups:
            views = np.array([e.notes.get(VIEW, 0) for e in group.episodes])
            row = np.zeros(len(views))
            for view in set(views.tolist()):
                row[views == view] = standardised(group.rewards[views == view])
            rows.append(row)
        return assigned(groups, rows)

    return credit


def _crossed() -> list[float]:
    """7 7 5 to the question, 5 5 7 to its rewording: labels 7 and 5, crossed."""
    return [e.reward for e in group_of(build(RECIPE)[1], ("7", "7", "5", "5", "5", "7"))]


def _credited() -> list[float]:
    episodes = group_of(build(RECIPE)[1], ("7", "7", "5", "5", "5", "5"))
    signals = build(RECIPE)[1]["credit"](
        [Group(episodes[0].task, tuple(episodes))], None
    )  # labels 7, and 5 for the first half
    return [float(s.advantage[-1]) for s in signals]


RECIPE: Recipe = Recipe(
    name="co_reward",
    base=GRPO,
    paper=Paper(
        "Co-Reward: Self-supervised Reinforcement Learning for Large Language Model Reasoning via Contrastive Agreement",
        "2508.00410",
        2025,
    ),
    idea="Asks the same question in two wordings and takes the majority of one for the label of the other. No gold answer is needed. "
    "What holds for both wordings is rewarded, so agreement with oneself is harder to fake.",
    equation="r_i = 1[a_i = mode(a')], r'_i = 1[a'_i = mode(a)];  A within each wording, otherwise as GRPO",
    stages={
        "rollout": stage(unjudged),
        "group_rollout": stage(two_views),
        "reward": stage(optional_verdict),
        "credit": stage(within_views),
    },
    needs=("text",),
    defaults={"unlabelled": True},
    departures=(
        "the second wording is a template; the paper has a model rewrite every question beforehand",
        "run.group_size samples are shared by the two wordings",
        "no KL to the first weights by default (0.005 in the paper)",
    ),
    claim="Training lasts longer before agreement rises while accuracy falls than with votes on one wording.",
    examples=(
        ByHand("labels 5 for the first half, 7 for the second", _crossed, [0, 0, 1, 0, 0, 1]),
        ByHand(
            "rewards 0 0 1 and 0 0 0: mean 1/3, std sqrt(2)/3; nothing among equals",
            _credited,
            [*[-(1 / 3) / (2**0.5 / 3 + 1e-4)] * 2, (2 / 3) / (2**0.5 / 3 + 1e-4), 0, 0, 0],
        ),
    ),
)
