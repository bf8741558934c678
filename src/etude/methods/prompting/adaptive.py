"""Adaptive prompting (Kamesh, arXiv 2410.08130): an answer is validated by the model itself, and written again with what was
found wrong with it, by a more detailed template each time."""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage

TEMPLATES = (
    "{question}",
    "{question}\n\nGo step by step.",
    "{question}\n\nBreak it into parts. Solve each part, check it, then put them together.",
)
VALIDATE = (
    "{question}\n\nAn answer:\n{draft}\n\nWork it out in another way. Is the answer consistent with that? Begin with 'consistent' or "
    "'inconsistent', then say why."
)
REPAIR = "{template}\n\nAn earlier answer was:\n{draft}\n\nWhat was wrong with it: {why}\n\nAnswer anew."

Rounds = Annotated[int, Setting("J, times that it may be written again", "rounds", low=0, high=32)]


def adaptive(rounds: Rounds = 2) -> Answering:
    """The first answer that validation finds consistent, or the last one."""

    async def method(session: Session) -> Draft:
        draft = await session.draft("sample", 0)
        for number in range(rounds):
            session.offer(draft)
            asked = VALIDATE.format(question=session.question, draft=draft.text)
            why = await session.say(asked, "validate", number, tag="validation", parent=draft.node)
            if not inconsistent(why):
                break
            template = TEMPLATES[min(number + 1, len(TEMPLATES) - 1)].format(question=session.question)
            said = REPAIR.format(template=template, draft=draft.text, why=why)
            draft = await session.draft(
                "again", number, said=reworded(session.prompt, said), parent=draft.node
            )
        return draft

    return answering(method)


def inconsistent(text: str) -> bool:
    """Whether a validation rejects: it says 'inconsistent', or 'not consistent'."""
    low = text.casefold()
    return "inconsistent" in low or "not consistent" in low


RECIPE: Recipe = Recipe(
    name="adaptive",
    paper=Paper("Think Beyond Size: Adaptive Prompting for More Effective Reasoning", "2410.08130", 2024),
    idea="Answers, lets the model check the answer by another route, and where the two disagree answers anew with what was found wrong. "
    "Each time the question is put in more detail. It stops as soon as a check agrees.",
    equation="y_{j+1} ~ pi( . | template_j(x), y_j, v_j) while v_j = inconsistent, j < J",
    confidence="guess",
    stages={"rollout": stage(adaptive)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "GUESS: the whole answer is validated, not each of its steps; three templates, from none to parts",
        "GUESS: a validation rejects where it says 'inconsistent' or 'not consistent'",
    ),
    claim="With a validator better than chance accuracy rises with J, with one by chance it does not.",
    examples=(
        ByHand(
            "accepted at once; rejected, then accepted: 2 and 4 calls, of which the third is told why",
            lambda: [
                len(answered(RECIPE, "7", "consistent.").asked),
                len((found := answered(RECIPE, "5", "Inconsistent: 3+4 is 7", "7", "Consistent")).asked),
                float(found.text),
                "3+4 is 7" in found.asked[2],
            ],
            [2, 4, 7, 1],
        ),
        Reduction("never written again: one reply", "majority", {"rollout.rounds": 0}, {"rollout.n": 1}),
    ),
)
