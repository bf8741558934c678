"""LEMMA: traces that go wrong, notice it, and end right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from etude import seeds
from etude.credit.imitate import demonstrations, imitate, tagged
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import answer_tokens
from etude.rollout.edits import subtle_error
from etude.rollout.group_rollout import DEMONSTRATION
from etude.rollout.intervene import propose, reveals
from etude.rollout.probe import Separator, steps_of
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Signal, Task

ERROR, CORRECTION = "error", "correction"


FIX = "Wait, the last step is wrong. It should be:"


FRESH = "Wait, this does not lead to the answer. Let me start again."


def correction(right: Sequence[str], wrong_at: int, fresh: bool, separator: str) -> str:
    """What follows a wrong step number `wrong_at` (from 0): the right steps from there on, or all of them."""
    words = FRESH if fresh else FIX
    return separator + words + separator + separator.join(right if fresh else right[wrong_at:])


class Corrected:
    """The demonstration; attempts; and of the first wrong ones, and of right solutions with an error put in, traces:
    up to the first wrong step, a word on it, and the right solution from there (or from the start). Traces that
    the checker rejects are thrown away. They are demonstrations with the spans "error" and "correction"
    (LEMMA, arXiv 2503.17439)."""

    def __init__(
        self,
        own: Annotated[int, Setting("traces from own wrong answers, per task at most", low=0)] = 2,
        injected: Annotated[int, Setting("traces from errors put into the solution, per task", low=0)] = 1,
        fresh: Annotated[float, Setting("share of traces that start again", low=0, high=1)] = 0.5,
        finder: Annotated[
            str,
            Setting(
                "who finds the first wrong step: the policy, or comparison with the reference",
                choices=("self", "reference"),
            ),
        ] = "reference",
        separator: Separator = "\n",
    ) -> None:
        self.own, self.injected, self.fresh = own, injected, fresh
        self.finder, self.separator = finder, separator

    async def __call__(self, rollouts: Any) -> list[Episode]:
        shown = [rollouts.demonstrate()]
        if not self.own and not self.injected:
            return shown
        attempts = await rollouts.plays(range(rollouts.samples)) if self.own else []
        wrong = [e for e in attempts if not e.failure and not e.correct][: self.own]
        seats = range(DEMONSTRATION + 1, DEMONSTRATION + 1 + len(wrong) + self.injected)
        jobs = [
            rollouts.play(s, self.traced(rollouts, e))
            for s, e in zip(seats, [*wrong, *[None] * self.injected], strict=True)
        ]
        traces = [e for found in await asyncio.gather(*jobs) for e in found]
        return [*attempts, *shown, *traces]

    def traced(self, rollouts: Any, wrong: Episode | None) -> Any:
        """A rollout that lays out one trace, or none."""

        async def rollout(task: Task, conversation: Conversation) -> list[Episode]:
            solution = task.reference or task.answer or ""
            right = solution.split(self.separator) if self.separator else list(solution)
            if wrong is not None:
                found = await self.departed(rollouts, conversation, wrong)
            else:
                found = self.spoilt(conversation, right)
            if found is None:
                return []
            tokens, wrong_at = found
            restart = seeds.key(conversation.key, "fresh") / 2**63 < self.fresh
            words = correction(right, wrong_at, restart, self.separator)
            renderer = conversation.generator.renderer
            laid = Conversation(
                task, conversation.generator, conversation.check_runner, conversation.key, conversation.index
            )
            laid.user(task.prompt)
            laid.force_prefix(tokens, ERROR)
            laid.force_prefix(answer_tokens(renderer, words), CORRECTION)
            verdict = await laid.check(renderer.decode(tokens) + words)
            return [replace(laid.done(), player="demonstration")] if verdict.correct else []

        return rollout

    async def departed(
        self, rollouts: Any, conversation: Conversation, wrong: Episode
    ) -> tuple[Array, int] | None:
        """A wrong attempt up to its first wrong step, and that step's number."""
        renderer = rollouts.generator.renderer
        cuts, steps = steps_of(renderer.tokenizer, wrong, self.separator)
        found = await propose(rollouts, conversation, steps, self.finder, self.separator)
        if found is None or (self.finder == "self" and reveals(found[1], rollouts.task.answer)):
            return None
        ends = wrong.tokens[cuts[0] : cuts[found[0] + 1]]
        return (ends[:-1] if len(ends) and int(ends[-1]) in renderer.stops else ends), found[0]

    def spoilt(self, conversation: Conversation, right: Sequence[str]) -> tuple[Array, int] | None:
        """The solution up to a step, drawn by key, with a subtle error in it; None where none can be put in."""
        rng = seeds.generator(conversation.key, "error")
        at = int(rng.integers(len(right)))
        edited = subtle_error(right[at], rng)
        if edited is None:
            return None
        text = self.separator.join([*right[:at], edited])
        return conversation.generator.renderer.tokenizer.encode(text), at


def verdict_if_any():
    """The last verdict's reward; 1 for a text that nobody judged."""
    return lambda episode: {"reward": episode.verdict.reward if episode.verdict else 1.0}


def traces(
    mask: Annotated[bool, Setting("leave the wrong part out of the loss")] = False,
):
    """Demonstrations, and traces: the whole of them, or the correction alone (LEMMA, arXiv 2503.17439)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = demonstrations()(groups, context)
        signals = [s for s in signals if s.weights["imitation"].any()]
        for episode in (e for g in groups for e in g.demonstrations):
            where = tagged(episode, CORRECTION)
            if where.any():
                signals.append(imitate(episode, where if mask else where | tagged(episode, ERROR)))
        return signals

    return credit


RECIPE = Recipe(
    name="lemma",
    n=258,
    paper=Paper("LEMMA: Learning from Errors for MatheMatical Advancement in LLMs", "2503.17439", 2025),
    idea="Solutions are shown that take a wrong step, notice it, and then either mend that step or start again. "
    "The wrong steps are the model's own, or put into a right solution on purpose. "
    "The model imitates the whole, beside ordinary right solutions, and so learns to turn back.",
    equation="L = - mean_t log pi(y_t | x) over right solutions and over traces: right steps, wrong step, 'Wait, ...', right steps",
    departures=(
        "the first wrong step is where an attempt departs from the task's solution (--set gather.finder=self asks the policy), and errors "
        "are put in by rules, where the paper has a stronger model do both",
        "transitions are two fixed sentences; nobody smooths the joint",
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
    examples=(
        ByHand(
            "three steps of which the second went wrong: how many right ones follow, mending and starting again",
            lambda: [len(correction("abc", 1, fresh, "\n").split("\n")) - 2 for fresh in (False, True)],
            [2, 3],
        ),
        Reduction(
            "no traces: supervised fine-tuning", "sft", {"group_rollout.own": 0, "group_rollout.injected": 0}
        ),
    ),
)
