"""Tailored learning: a teacher sees where the student went wrong and explains to that; the student also learns to tell the two apart.

The student attempts a question. For each wrong attempt the teacher is shown question, right answer and attempt, and writes a rationale;
those that come to the right answer are imitated, beside the task's own solution. What the student wrote right and wrong is held apart
where a rationale ends: with h the last hidden state there,

    L = L_lm + lambda L_cl,   L_lm: token mean of w_t CE_t, w = 1 on rationales and 0.1 on prompts,
    L_cl = mean max(0, rho - cos(h_x, h_+) + cos(h_x, h_-)),   x and + right rationales of a question, - a wrong one of the student's

Democratizing Reasoning Ability: Tailored Learning from Large Language Model (Wang et al., arXiv 2310.13332), and its release
(Raibows/Learn-to-Reason)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    example_answers,
    example_demonstration,
    example_loss,
    given_stage,
)
from etude.fixtures.inference import collected
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.imitation import cross_entropy
from etude.objective.terms import Mean, Objective, Term, TokenLoss, objective, spread
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.writers import Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Rollout
from etude.types import Episode, Group, Signal, Task

CONTRAST = "contrast"  # weight row: the token at which a rationale ends
RIGHT = "right_end"  # extra: 1 there on a right rationale, -1 on a wrong one of the student's, 0 on all other tokens

ASKED = (
    "The right answer is: {answer}\n\nA student wrote:\n{attempt}\n\nThis is wrong. Explain step by step how to come to the right "
    "answer, with regard to the student's mistake, and end with the answer."
)

# ---- rollout -----------------------------------------------------------------------------------------


class Tailored:
    """Attempts; for each of the first `mistakes` wrong ones the teacher's rationale, where the check accepts it; and the solution."""

    reads = frozenset({"teacher"})

    def __init__(
        self,
        mistakes: Annotated[
            int, Setting("wrong attempts that the teacher is shown, a question", low=0, high=64)
        ] = 4,
        ask: Annotated[str, Setting("what the teacher is told below the question")] = ASKED,
    ) -> None:
        self.mistakes, self.ask = mistakes, ask
        self.teacher = Writer("teacher")

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        attempts = await rollouts.plays(range(rollouts.samples)) if self.mistakes else []
        wrong = [e for e in attempts if not e.failure and not e.correct][: self.mistakes]
        made = [*attempts, rollouts.demonstrate()]
        for number, episode in enumerate(wrong, DEMONSTRATION + 1):
            made += await rollouts.play(number, self.explained(episode))
        return made

    def explained(self, wrong: Episode) -> Rollout:
        """A rollout that lays out the teacher's rationale, or nothing where it is wrong."""

        async def rollout(task: Task, conversation: Conversation) -> list[Episode]:
            told = self.ask.replace("{answer}", task.answer or "").replace("{attempt}", wrong.text)
            words = await self.teacher.draft(conversation, below(task.prompt, told))
            conversation.user(task.prompt)
            conversation.inject(words, DEMONSTRATED)
            verdict = await conversation.check(words)
            return [replace(conversation.done(), player=DEMONSTRATED)] if verdict.correct else []

        return rollout


# ---- credit ------------------------------------------------------------------------------------------


