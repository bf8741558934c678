"""InT: the model corrects the first wrong step of its own failed attempt, and learns that one step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import each, standardised
from etude.credit.imitate import imitate, tagged
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.hybrid import Imitation, imitation
from etude.objective.policy import High, Low, MeanOver, clipped
from etude.objective.terms import Objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.intervene import first_departure, propose, read_proposal, reveals
from etude.rollout.probe import Separator, continued, room, said, steps_of
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal, Task

INTERVENTION = 1 << 21  # the seat of whoever corrects an attempt


def intervening(
    until: Annotated[float, Setting("share of the run in which interventions are made", low=0, high=1)] = 0.5,
    proposer: Annotated[
        str,
        Setting(
            "who finds the wrong step: the policy, or its comparison with the reference",
            choices=("self", "reference"),
        ),
    ] = "self",
    separator: Separator = "\n",
    continuations: Annotated[int, Setting("continuations, one of which must be right", low=1)] = 8,
    suffix: Annotated[bool, Setting("keep the right continuation as well")] = False,
):
    """Attempts; where all are wrong, also the first of them up to its first wrong step, with that step replaced
    (an episode that nobody played; tags "intervention" and, if kept, "probe")."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        hard = not any(e.correct or e.failure for e in episodes)
        if not hard or rollouts.progress >= until:
            return episodes
        wrong = episodes[0]

        async def intervene(task: Task, conversation: Conversation) -> list[Episode]:
            tokenizer = rollouts.generator.renderer.tokenizer
            cuts, steps = steps_of(tokenizer, wrong, separator)
            proposal = await propose(rollouts, conversation, steps, proposer, separator)
            if proposal is None or reveals(proposal[1], task.answer):
                return []
            cut = cuts[proposal[0]]
            begun = rollouts.resume_from(wrong, cut, INTERVENTION)
            begun.force_prefix(tokenizer.encode(proposal[1] + separator), tag="intervention")
            tried = await continued(begun, continuations, max_tokens=room(rollouts, wrong, cut))
            verdicts = await asyncio.gather(*(t.check(said(t)) for t in tried))
            right = [t for t, v in zip(tried, verdicts, strict=True) if v.correct][:1]
            return [
                replace((t if suffix else begun).done(), player="demonstration", verdicts=tuple(t.verdicts))
                for t in right
            ]

        return [*episodes, *await rollouts.play(INTERVENTION, intervene)]

    return group_rollout


def written(episode: Episode, prefix: bool) -> Array:
    """bool[T]: the tokens of an intervention, and of what the policy wrote before it."""
    mine = np.repeat([s.role == "assistant" for s in episode.spans], [len(s) for s in episode.spans])
    return mine if prefix else tagged(episode, "intervention") | tagged(episode, "probe")


def practise_and_correct(
    prefix: Annotated[bool, Setting("imitate the steps before the intervention as well")] = True,
    begin: Annotated[float, Setting("share of the run before attempts are reinforced", low=0, high=1)] = 0.0,
):
    """GRPO's advantages for attempts; imitation of interventions (InT, arXiv 2601.14209)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        practised = groups if context.progress >= begin else []
        corrected = [e for g in groups for e in g.demonstrations]
        return each(standardised)(practised, context) + [imitate(e, written(e, prefix)) for e in corrected]

    return credit


def clipped_and_imitate(
    low: Low = 0.2, high: High = 0.2, mean: MeanOver = "episode", imitate: Imitation = 1.0
) -> Objective:
    """GRPO's loss and cross-entropy, a token mean."""
    return clipped(low, high, mean) + imitation(imitate)


RECIPE = Recipe(
    name="intervention",
    n=17,
    base=GRPO,
    paper=Paper(
        "InT: Self-Proposed Interventions Enable Credit Assignment in LLM Reasoning", "2601.14209", 2026
    ),
    idea="Where every attempt fails, the model itself is shown one of them beside a right solution, and names the first wrong step with a better one in its place. "
    "If continuing from there can succeed, it imitates the steps before and the corrected step, and nothing after. "
    "So blame falls on one step of the attempt, and reinforcement finds tasks that it can now solve.",
    equation="L = L_GRPO - mean over t <= end of y~ of log pi(y_t),  y = (y_0 .. y_{t*-1}, y~), kept if some continuation is right",
    departures=(
        "imitation and GRPO share their steps in the first half of the run; credit.begin = gather.until has them one after the other, as in the paper",
        "one attempt per task is corrected, the first, and continued 8 times, where the paper continues 32 times",
        "a comparison with the reference may take the model's place (gather.proposer), for models too small to be asked",
        "steps are lines, where the paper has paragraphs",
    ),
    stages={
        "group_rollout": stage(intervening),
        "credit": stage(practise_and_correct),
        "objective": stage(clipped_and_imitate),
    },
    needs=("reference", "text"),
    claim="Tasks solved: with prefix and intervention more than without the prefix, and that more than with the suffix; entropy stays near the start's.",
    examples=(
        ByHand(
            "'2: a better step', of 3 and of 1 steps",
            lambda: [read_proposal("Well.\n2: so 7", n) is not None for n in (3, 1)],
            [1, 0],
        ),
        ByHand("the second of three lines departs", lambda: first_departure("abc", "axc")[0], 1),  # type: ignore[index]
        Reduction("no interventions: GRPO", "grpo", {"group_rollout.until": 0.0}),
    ),
)
