"""LEMMA: traces that go wrong, notice it, and end right.

A trace is a solution up to its first wrong step, a sentence that notices it, and the right steps from there on or from
the start. The wrong steps are the model's own, or put into a right solution on purpose; the model imitates the traces
beside ordinary right solutions, and so learns to turn back. LEMMA, arXiv 2503.17439."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude import seeds
from etude.assembly import build
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, shown, tagged
from etude.fixtures.examples import EXAMPLE_TASK
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED, answer_tokens
from etude.rollout.edits import subtle_error
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.intervene import propose, reveals
from etude.rollout.probe import Separator, steps_of
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Rollout
from etude.types import Array, Episode, Group, Signal, Span, Task

ERROR, CORRECTION = "error", "correction"
"""Tags of the two parts of a trace: right steps and the wrong one; what notices it, and the right steps."""

# ---- rollout -----------------------------------------------------------------------------------------

MEND = "Wait, the last step is wrong. It should be:"
RESTART = "Wait, this does not lead to the answer. Let me start again."


def correction(wrong: str, right: Sequence[str], wrong_at: int, restart: bool, separator: str) -> str:
    """What follows the text `wrong`, which ends in the wrong step number `wrong_at` (from 0): the right steps from there
    on, or all of them."""
    notice = RESTART if restart else MEND
    joint = (
        "" if wrong.endswith(separator) else separator
    )  # an attempt's step holds the separator that ends it
    return joint + notice + separator + separator.join(right if restart else right[wrong_at:])


class Corrected:
    """The demonstration; attempts; and traces, of the first wrong attempts and of right solutions with an error put in.
    Traces that the checker rejects are thrown away. They are demonstrations with the spans `ERROR`, `CORRECTION`."""

    def __init__(
        self,
        own: Annotated[int, Setting("traces from own wrong answers, per task at most", low=0)] = 2,
        injected: Annotated[int, Setting("traces from errors put into the solution, per task", low=0)] = 1,
        restart_share: Annotated[float, Setting("share of traces that start again", low=0, high=1)] = 0.5,
        finder: Annotated[
            str,
            Setting(
                "who finds the first wrong step: the policy, or comparison with the reference",
                choices=("self", "reference"),
            ),
        ] = "reference",
        separator: Separator = "\n",
    ) -> None:
        self.own, self.injected, self.restart_share = own, injected, restart_share
        self.finder, self.separator = finder, separator

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        solution = rollouts.demonstrate()
        if not self.own and not self.injected:
            return [solution]
        attempts = await rollouts.plays(range(rollouts.samples)) if self.own else []
        wrong = [e for e in attempts if not e.failure and not e.correct][: self.own]
        numbers = range(DEMONSTRATION + 1, DEMONSTRATION + 1 + len(wrong) + self.injected)
        jobs = [
            rollouts.play(i, self.traced(rollouts, e))
            for i, e in zip(numbers, [*wrong, *[None] * self.injected], strict=True)
        ]
        traces = [e for found in await asyncio.gather(*jobs) for e in found]
        return [*attempts, solution, *traces]

    def traced(self, rollouts: GroupRollout, wrong: Episode | None) -> Rollout:
        """A rollout that lays out one trace, or none."""

        async def rollout(task: Task, conversation: Conversation) -> list[Episode]:
            solution = task.reference or task.answer or ""
            right = solution.split(self.separator) if self.separator else list(solution)
            if wrong is not None:
                found = await self.departed(rollouts, conversation, wrong)
            else:
                found = self.with_error(conversation, right)
            if found is None:
                return []
            tokens, wrong_at = found
            restart = seeds.key(conversation.key, "fresh") / 2**63 < self.restart_share
            renderer = conversation.generator.renderer
            before = renderer.decode(tokens)
            words = correction(before, right, wrong_at, restart, self.separator)
            trace = Conversation(
                task, conversation.generator, conversation.check_runner, conversation.key, conversation.index
            )
            trace.user(task.prompt)
            trace.force_prefix(tokens, ERROR)
            trace.force_prefix(answer_tokens(renderer, words), CORRECTION)
            verdict = await trace.check(before + words)
            return [replace(trace.done(), player=DEMONSTRATED)] if verdict.correct else []

        return rollout

    async def departed(
        self, rollouts: GroupRollout, conversation: Conversation, wrong: Episode
    ) -> tuple[Array, int] | None:
        """A wrong attempt up to its first wrong step, and that step's number."""
        renderer = rollouts.generator.renderer
        cuts, steps = steps_of(renderer.tokenizer, wrong, self.separator)
        found = await propose(rollouts, conversation, steps, self.finder, self.separator)
        if found is None or (self.finder == "self" and reveals(found[1], rollouts.task.answer)):
            return None
        ends = wrong.tokens[cuts[0] : cuts[found[0] + 1]]
        return (ends[:-1] if len(ends) and int(ends[-1]) in renderer.stops else ends), found[0]

    def with_error(self, conversation: Conversation, right: Sequence[str]) -> tuple[Array, int] | None:
        """The solution up to a step, drawn by key, with a subtle error in it; None where none can be put in."""
        rng = seeds.generator(conversation.key, "error")
        at = int(rng.integers(len(right)))
        edited = subtle_error(right[at], rng)
        if edited is None:
            return None
        text = self.separator.join([*right[:at], edited])
        return conversation.generator.renderer.tokenizer.encode(text), at