@writes(IMITATION, CONTRAST, extras=(RIGHT,))
def rationales(
    prompt_weight: Annotated[
        float, Setting("weight of the prompts' tokens beside the rationales'", low=0, high=1)
    ] = 0.1,
    wrong_ones: Annotated[
        int, Setting("wrong attempts of a question that are told apart from right ones", low=0)
    ] = 4,
) -> Credit:
    """Right rationales are imitated; where a question has two of them and a wrong attempt, all of these are compared."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            wrong = [e for e in group.episodes if not e.correct][:wrong_ones]
            compared = len(group.demonstrations) > 1 and bool(wrong)
            for episode in group.demonstrations:
                said = np.concatenate([np.full(len(s), s.tag == DEMONSTRATED) for s in episode.spans])
                row = np.where(said, 1.0, prompt_weight).astype(np.float32)
                signals.append(_marked(episode, row, 1.0 if compared else 0.0))
            signals += [_marked(e, np.zeros(len(e.tokens), np.float32), -1.0) for e in wrong if compared]
        return signals

    return credit


def _marked(episode: Episode, imitated: np.ndarray, side: float) -> Signal:
    last = np.zeros(len(imitated), np.float32)
    last[-1] = 1.0
    weights = {IMITATION: imitated, CONTRAST: last * abs(side)}
    return Signal(episode, np.zeros(len(imitated), np.float32), weights, {RIGHT: last * side})


# ---- loss --------------------------------------------------------------------------------------------


def hinge(states: Tensor, sides: Tensor, margin: float) -> Tensor:
    """The mean of max(0, rho - cos(x, +) + cos(x, -)) over all x and + right and different, - wrong; f32[k, D] `states`, `sides` +1 or -1."""
    unit = F.normalize(states.float(), dim=-1)
    good, bad = unit[sides > 0], unit[sides < 0]
    near, far = good @ good.T, good @ bad.T
    other = ~torch.eye(len(good), dtype=torch.bool, device=good.device)
    return (margin - near[:, :, None] + far[:, None, :]).clamp(min=0)[other].mean()


per_question = Mean(
    "question", lambda b, a: torch.ones_like(b.behaviour), lambda b, a: float(len(torch.unique(b.group[a])))
)


def told_apart(
    contrast: Annotated[float, Setting("lambda: weight of telling right from wrong rationales", low=0)] = 0.5,
    contrast_margin: Annotated[float, Setting("rho: margin between the two cosines", low=0, high=2)] = 1.0,
) -> Objective:
    """Cross-entropy, and lambda x the hinge, a mean over questions that have both kinds."""
    if not contrast:
        return cross_entropy() + objective(silent={CONTRAST, RIGHT})

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        assert out.hidden is not None
        sides, active = batch.extras[RIGHT], batch.weight(CONTRAST) != 0
        losses = [
            hinge(out.hidden[on], sides[on], contrast_margin)
            for g in range(int(batch.group[-1]) + 1)
            if (on := active & (batch.group == g)).any()
        ]
        found = torch.zeros(int(batch.group[-1]) + 1, device=out.hidden.device)
        where = torch.unique(batch.group[active])
        found = found.index_put((where,), torch.stack(losses)) if losses else found
        return spread(found, batch.group, active)

    term = Term("contrast", loss, per_question, CONTRAST, contrast)
    return cross_entropy() + objective(term, needs={"hidden"}, unit="group", extras={RIGHT})


# ---- the recipe --------------------------------------------------------------------------------------


def _rows() -> list[list[float]]:
    """Of two right rationales of one token, each behind a prompt of one, and a wrong attempt: imitation, contrast and side of each."""
    shown = [example_demonstration((5,)), example_demonstration((6,))]
    signals = given_stage(RECIPE, "credit")(
        [example_answers((0.0, (7,)), demonstrations=shown)], GivenContext()
    )
    return [[*s.weights[IMITATION], s.weights[CONTRAST][-1], s.extras[RIGHT][-1]] for s in signals]


def _loss(*hidden: tuple[float, float], **settings: float) -> float:
    """The whole loss of these three, log pi = -1 a token, with their last hidden states."""
    shown = [example_demonstration((5,)), example_demonstration((6,))]
    groups = [example_answers((0.0, (7,)), demonstrations=shown)]
    signals = given_stage(RECIPE, "credit")(groups, GivenContext())
    model = GivenModel(hidden=[list(h) for h in hidden])
    return example_loss(given_stage(RECIPE, "objective", **settings), signals, model)


def _taught() -> list[float]:
    """Of two wrong attempts the teacher explains both; one explanation is right."""
    found = collected(RECIPE, ["5", "6"], {"teacher": ["so 7", "so 8"]}, samples=2)
    return [float(sum(e.demonstration for e in found)), float(sum(e.text == "so 7" for e in found))]


RECIPE: Recipe = Recipe(
    name="tailored_learning",
    base=SFT,
    paper=Paper(
        "Democratizing Reasoning Ability: Tailored Learning from Large Language Model", "2310.13332", 2023
    ),
    published_lr=7e-6,
    idea="A teacher that only shows its own solutions does not see what the student misunderstands. Here it is shown the student's wrong "
    "attempts and explains to each of them; the student imitates what is right of that. It also learns to keep right and wrong "
    "rationales of a question apart in its own hidden states.",
    equation="L = mean_t w_t CE_t + lambda mean max(0, rho - cos(h_x, h_+) + cos(h_x, h_-))",
    departures=(
        "attempts and explanations are made at every step from the student as it is, where the paper does so in rounds with an examination "
        "between them",
        "the state at a rationale's end is that from which its last token is predicted, with its gradient through the prompt as well; the "
        "release keeps the prompt's fixed",
        "words of the request to the teacher: ours",
    ),
    stages={
        "group_rollout": stage(Tailored),
        "credit": stage(rationales),
        "objective": stage(told_apart),
    },
    needs=("answer", "text", "teacher"),
    claim="Rationales that were written to its mistakes teach a student more than equally many that were not.",
    unchecked="every wrong attempt is shown to the teacher",
    examples=(
        ByHand("prompt, rationale, contrast, side", _rows, [[0.1, 1, 1, 1], [0.1, 1, 1, 1], [0, 0, 1, -1]]),
        ByHand("both wrong attempts are explained, one rightly; and the solution", _taught, [2, 1]),
        ByHand(
            "right ones alike, wrong at 60 degrees to both: 1 - 1 + 1/2; cross-entropy 1; lambda 1/2",
            lambda: _loss((1.0, 0.0), (2.0, 0.0), (0.5, math.sqrt(3) / 2)),
            1 + 0.5 * 0.5,
        ),
        ByHand(
            "right ones opposed, wrong like the first: max(0, 1 + 1 + 1) and max(0, 1 + 1 - 1), mean 2; lambda 1",
            lambda: _loss((1.0, 0.0), (-1.0, 0.0), (1.0, 0.0), contrast=1.0),
            1 + 2.0,
        ),
        OffPolicy(
            "a token of a rationale twice as likely as when written, and one of a prompt",
            ratio=(2.0, 1.0),
            advantage=(0.0, 0.0),
            weights={IMITATION: (1.0, 0.1)},
            loss=((1 - math.log(2)) + 0.1) / 2,
            gradient=(-1 / 2, -0.1 / 2),
            settings={"objective.contrast": 0.0},
        ),
        Reduction(
            "no mistakes are shown, prompts do not count, nothing is told apart: SFT",
            "sft",
            {
                "group_rollout.mistakes": 0,
                "credit.prompt_weight": 0.0,
                "credit.wrong_ones": 0,
                "objective.contrast": 0.0,
            },
        ),
    ),
)
