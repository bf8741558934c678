"""Mistake tuning: right and wrong rationales side by side, told apart by a mark in the prompt.

Right solutions are imitated behind the plain prompt, the model's own wrong ones behind a prompt that says so: asked
without the mark, it writes the right kind. Can LLMs Learn from Previous Mistakes?, arXiv 2403.20046."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.attempts import distilled
from etude.credit.imitate import IMITATION, shown
from etude.fixtures.attempts import credited_signals, example_attempts
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import UNAIDED, attempt, attempt_tag, below
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrations import demonstration_and_attempts
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Rollout
from etude.types import Episode, Group, Signal, Task

MARK = "[INCORRECT RATIONALE]"


def marked(
    mark: Annotated[str, Setting("what stands in the prompt of a wrong rationale")] = MARK,
) -> Rollout:
    """An attempt. The note `UNAIDED` keeps the prompt with the mark, for credit to lay wrong answers behind."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        await attempt(conversation, task.prompt, 1, unaided=below(task.prompt, mark))
        return conversation.done()

    return rollout


@writes(IMITATION)
def right_and_wrong(
    max_wrong: Annotated[int, Setting("most wrong answers per task", low=0)] = 1,
) -> Credit:
    """Demonstrations behind the plain prompt, and the first `max_wrong` different wrong answers behind the marked."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = shown(groups)
        for group in groups:
            wrong: dict[bytes, Episode] = {}
            for episode in group.episodes:
                if not episode.correct:
                    wrong.setdefault(episode.tokens[episode.sampled].tobytes(), episode)
            for episode in list(wrong.values())[:max_wrong]:
                signals += distilled(episode, attempt_tag(1), IMITATION)
        return signals

    return credit


def _answer(token: int, reward: float) -> Episode:
    """An answer of one token, whose marked prompt is (1, 9)."""
    whole = example_attempts(reward)
    words = replace(whole.spans[-1], tokens=np.array([token], np.int32))
    return replace(
        whole, spans=(whole.spans[0], words), notes={**whole.notes, UNAIDED: {attempt_tag(1): [1, 9]}}
    )


def _learnt(max_wrong: int) -> list[list[int]]:
    """What is imitated of: wrong 4, right 5, wrong 4 again, wrong 6."""
    episodes = [_answer(4, 0.0), _answer(5, 1.0), _answer(4, 0.0), _answer(6, 0.0)]
    settings = {"credit.max_wrong": max_wrong}
    return [s.episode.tokens.tolist() for s in credited_signals(RECIPE, episodes, settings=settings)]


RECIPE = Recipe(
    name="mistake_tuning",
    paper=Paper(
        "Can LLMs Learn from Previous Mistakes? Investigating LLMs' Errors to Boost for Reasoning",
        "2403.20046",
        2024,
    ),
    published_lr=1e-4,
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
    manipulation=(Manipulated("a tenth of the attempts are wrong", "correct", at_most=0.9),),
    examples=(
        ByHand(
            "two different wrong answers, 4 and 6, each behind the marked prompt (1, 9)",
            lambda: _learnt(2),
            [[1, 9, 4], [1, 9, 6]],
        ),
        ByHand("by default the first of them", lambda: _learnt(1), [[1, 9, 4]]),
        OffPolicy(
            "a token mean over both kinds: -log p at exp(-1), exp(-1) and 2 exp(-1)",
            ratio=(1.0, 1.0, 2.0),
            advantage=(0.0, 0.0, 0.0),
            lengths=(2, 1),
            weights={IMITATION: (1, 1, 1)},
            loss=(1 + 1 + 1 - math.log(2)) / 3,
            gradient=(-1 / 3, -1 / 3, -1 / 3),
        ),
        Reduction("no wrong ones: supervised fine-tuning", "sft", {"credit.max_wrong": 0}),
    ),
)