# ---- credit ------------------------------------------------------------------------------------------


@writes(IMITATION)
def traces(
    mask_errors: Annotated[bool, Setting("leave the wrong part out of the loss")] = False,
) -> Credit:
    """Demonstrations, and traces: the whole of them, or the correction alone."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = [s for s in shown(groups) if s.weights[IMITATION].any()]
        for episode in (e for g in groups for e in g.demonstrations):
            where = tagged(episode, CORRECTION)
            if where.any():
                signals.append(imitate(episode, where if mask_errors else where | tagged(episode, ERROR)))
        return signals

    return credit


# ---- the recipe --------------------------------------------------------------------------------------


def _weights(mask_errors: bool) -> list[Array]:
    """Of a demonstration of 2 tokens and a trace of 1 + 2, behind a prompt of 1: the weights in the row `IMITATION`."""

    def laid(*parts: tuple[str, int]) -> Episode:
        spans = [Span("assistant", np.ones(n, np.int32), tag=tag) for tag, n in parts]
        return Episode(EXAMPLE_TASK, (Span("user", np.zeros(1, np.int32)), *spans), player=DEMONSTRATED)

    group = Group(
        EXAMPLE_TASK, (), demonstrations=(laid((DEMONSTRATED, 2)), laid((ERROR, 1), (CORRECTION, 2)))
    )
    _, stages = build(RECIPE, {"credit.mask_errors": mask_errors})
    return [np.concatenate([s.weights[IMITATION] for s in stages["credit"]([group], None)])]


RECIPE = Recipe(
    name="lemma",
    paper=Paper("LEMMA: Learning from Errors for MatheMatical Advancement in LLMs", "2503.17439", 2025),
    published_lr=1e-5,
    idea="Solutions are shown that take a wrong step, notice it, and then either mend that step or start again. "
    "The wrong steps are the model's own, or put into a right solution on purpose. "
    "The model imitates the whole, beside ordinary right solutions, and so learns to turn back.",
    equation="L = - mean_t log pi(y_t | x) over right solutions and over traces: right steps, wrong step, 'Wait, ...', right steps",
    departures=(
        "the first wrong step is where an attempt departs from the task's solution (--set group_rollout.finder=self asks the policy), and errors "
        "are put in by rules, where the paper has a stronger model do both",
        "transitions are two fixed sentences; the joint is not smoothed",
        "GUESS: errors of all types are equally likely, where the paper follows the model's own distribution",
    ),
    stages={
        "group_rollout": stage(Corrected),
        "reward": stage(verdict_if_any),
        "credit": stage(traces),
        "objective": stage(cross_entropy),
    },
    needs=("answer", "text"),
    claim="With both ways of correcting mixed, accuracy exceeds that of right solutions alone at equal rows.",
    manipulation=(
        Manipulated("a tenth of the attempts are wrong: errors to turn back from", "correct", at_most=0.9),
    ),
    examples=(
        ByHand(
            "three steps of which the second went wrong: how many right ones follow, mending and starting again",
            lambda: [
                len(correction("a\nx", "abc", 1, restart, "\n").split("\n")) - 2 for restart in (False, True)
            ],
            [2, 3],
        ),
        ByHand(
            "whether the wrong step ends its line or not, no line of the trace is blank: a, x, wait, b, c",
            lambda: [
                [len(step) > 0 for step in (wrong + correction(wrong, "abc", 1, False, "\n")).split("\n")]
                for wrong in ("a\nx", "a\nx\n")
            ],
            [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
        ),
        ByHand(
            "a demonstration, and a trace: all of it",
            lambda: _weights(False),
            [[0, 1, 1, 0, 1, 1, 1]],
        ),
        ByHand("of the trace the correction alone", lambda: _weights(True), [[0, 1, 1, 0, 0, 1, 1]]),
        OffPolicy(
            "a token mean over solutions and traces: -log p at exp(-1) twice and at 2 exp(-1)",
            ratio=(1.0, 1.0, 2.0),
            advantage=(0.0, 0.0, 0.0),
            lengths=(2, 1),
            weights={IMITATION: (1, 1, 1)},
            loss=(3 - math.log(2)) / 3,
            gradient=(-1 / 3, -1 / 3, -1 / 3),
        ),
        Reduction(
            "no traces: supervised fine-tuning", "sft", {"group_rollout.own": 0, "group_rollout.injected": 0}
        ),
    ),
)
