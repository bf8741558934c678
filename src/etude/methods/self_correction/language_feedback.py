"""Learning to learn in context from what a teacher says, and to be one's own teacher.

Student and teacher are one model. The student answers; the teacher, who sees the solution, hints at what is wrong without giving
it away; the student answers again, and so on. Only the student's words are reinforced, by how soon they lead to a right
answer. `language_feedback_model` also learns to say what the teacher said without having seen the solution. Improving Interactive
In-Context Learning from Natural Language Feedback, arXiv 2602.16066."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.attempts import compared, on_parts
from etude.credit.imitate import IMITATION, imitate
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts, weights_of
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.hybrid import imitation
from etude.objective.policy import High, KLWeight, Low, MeanOver, clipped
from etude.objective.terms import MEANS, Objective, objective, sharing_denominator
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt, rewards_of
from etude.rollout.attempts import WRONG, attempt, attempt_tag, notes_of, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.intervene import reveals
from etude.rollout.second import CRITICISE_UNAIDED, heard, worded
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Message, Signal, Span, Task

# ---- rollout: y_1, f_1, y_2, f_2, ... -----------------------------------------------------------------------------

HINT = "hint"
HINTED, LEAKED = "hinted", "leaked"
"""Notes: [tokens of a prompt without the solution, tokens of what the teacher said], for each hint; how many hints gave the
answer away and were not passed on."""

TEACH = (
    "{question}\n\nThe right answer is {answer}. The student answered:\n{attempt}\n\n{feedback}\n\n"
    "Say in a few words what is wrong with it. Do not give the right answer."
)


class Taught:
    """Attempts in one conversation, with a hint of the teacher's after each wrong one, until right or out of `turns`. The teacher
    sees the question, the answer (or worked solution) and the last attempt. A hint in which the answer stands is not passed
    on: the student hears that it was wrong."""

    def __init__(
        self,
        turns: Annotated[int, Setting("T, attempts at most", low=1, high=16)] = 4,
        writer: WhoWrites = "policy",
        teach: Annotated[str, Setting("how the teacher is asked for a hint")] = TEACH,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.turns, self.ask = turns, worded(teach, "question", "answer", "attempt", "feedback")
        self.writer = Writer(writer, address, longest)
        self.reads = self.writer.reads

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        said, hinted, leaked = task.prompt, [], 0
        for number in range(1, self.turns + 1):
            verdict, text = await attempt(conversation, said, number)
            if verdict.correct or number == self.turns:
                break
            question = task.prompt[-1].content
            facts = {"question": question, "answer": task.answer or task.reference or "", "attempt": text}
            asked = self.ask.format(**facts, feedback=heard(verdict, task))
            hint = (await self.writer.draft(conversation, reworded(task.prompt, asked))).strip()
            if not hint or reveals(hint, task.answer):
                hint, leaked = WRONG, leaked + 1
            else:
                hinted.append(self._unaided(conversation, question, text, hint))
            said = (Message("user", hint),)
        return conversation.done(**{HINTED: hinted, LEAKED: leaked})

    @staticmethod
    def _unaided(conversation: Conversation, question: str, text: str, hint: str) -> list[list[int]]:
        """The prompt that shows question and attempt alone, and the hint, as tokens."""
        render = conversation.generator.renderer
        words = CRITICISE_UNAIDED.format(question=question, answer=text)
        prompt = render.prompt(reworded(conversation.task.prompt, words)).tolist()
        return [prompt, [*render.tokenizer.encode(hint).tolist(), *render.stops[:1]]]


# ---- credit: how soon does it lead to a right answer? ---------------------------------------------------------------

TurnDiscount = Annotated[float, Setting("gamma, for every turn until the last attempt", low=0, high=1)]


def returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """R_t = gamma^(k - t) r_k for turn t of k, of which the last earned r_k."""
    k = len(rewards)
    return [gamma ** (k - t) * rewards[-1] for t in range(1, k + 1)]


def turn_relative(groups: Sequence[Group], gamma: float, std: bool) -> list[Signal]:
    """Each turn's return against those of the same turn in the group, over the episodes that had it."""
    signals = []
    for group in groups:
        found = [returns(rewards_of(e), gamma) for e in group.episodes]
        most = max(map(len, found), default=0)
        columns = [compared([r[t] if t < len(r) else None for r in found], std) for t in range(most)]
        for i, (episode, row) in enumerate(zip(group.episodes, found, strict=True)):
            parts = {attempt_tag(t + 1): columns[t][i] for t in range(len(row))}
            signals.append(on_parts(episode, parts))
    return signals


Std = Annotated[bool, Setting("divide by the standard deviation of that turn's returns in the group")]


def sooner(turn_discount: TurnDiscount = 0.7, std: Std = True) -> Credit:
    """A_t = (R_t - mean R_t) / (std R_t + 1e-4) on the student's turn t; nothing on the teacher's words."""
    return lambda groups, context: turn_relative(groups, turn_discount, std)


