"""SAMI: answers that tell by which principles they were given.

For every question a few constitutions are made of the same principles, each turned one way or the other. An answer is drawn under
each. Then every answer is scored under every constitution, and the policy learns to make its own the likeliest: a lower bound of
the mutual information of constitution and answer. No preference is labelled. Self-Supervised Alignment with Mutual Information,
arXiv 2404.14313; release: janphilippfranken/sami."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude import seeds
from etude.batch import Batch
from etude.channels import writes
from etude.errors import UserError
from etude.fixtures.given import GivenContext, example_answers, given_stage
from etude.models.outputs import Outputs
from etude.objective.preference import sides
from etude.objective.terms import Objective, Term, TokenLoss, objective, spread, sum_per_episode
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage, Rollout
from etude.tasks.check import judged
from etude.types import Episode, Group, Message, Signal, Span, Task

CONSTITUTION = "constitution"  # note: the system message that an answer was given under
UNDER, BY = "under", "by"
"""Extras: the number, from 1 within the step, of the constitution that an answer is scored under, and of the one that it was given
under."""

PRINCIPLES = (
    ("Answer in as few words as possible.", "Answer in full sentences."),
    ("Say the answer first.", "Say the answer last."),
)


def read_principles(path: str) -> tuple[tuple[str, str], ...]:
    """Lines `principle | its opposite` of a text file; without a path `PRINCIPLES`. Raises UserError."""
    if not path:
        return PRINCIPLES
    try:
        lines = [line.strip() for line in Path(path).expanduser().read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the principles '{path}' cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        first, bar, other = (part.strip() for part in line.partition("|"))
        if not (first and bar and other):
            raise UserError(
                f"{path}, line {number}: write a principle, '|' and its opposite; got '{line[:80]}'"
            )
        found.append((first, other))
    if not found:
        raise UserError(f"the principles '{path}' hold no line 'principle | its opposite'")
    return tuple(found)


def drawn(principles: Sequence[tuple[str, str]], number: int, key: int) -> list[str]:
    """`number` constitutions: each principle one way or the other, all of them different as long as there are so many."""
    rng, found = seeds.generator("constitutions", key), list[str]()
    while len(found) < number:
        turned = rng.integers(0, 2, len(principles))
        text = "\n".join(pair[i] for pair, i in zip(principles, turned, strict=True))
        if text not in found or len(set(found)) >= 2 ** len(principles):
            found.append(text)
    return found


def under(constitution: str, prompt: Sequence[Message]) -> list[Message]:
    """The prompt below a constitution as its system message."""
    own = [m.content for m in prompt if m.role == "system"]
    return [Message("system", "\n\n".join([*own, constitution])), *(m for m in prompt if m.role != "system")]


def answering(constitution: str) -> Rollout:
    """One answer under a constitution."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.user(under(constitution, task.prompt))
        reply = await conversation.reply()
        if judged(task):
            await conversation.check(reply)  # to be reported
        return conversation.done(**{CONSTITUTION: constitution})

    return rollout


def one_for_each_constitution(
    principles: Annotated[
        str, Setting("a file of lines 'principle | its opposite'; empty: two of ours")
    ] = "",
) -> GroupRolloutStage:
    """As many answers as samples are wanted, each under a constitution of its own."""
    known = read_principles(principles)

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        found = []
        for i, constitution in enumerate(drawn(known, rollouts.samples, rollouts.key)):
            found += await rollouts.play(i, answering(constitution))
        return found

    return group_rollout


@writes("policy", extras=(UNDER, BY))
def crossed() -> Credit:
    """Every answer of a group behind the prompt of every constitution. Groups in which an answer failed are left out: what an
    answer is compared with would be missing."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals: list[Signal] = []
        first = 1
        for group in (g for g in groups if not g.failed and len(g.episodes) > 1):
            for i, asked in enumerate(group.episodes, first):
                words = under(asked.notes[CONSTITUTION], group.task.prompt)
                prompt = Span("user", context.policy.renderer.prompt(words))
                signals += [_scored(given, prompt, i, j) for j, given in enumerate(group.episodes, first)]
            first += len(group.episodes)
        return signals

    return credit


def _scored(given: Episode, prompt: Span, i: int, j: int) -> Signal:
    """The answer of an episode behind another prompt. Behind any but its own it was not sampled."""
    (answer,) = (span for span in given.spans if span.sampled)
    answer = replace(answer, restart=False)
    if i != j:
        answer = replace(answer, sampled=False, logp=None)
    row = np.concatenate([np.zeros(len(prompt)), np.ones(len(answer))]).astype(np.float32)
    return Signal(
        replace(given, spans=(prompt, answer)), 0 * row, {"policy": row}, {UNDER: i * row, BY: j * row}
    )


def mutual_information() -> Objective:
    """1/2 [CE over the answers under each constitution + CE over the constitutions of each answer] of the n x n means of
    log pi(y_j | c_i, x) over tokens, a mean over groups. Metric `told_apart`: softmax_j of the answer that is a constitution's own."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        side = sides(out, batch, reference=False)
        score = side.logp / side.length
        edges = torch.arange(len(score) + 1, device=score.device)
        last = torch.searchsorted(batch.episode, edges)[1:] - 1
        row, column = (batch.extras[name][last].long() for name in (UNDER, BY))
        of_row, of_column = _log_share(score, row), _log_share(score, column)
        own = row == column
        # of the n x n answers of a group n are under their own constitution; a mean over all of them is a mean over those
        _, which, sizes = row.unique(return_inverse=True, return_counts=True)
        each = torch.where(own, -(of_row + of_column) / 2, 0.0) * sizes[which]
        told = torch.where(own, of_row.exp(), 0.0) * sizes[which]
        active = batch.weight("policy") != 0
        return spread(each, batch.episode, active), {"told_apart": told[batch.episode]}

    return objective(Term("information", loss, sum_per_episode), unit="group", extras={UNDER, BY})


