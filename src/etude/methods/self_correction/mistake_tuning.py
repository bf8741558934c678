"""Mistake tuning: right and wrong rationales side by side, told apart by a mark in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.credit.attempts import distilled
from etude.credit.imitate import demonstrations
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import attempt, below, nth
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrations import demonstration_and_attempts
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal, Task

MARK = "[INCORRECT RATIONALE]"


def marked(
    wrong: Annotated[str, Setting("what stands in the prompt of a wrong rationale")] = MARK,
):
    """An attempt. Notes `plain`: the prompt with the mark, for credit to lay wrong answers behind
    (arXiv 2403.20046)."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        await attempt(conversation, task.prompt, 1, plain=below(task.prompt, wrong))
        return conversation.done()

    return rollout


def picked(answers: Sequence[tuple[bytes, bool]], most: int) -> list[int]:
    """Which of the (answer, right) are wrong and differ: the first `most`."""
    seen: dict[bytes, int] = {}
    for i, (words, right) in enumerate(answers):
        if not right:
            seen.setdefault(words, i)
    return list(seen.values())[:most]


def right_and_wrong(
    most: Annotated[int, Setting("wrong answers per task", low=0)] = 1,
):
    """The demonstration behind the bare prompt, and wrong answers behind the marked one (arXiv 2403.20046)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = demonstrations()(groups, context)
        for group in groups:
            answers = [(e.tokens[e.sampled].tobytes(), e.correct) for e in group.episodes]
            for i in picked(answers, most):
                signals += distilled(group.episodes[i], nth(1), "imitation")
        return signals

    return credit


RECIPE = Recipe(
    name="mistake_tuning",
    n=46,
    paper=Paper(
        "Can LLMs Learn from Previous Mistakes? Investigating LLMs' Errors to Boost for Reasoning",
        "2403.20046",
        2024,
    ),
    idea="The model imitates right solutions and also its own wrong ones, but the wrong ones only behind a prompt that says so. "
    "It learns what tells the two apart. "
    "Asked without the mark, it writes the right kind.",
    equation="L = - mean_t log pi(right_t | x) - mean_t log pi(wrong_t | x, [INCORRECT RATIONALE]), over all tokens alike",
    departures=(
        "right rationales carry no mark of their own, so that a plain prompt asks for one",
        "the loss is on the rationale, where the paper writes it over prompt and mark as well",
        "wrong rationales are the model's own of this step, one per task; no domain tag",
        "the other half of the paper, self-rethinking, changes nothing in training and is left out",
    ),
    stages={
        "rollout": stage(marked),
        "group_rollout": stage(demonstration_and_attempts),
        "credit": stage(right_and_wrong),
        "objective": stage(cross_entropy),
    },
    needs=("answer",),
    claim="Imitating right and marked wrong rationales beats imitating the right ones alone; asked with the mark, the model is clearly worse.",
    examples=(
        ByHand(
            "wrong a, right b, wrong a again, wrong c",
            lambda: picked([(b"a", False), (b"b", True), (b"a", False), (b"c", False)], 2),
            [0, 3],
        ),
        Reduction("no wrong ones: supervised fine-tuning", "sft", {"credit.most": 0}),
    ),
)
