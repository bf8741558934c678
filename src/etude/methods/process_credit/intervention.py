"""InT (arXiv 2601.14209): where every attempt fails, the model is shown one of them beside a right solution, and names
the first wrong step with a better one in its place. If continuing from there can succeed, it imitates the steps before
and the corrected step, and nothing after; so blame falls on one step of the attempt."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.group import each, standardised
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.fixtures.given import GivenContext, beyond_prompt, example_answers, given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.hybrid import ImitationWeight, imitation
from etude.objective.policy import High, Low, MeanOver, clipped
from etude.objective.terms import Objective
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.intervene import first_departure, propose, read_proposal, reveals
from etude.rollout.probe import PROBE, Separator, continued, last_turn, steps_of, tokens_left
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Array, Episode, Group, Signal, Span, Task

INTERVENTION_INDEX = 1 << 21  # the index of a corrected attempt within its group
INTERVENTION = "intervention"  # the tag of a corrected step


def intervening(
    end_at: Annotated[float, Setting("share of the run at which interventions end", low=0, high=1)] = 0.5,
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
) -> GroupRolloutStage:
    """Attempts; where all are wrong, also the first of them up to its first wrong step, with that step replaced: a
    demonstration, tagged INTERVENTION and, where the continuation is kept, PROBE."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        hard = not any(e.correct or e.failure for e in episodes)
        if not hard or rollouts.progress >= end_at:
            return episodes
        wrong = episodes[0]

        async def intervene(task: Task, conversation: Conversation) -> list[Episode]:
            tokenizer = rollouts.generator.renderer.tokenizer
            cuts, steps = steps_of(tokenizer, wrong, separator)
            proposal = await propose(rollouts, conversation, steps, proposer, separator)
            if proposal is None or reveals(proposal[1], task.answer):
                return []
            cut = cuts[proposal[0]]
            begun = rollouts.resume_from(wrong, cut, INTERVENTION_INDEX)
            begun.force_prefix(tokenizer.encode(proposal[1] + separator), tag=INTERVENTION)
            tried = await continued(begun, continuations, max_tokens=tokens_left(rollouts, wrong, cut))
            verdicts = await asyncio.gather(*(t.check(last_turn(t)) for t in tried))
            right = [t for t, v in zip(tried, verdicts, strict=True) if v.correct][:1]
            return [
                replace((t if suffix else begun).done(), player=DEMONSTRATED, verdicts=tuple(t.verdicts))
                for t in right
            ]

        return [*episodes, *await rollouts.play(INTERVENTION_INDEX, intervene)]

    return group_rollout


def corrected_tokens(episode: Episode, with_prefix: bool) -> Array:
    """bool[T]: the tokens of an intervention, and of what the policy wrote before it."""
    mine = np.repeat([s.role == "assistant" for s in episode.spans], [len(s) for s in episode.spans])
    return mine if with_prefix else tagged(episode, INTERVENTION) | tagged(episode, PROBE)


@writes("policy", IMITATION)
def practise_and_correct(
    imitate_prefix: Annotated[bool, Setting("imitate the steps before the intervention as well")] = True,
    begin_at: Annotated[
        float, Setting("share of the run at which reinforcement begins", low=0, high=1)
    ] = 0.0,
) -> Credit:
    """GRPO's advantages for attempts; imitation of interventions."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        practised = groups if context.progress >= begin_at else []
        corrected = [e for g in groups for e in g.demonstrations]
        imitated = [imitate(e, corrected_tokens(e, imitate_prefix)) for e in corrected]
        return each(standardised)(practised, context) + imitated

    return credit


def clipped_and_imitation(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    mean: MeanOver = "episode",
    imitation_weight: ImitationWeight = 1.0,
) -> Objective:
    """GRPO's loss and cross-entropy, a token mean."""
    return clipped(clip_low, clip_high, mean) + imitation(imitation_weight)


