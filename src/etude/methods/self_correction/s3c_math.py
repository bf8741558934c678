"""S3c-Math: solutions in which one step goes wrong and is put right at once; the wrong step itself is not imitated.

At a step of a right solution the policy writes what it would do there. Where that leads to a wrong answer, a trace is made: the
right steps before, the wrong one, a sentence that notices it, the right step and the rest. All of it but the wrong step is
imitated, beside plain solutions. S3c-Math, arXiv 2409.01524."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, shown, tagged
from etude.fixtures.curricula import built
from etude.fixtures.examples import EXAMPLE_TASK, example_episode
from etude.methods.self_correction.lemma import CORRECTION, ERROR, MEND, correction
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED, answer_tokens
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.probe import Separator
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage, Rollout
from etude.types import Array, Episode, Group, Signal, Span, Task

RIGHT_SO_FAR = "right so far"
"""Tag of the right steps before the wrong one (`ERROR`), which `CORRECTION` follows."""

# ---- group rollout --------------------------------------------------------------------------------------------------


def slips(
    own: Annotated[int, Setting("traces from own wrong steps, per task at most", low=0)] = 2,
    separator: Separator = "\n",
) -> GroupRolloutStage:
    """The demonstration, and traces. For each of `own` a step of the solution is drawn; the policy goes on from before it; if
    what it writes ends wrong and its first step is not the solution's, that step is the error. Traces that the checker
    rejects are thrown away."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        numbers = range(DEMONSTRATION + 1, DEMONSTRATION + 1 + own)
        traces = await asyncio.gather(*(rollouts.play(i, _traced(separator)) for i in numbers))
        return [rollouts.demonstrate(), *(e for found in traces for e in found)]

    return group_rollout


def _traced(separator: str) -> Rollout:
    async def rollout(task: Task, conversation: Conversation) -> list[Episode]:
        solution = task.reference or task.answer or ""
        right = solution.split(separator) if separator else list(solution)
        at = int(seeds.generator(conversation.key, "step").integers(len(right)))
        encode = conversation.generator.renderer.tokenizer.encode
        before = separator.join([*right[:at], ""]) if at else ""
        conversation.user(task.prompt)
        if before:
            conversation.force_prefix(encode(before))
        text = await conversation.reply()
        verdict = await conversation.check(text)
        said = text.removeprefix(before)
        step = (said.split(separator)[0] if separator else said[:1]).strip()
        if verdict.correct or not step or step == right[at].strip():
            return []
        words = correction(before + step, right, at, False, separator)
        trace = Conversation(
            task, conversation.generator, conversation.check_runner, conversation.key, conversation.index
        )
        trace.user(task.prompt)
        if before:
            trace.force_prefix(encode(before), RIGHT_SO_FAR)
        trace.force_prefix(encode(step), ERROR)
        trace.force_prefix(answer_tokens(conversation.generator.renderer, words), CORRECTION)
        verdict = await trace.check(before + step + words)
        return [replace(trace.done(), player=DEMONSTRATED)] if verdict.correct else []

    return rollout


# ---- credit ------------------------------------------------------------------------------------------------------------


@writes(IMITATION)
def but_the_error(
    mask_errors: Annotated[bool, Setting("leave the wrong step out of the loss")] = True,
) -> Credit:
    """Demonstrations, and of traces everything but the wrong step."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = [s for s in shown(groups) if s.weights[IMITATION].any()]
        for episode in (e for g in groups for e in g.demonstrations):
            if (mended := tagged(episode, CORRECTION)).any():
                where = mended | tagged(episode, RIGHT_SO_FAR)
                signals.append(imitate(episode, where if mask_errors else where | tagged(episode, ERROR)))
        return signals

    return credit


# ---- the recipe ----------------------------------------------------------------------------------------------------------


def _weights(mask_errors: bool) -> list[Array]:
    """Of a trace of two right tokens, one wrong and two that mend it, behind a prompt of one: the row `IMITATION`."""
    parts = ((RIGHT_SO_FAR, 2), (ERROR, 1), (CORRECTION, 2))
    spans = [Span("assistant", np.ones(n, np.int32), tag=tag) for tag, n in parts]
    trace = Episode(EXAMPLE_TASK, (Span("user", np.zeros(1, np.int32)), *spans), player=DEMONSTRATED)
    credit = built(RECIPE, "credit", {"mask_errors": mask_errors})
    (signal,) = credit([Group(EXAMPLE_TASK, (), demonstrations=(trace,))], None)
    return [signal.weights[IMITATION]]


def _rewards() -> list[float]:
    checked = example_episode(0.5)
    return [built(RECIPE, "reward")(e)["reward"] for e in (checked, replace(checked, verdicts=()))]


RECIPE = Recipe(
    name="s3c_math",
    paper=Paper(
        "S^3c-Math: Spontaneous Step-level Self-correction Makes Large Language Models Better Mathematical Reasoners",
        "2409.01524",
        2024,
    ),
    idea="Solutions are shown in which one step goes wrong, is noticed and put right before the rest follows. The wrong step is one that "
    "the policy itself takes at that point and that leads it astray. It is there to be read, not to be imitated.",
    equation="L = - mean_t log pi(y_t | x) over right solutions and over (s_<k, e_k, 'Wait', s_k, ...), without the tokens of e_k",
    departures=(
        "GUESS: a step is wrong where it is not the solution's own and what the policy writes after it ends wrong",
        f"the reflection is one fixed sentence ('{MEND}'), which does not say why the step is wrong",
        "traces are made by the policy as it is now, at every step; the paper makes 532k once",
    ),
    confidence="guess",
    stages={
        "group_rollout": stage(slips),
        "reward": stage(verdict_if_any),
        "credit": stage(but_the_error),
        "objective": stage(cross_entropy),
    },
    needs=("answer", "text"),
    claim="Traces raise accuracy, wrong steps that are forced on it are mended in line, and leaving the wrong step out is better than not.",
    manipulation=(Manipulated("tokens are trained on", "signal_tokens", 0.01),),
    examples=(
        ByHand("the reward of what was checked, and 1 for what was not", _rewards, [0.5, 1]),
        ByHand("of a trace all but the wrong step", lambda: _weights(True), [[0, 1, 1, 0, 1, 1]]),
        ByHand("... and with it", lambda: _weights(False), [[0, 1, 1, 1, 1, 1]]),
        OffPolicy(
            "a token mean over solutions and traces: -log p at exp(-1) twice and at 2 exp(-1); the wrong step counts nothing",
            ratio=(1.0, 1.0, 5.0, 2.0),
            advantage=(0.0, 0.0, 0.0, 0.0),
            lengths=(2, 2),
            weights={IMITATION: (1, 1, 0, 1)},
            loss=(3 - math.log(2)) / 3,
            gradient=(-1 / 3, -1 / 3, 0, -1 / 3),
        ),
        Reduction("no traces: supervised fine-tuning", "sft", {"group_rollout.own": 0}),
    ),
)