@writes("policy", IMITATION)
def sooner_and_modelled(turn_discount: TurnDiscount = 0.7, std: Std = True) -> Credit:
    """`sooner`, and what the teacher said behind the prompt that shows question and attempt alone, row `IMITATION`."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        hints = [_hint(e, *pair) for g in groups for e in g.episodes for pair in notes_of(e, HINTED)]
        return turn_relative(groups, turn_discount, std) + hints

    return credit


def _hint(episode: Episode, prompt: Sequence[int], words: Sequence[int]) -> Signal:
    spans = (
        Span("user", np.array(prompt, np.int32), tag="prompt"),
        Span("assistant", np.array(words, np.int32), tag=HINT),
    )
    laid = replace(episode, spans=spans)
    return imitate(laid, np.arange(len(laid.tokens)) >= len(prompt))


# ---- loss ----------------------------------------------------------------------------------------------------------


def clipped_and_modelled(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    mean: MeanOver = "episode",
    kl_weight: KLWeight = 0.0,
    feedback_weight: Annotated[float, Setting("weight of predicting what the teacher says", low=0)] = 0.1,
) -> Objective:
    """GRPO's loss on the student's turns, and feedback_weight x cross-entropy on the teacher's words, divided by the number of
    episodes as well."""
    (term, *_), silent = imitation(feedback_weight or 1.0).terms, objective(silent={IMITATION})
    shared = objective(replace(term, mean=sharing_denominator(MEANS[mean])))
    return clipped(clip_low, clip_high, mean, None, kl_weight) + (shared if feedback_weight else silent)


# ---- the recipes ---------------------------------------------------------------------------------------------------


def _three(recipe: Recipe) -> list[Signal]:
    """Credit of three episodes: right at once; right at the second attempt; wrong twice; the last two after a hint of two tokens."""
    tries = ((1.0,), (0.0, 1.0), (0.0, 0.0))
    made = [example_attempts(*r) for r in tries]
    hinted = [replace(e, notes={**e.notes, HINTED: [[[1], [5, 0]]] * (len(e.verdicts) - 1)}) for e in made]
    return credited_signals(recipe, hinted)


FIRST_STD = math.sqrt(((1 - 1.7 / 3) ** 2 + (0.7 - 1.7 / 3) ** 2 + (1.7 / 3) ** 2) / 3) + 1e-4


def _rows(recipe: str) -> tuple[ByHand | Reduction, ...]:
    def signals() -> list[Signal]:
        return _three(next(r for r in RECIPES if r.name == recipe))

    return (
        ByHand(
            "right at turn 3 of 3: 0.49, 0.7, 1; never: nothing",
            lambda: [*returns([0, 0, 1], 0.7), *returns([0, 0], 0.7)],
            [0.49, 0.7, 1, 0, 0],
        ),
        ByHand(
            "first turns 1, 0.7, 0: mean 1.7/3",
            lambda: advantages_of(signals(), attempt_tag(1)),
            [(1 - 1.7 / 3) / FIRST_STD, (0.7 - 1.7 / 3) / FIRST_STD, -1.7 / 3 / FIRST_STD],
        ),
        ByHand(
            "second turns of those who had one: 1 and 0",
            lambda: advantages_of(signals(), attempt_tag(2)),
            [0.5 / 0.5001, -0.5 / 0.5001],
        ),
        Reduction("one turn: GRPO", "grpo", {"rollout.turns": 1}),
    )


PAPER = Paper("Improving Interactive In-Context Learning from Natural Language Feedback", "2602.16066", 2026)
DEPARTURES = (
    "GUESS: the credit of a turn, gamma^(turns to success) compared within a group, is that of a companion paper (2602.16488)",
    "a hint leaks where the gold answer stands in it as a word; no second model judges leaks",
    "the teacher sees the last attempt and the answer, not the whole dialogue",
    "an environment of several turns is attempted as a whole between two hints",
)

LANGUAGE_FEEDBACK = Recipe(
    name="language_feedback",
    base=GRPO,
    paper=PAPER,
    idea="One model is student and teacher. After a wrong answer the teacher, who has seen the solution, hints at what is wrong, and the "
    "student answers again. The student is rewarded the more, the sooner it gets there, and so learns to make use of what is said to it.",
    equation="R_t = gamma^(k-t) r_k;  A_t = (R_t - mean R_t) / std R_t within turn t;  L = GRPO's on the student's tokens",
    departures=DEPARTURES,
    stages={"rollout": stage(Taught), "credit": stage(sooner)},
    needs=("answer",),
    claim="Accuracy at the last turn, with hints, rises more than by training on single turns with as many samples.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05, read="max"),),
    examples=_rows("language_feedback"),
)

LANGUAGE_FEEDBACK_MODEL: Recipe = Recipe(
    name="language_feedback_model",
    base=GRPO,
    paper=PAPER,
    idea="As `language_feedback`, and the model also learns to say what the teacher said, without the solution that the teacher saw. "
    "Then it can be its own teacher where there is none.",
    equation="L = GRPO's on the student's tokens - w log pi(f_t | x, y_t)",
    departures=(*DEPARTURES, "GUESS: the weight of the teacher's words (0.1)"),
    stages={
        "rollout": stage(Taught),
        "reward": stage(each_attempt),
        "credit": stage(sooner_and_modelled),
        "objective": stage(clipped_and_modelled),
    },
    needs=("answer",),
    claim="Asked to look again without a teacher, it mends more of its answers than without having learnt the teacher's words.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05, read="max"),),
    examples=(
        *_rows("language_feedback_model"),
        ByHand(
            "two hints, each of two tokens, are learnt",
            lambda: weights_of(_three(LANGUAGE_FEEDBACK_MODEL), HINT, IMITATION),
            [1, 1],
        ),
        OffPolicy(
            "an episode of two tokens with the clip, another of one; a hint of one token at probability 2 exp(-1), divided by two too",
            ratio=(1.5, 0.9, 0.9, 2.0),
            advantage=(1.0, 1.0, -1.0, 0.0),
            lengths=(2, 1, 1),
            weights={"policy": (1, 1, 1, 0), IMITATION: (0, 0, 0, 1)},
            loss=((-1.2 - 0.9) / 2 + 0.9) / 2 + 0.1 * (1 - math.log(2)) / 2,
            gradient=(0, -0.9 / 4, 0.9 / 2, -0.1 / 2),
        ),
    ),
)

RECIPES = [LANGUAGE_FEEDBACK, LANGUAGE_FEEDBACK_MODEL]