def _rows(progress: float, **settings: float | bool) -> list[list[float]]:
    """Advantages and imitation weights of attempts of rewards 1 and 0, and of a corrected attempt: a step of two tokens,
    the intervention of one."""
    group = example_answers((1.0, (2,)), (0.0, (3,)))
    prompt, _ = group.episodes[0].spans
    steps = (Span("assistant", np.array([4, 5], np.int32), tag="attempt"),)
    correction = Span("assistant", np.array([6], np.int32), tag=INTERVENTION)
    corrected = Episode(group.task, (prompt, *steps, correction), player=DEMONSTRATED)
    credit = given_stage(RECIPE, "credit", begin_at=0.5, **settings)
    signals = credit([replace(group, demonstrations=(corrected,))], GivenContext(progress=progress))
    return [beyond_prompt(signals, name) for name in ("advantage", IMITATION)]


UP = 0.5 / 0.5001  # (r - mean) / (std + 1e-4) of rewards 1 and 0
RECIPE = Recipe(
    name="intervention",
    base=GRPO,
    paper=Paper(
        "InT: Self-Proposed Interventions Enable Credit Assignment in LLM Reasoning", "2601.14209", 2026
    ),
    idea="Where every attempt fails, the model itself is shown one of them beside a right solution, and names the first wrong step with a better one in its place. "
    "If continuing from there can succeed, it imitates the steps before and the corrected step, and nothing after. "
    "So blame falls on one step of the attempt, and reinforcement finds tasks that it can now solve.",
    equation="L = L_GRPO - mean over t <= end of y~ of log pi(y_t),  y = (y_0 .. y_{t*-1}, y~), kept if some continuation is right",
    departures=(
        "imitation and GRPO share their steps in the first half of the run; credit.begin_at = group_rollout.end_at has them one after the other, as in the paper",
        "one attempt per task is corrected, the first, and continued 8 times, where the paper continues 32 times",
        "a comparison with the reference may take the model's place (group_rollout.proposer), for models too small to be asked",
        "steps are lines, where the paper has paragraphs",
    ),
    stages={
        "group_rollout": stage(intervening),
        "credit": stage(practise_and_correct),
        "objective": stage(clipped_and_imitation),
    },
    needs=("reference", "text"),
    claim="Tasks solved: with prefix and intervention more than without the prefix, and that more than with the suffix; entropy stays near the start's.",
    manipulation=(Manipulated("one task in twenty is corrected", "demonstrated", 0.05),),
    examples=(
        ByHand(
            "'2: a better step', of 3 and of 1 steps",
            lambda: [read_proposal("Well.\n2: so 7", n) is not None for n in (3, 1)],
            [1, 0],
        ),
        ByHand("the second of three lines departs", lambda: first_departure("abc", "axc")[0], 1),  # type: ignore[index]
        ByHand(
            "attempts are reinforced, the step before and the correction imitated",
            lambda: _rows(0.5),
            [[UP, -UP, 0, 0, 0], [0, 0, 1, 1, 1]],
        ),
        ByHand(
            "before begin_at nothing is reinforced; the correction alone",
            lambda: _rows(0.4, imitate_prefix=False),
            [[0, 0, 0], [0, 0, 1]],
        ),
        # Clipped: ((-1.3 - 0.9) / 2 + (2 x 0.8 + 1.1) / 2) / 2. Imitation, halved: (1 - ln 2 + 1) / 2.
        OffPolicy(
            "GRPO's clip on attempts, half the cross-entropy on a correction",
            ratio=(1.5, 0.9, 0.5, 1.1, 2.0, 1.0),
            advantage=(1.0, 1.0, -2.0, -1.0, 0.0, 0.0),
            lengths=(2, 2, 2),
            weights={"policy": (1, 1, 1, 1, 0, 0), IMITATION: (0, 0, 0, 0, 1, 1)},
            loss=(-2.2 + 2.7) / 4 + 0.5 * (2 - math.log(2)) / 2,
            gradient=(0, -0.9 / 4, 0, 1.1 / 4, -0.25, -0.25),
            settings={"objective.imitation_weight": 0.5, "objective.clip_high": 0.3},
        ),
        Reduction("no interventions: GRPO", "grpo", {"group_rollout.end_at": 0.0}),
    ),
)