def _log_share(score: Tensor, key: Tensor) -> Tensor:
    """log softmax of each score among those with the same key."""
    _, where = key.unique(return_inverse=True)
    number = int(where.max()) + 1
    most = torch.full((number,), -torch.inf).to(score).scatter_reduce(0, where, score.detach(), "amax")
    total = torch.zeros(number).to(score).index_add(0, where, (score - most[where]).exp())
    return score - most[where] - total.log()[where]


def _signals() -> list[list[float]]:
    """Constitution and answer of each signal of two answers, of one and two tokens, and the tokens that are trained on."""
    group = example_answers((0.0, (5,)), (0.0, (6, 7)))
    noted = tuple(
        replace(e, task=group.task, notes={CONSTITUTION: str(i)}) for i, e in enumerate(group.episodes)
    )
    signals = given_stage(RECIPE, "credit")([replace(group, episodes=noted)], GivenContext())
    return [[s.extras[UNDER][-1], s.extras[BY][-1], float((s.weights["policy"] != 0).sum())] for s in signals]


RECIPE: Recipe = Recipe(
    name="sami",
    paper=Paper(
        "Self-Supervised Alignment with Mutual Information: Learning to Follow Principles without Preference Labels",
        "2404.14313",
        2024,
    ),
    published_lr=5e-7,
    idea="The same question is answered under several sets of principles. "
    "Every answer is then scored under every set, and should be likeliest under its own. "
    "So the policy learns to heed principles, without anyone saying which answer is better.",
    equation="L = - 1/2 mean_i [log softmax_j(l_i.)_i + log softmax_i(l_.i)_i],  l_ij = mean_t log pi(y_j,t | c_i, x, y_j,<t)",
    departures=(
        "answers are drawn by the policy as it is now and at the run's temperature; the release draws them greedily beforehand, and each "
        "round begins from the first weights again",
        "AdamW in the place of RMSprop; no KL to the start (0 in the release's runs)",
        "principles come in pairs from a file; the paper's were written by a larger model",
    ),
    stages={
        "group_rollout": stage(one_for_each_constitution),
        "reward": stage(optional_verdict),
        "credit": stage(crossed),
        "objective": stage(mutual_information),
    },
    needs=("text",),
    defaults={"group_size": 2},
    claim="With two rules of form as principles, answers become likelier under their own constitution, and obey it more often than before.",
    manipulation=(Manipulated("answers are told apart more", "told_apart", 0.05, read="range"),),
    examples=(
        ByHand(
            "two answers under two constitutions: four signals; one and two tokens are trained on",
            _signals,
            [[1, 1, 1], [1, 2, 2], [2, 1, 1], [2, 2, 2]],
        ),
        ByHand(
            "constitutions differ while there are others",
            lambda: [len(set(drawn(PRINCIPLES, n, 7))) for n in (2, 4, 6)],
            [2, 4, 4],
        ),
        OffPolicy(
            "likelihoods 4 : 1 under the first, 1 : 2 under the second; each answer 4 : 1 and 1 : 2 as well: "
            "[2 log 5/4 + 2 log 3/2] / 4",
            ratio=(4.0, 1.0, 1.0, 2.0),
            advantage=(0.0,) * 4,
            lengths=(1,) * 4,
            extras={UNDER: (1, 1, 2, 2), BY: (1, 2, 1, 2)},
            loss=(np.log(5 / 4) + np.log(3 / 2)) / 2,
            gradient=(-0.1, 2 / 15, 2 / 15, -1 / 6),
        ),
        OffPolicy(
            "means over tokens: two tokens of 4 are worth one of 4, and carry half of its gradient each",
            ratio=(4.0, 4.0, 1.0, 1.0, 1.0, 1.0),
            advantage=(0.0,) * 6,
            lengths=(2, 1, 2, 1),
            extras={UNDER: (1, 1, 1, 2, 2, 2), BY: (1, 1, 2, 1, 1, 2)},
            loss=(np.log(5 / 4) * 2 + np.log(2) * 2) / 4,
            gradient=(-0.05, -0.05, (1 / 5 + 1 / 2) / 4, *[(1 / 5 + 1 / 2) / 8] * 2, -0.25),
        ),
    ),
)
