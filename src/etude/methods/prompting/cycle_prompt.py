"""CyclePrompt (Diesendruck et al., arXiv 2402.08756): an answer is right where the question can be told from it.

Forward, the question becomes an answer; backward, a call that sees the answer alone says what the question was; a third call
compares the two and lists what differs. Its hint goes above the question for the next try. No label, no checker.
"""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage

BACKWARD = "Here is an answer:\n{draft}\n\nWhat was the question? State it completely."
COMPARE = "First text:\n{question}\n\nSecond text:\n{guess}\n\nDo they ask for the same? Reply 'same', or list in a short hint what the second gets wrong."
FORWARD = "{hint}\n\n{question}"

Cycles = Annotated[int, Setting("K, cycles at most", low=0, high=32)]


def cycle_prompt(cycles: Cycles = 2) -> Answering:
    """The first answer from which the question is found again, or the last one."""

    async def method(session: Session) -> Draft:
        draft = await session.draft("sample", 0)
        for number in range(cycles):
            session.offer(draft)
            guess = await session.say(
                BACKWARD.format(draft=draft.text),
                "back",
                number,
                tag="question told from it",
                parent=draft.node,
            )
            asked = COMPARE.format(question=session.question, guess=guess)
            hint = (await session.say(asked, "compare", number, tag="difference", parent=draft.node)).strip()
            if hint.casefold().startswith("same"):
                break
            said = reworded(session.prompt, FORWARD.format(hint=hint, question=session.question))
            draft = await session.draft("again", number, said=said, parent=draft.node)
        return draft

    return answering(method)


def _cycled() -> list[float]:
    found = answered(RECIPE, "5", "what is 2+3?", "it is 4, not 3", "7", "3+4?", "Same.")
    return [
        len(found.asked),
        "3+4" not in found.asked[1],
        found.asked[3].startswith("<user>it is 4, not 3\n\n3+4?"),
        float(found.text),
    ]


RECIPE: Recipe = Recipe(
    name="cycle_prompt",
    paper=Paper(
        "Learning How To Ask: Cycle-Consistency Refines Prompts in Multimodal Foundation Models",
        "2402.08756",
        2024,
    ),
    idea="Goes from the question to an answer and from the answer back to a question. Where the two questions differ, the difference "
    "is a hint for the next try. It needs no label, only that an answer tells what it answers.",
    equation="y_t = f(h_{t-1}, x);  x'_t = g(y_t);  h_t = d(x, x'_t); stop where d says same",
    stages={"rollout": stage(cycle_prompt)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "text only; the paper also makes images",
        "GUESS: a new hint takes the place of the old one",
        "GUESS: two cycles",
    ),
    claim="On tasks that can be inverted accuracy rises from no cycle to two.",
    examples=(
        ByHand(
            "a cycle that differs and one that agrees; the backward call never sees the question",
            _cycled,
            [6, 1, 1, 7],
        ),
        Reduction("no cycle: one reply", "majority", {"rollout.cycles": 0}, {"rollout.n": 1}),
    ),
)
