"""RuscaRL: the criteria of a rubric are shown to some of the attempts, and less and less as training goes on.

Within a group the attempts differ in how many criteria they are shown, from all to none, so that good answers occur and the last
attempt is always by itself. All are trained behind the bare prompt, and rewarded by the rubric. Breaking the Exploration Bottleneck:
Rubric-Scaffolded Reinforcement Learning for General LLM Reasoning, arXiv 2508.16949."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from etude import seeds
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.judge import Criterion, criteria_of
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import GroupRolloutStage, Rollout
from etude.tasks.check import judged
from etude.types import Episode, Message, Task

SCAFFOLD = "scaffold"  # note: how many criteria an attempt was shown


def shown_share(index: int, size: int, progress: float, middle: float, steepness: float) -> float:
    """(G - 1 - i)/(G - 1) x 1/(1 + exp(k (x - x0))): of attempt i of G, at the share x of the run."""
    within = (size - 1 - index) / (size - 1) if size > 1 else 0.0
    return within / (1 + math.exp(min(steepness * (progress - middle), 700.0)))


def scaffold(criteria: Sequence[Criterion], number: int, key: int) -> str:
    """`number` of the criteria, drawn by `key`, as an instruction; "" for none."""
    if not number:
        return ""
    drawn = sorted(seeds.generator("scaffold", key).permutation(len(criteria))[:number])
    good = [c.says for c in (criteria[i] for i in drawn) if c.points > 0]
    bad = [c.says for c in (criteria[i] for i in drawn) if c.points <= 0]
    parts = (
        ["Your answer should meet these points:\n" + "\n".join(f"- {says}" for says in good)] if good else []
    )
    parts += ["It should avoid these:\n" + "\n".join(f"- {says}" for says in bad)] if bad else []
    return "\n".join([*parts, "Do not mention these points."])


def rubric_of(task: Task) -> tuple[Criterion, ...]:
    """The task's rubric (column `rubric`), or else its hints, a point each."""
    given: Any = task.meta.get("rubric") or list(task.hints)
    return criteria_of(given, "the task's rubric") if given else ()


def with_criteria(number: int) -> Rollout:
    """One answer behind a system message with `number` criteria; training sees the task's own prompt."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        said = scaffold(rubric_of(task), number, conversation.key)
        own = [m for m in task.prompt if m.role != "system"]
        system = "\n\n".join(filter(None, [*(m.content for m in task.prompt if m.role == "system"), said]))
        if said:
            conversation.user([Message("system", system), *own], instead=task.prompt)
        else:
            conversation.user(task.prompt)
        reply = await conversation.reply()
        if judged(task):
            await conversation.check(reply)
        return conversation.done(**{SCAFFOLD: number})

    return rollout


def scaffolded(
    middle: Annotated[
        float, Setting("x0: share of the run at which half of the criteria are still shown", low=-1e3, high=1)
    ] = 0.2,
    steepness: Annotated[float, Setting("k: how abruptly they vanish", low=0, high=1e6)] = 125.0,
) -> GroupRolloutStage:
    """Attempt i of a group is shown a share of the criteria that falls from all to none over the group, and over the run."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        criteria, size = rubric_of(rollouts.task), rollouts.samples
        shares = (shown_share(i, size, rollouts.progress, middle, steepness) for i in range(size))
        numbers = [round(share * len(criteria)) for share in shares]
        found = []
        for number in sorted(set(numbers)):
            mine = [i for i in range(size) if numbers[i] == number]
            found += await rollouts.plays(mine, with_criteria(number))
        return sorted(found, key=lambda e: e.index)

    return group_rollout


RECIPE = Recipe(
    name="ruscarl",
    base=GRPO,
    paper=Paper(
        "Breaking the Exploration Bottleneck: Rubric-Scaffolded Reinforcement Learning for General LLM Reasoning",
        "2508.16949",
        2025,
    ),
    published_lr=1e-6,
    idea="What a good answer must contain stands in a rubric. "
    "Some attempts of each group are shown its criteria, the others fewer or none, and soon none are shown. "
    "Answers found with help are learned as if there had been none.",
    equation="share_i = (G-1-i)/(G-1) x 1/(1 + exp(k (x - x0)));  A_i as GRPO;  log pi of all attempts behind the bare prompt",
    departures=(
        "pi_old is the probability under the criteria, which were there when it was sampled; the release scores it anew behind the bare prompt",
        "the reward is whatever the run has: --reward judge:WHO,how=rubric, or a check",
        "without a column `rubric` a task's hints are its criteria",
    ),
    stages={"group_rollout": stage(scaffolded)},
    needs=("text",),
    claim="On tasks whose reward is rare, criteria that vanish early give a higher final accuracy without criteria than none.",
    unchecked="a fixed share of the attempts is shown criteria, fewer as the run goes on, whatever the policy does",
    examples=(
        ByHand(
            "the first of three sees all before the middle, half in it; the second half of that; the last none",
            lambda: [shown_share(i, 3, x, 0.2, 125.0) for x in (0.0, 0.2) for i in range(3)],
            [1, 0.5, 0, 0.5, 0.25, 0],
        ),
        ByHand(
            "criteria as points to meet and to avoid; none: nothing",
            lambda: [
                float(scaffold((Criterion("a"), Criterion("b", -1.0)), n, 0).count("- ")) for n in (0, 1, 2)
            ],
            [0, 1, 2],
        ),
        Reduction("criteria that vanished long ago: GRPO", "grpo", {"group_rollout.middle": -1000.0}),
    ),
)
