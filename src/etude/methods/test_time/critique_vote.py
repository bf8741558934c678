"""Critiques before the vote (Xi et al., arXiv 2411.16579): every one of several answers is criticised and refined, and the refined
answers vote.

    y_i ~ pi( . | x);   c_i ~ critic( . | x, y_i);   y'_i ~ pi( . | x, y_i, c_i), or y_i where c_i finds no fault
    argmax_a sum_i 1[a(y'_i) = a]

What the critic finds wrong in one answer, it need not find in another: errors that were common to many answers can lose their
majority. How a policy is trained with the same critiques is `critique_in_the_loop`.
"""

from __future__ import annotations

import re
from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.test_time.majority import Samples
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.second import CRITICISE_UNAIDED, REFINE
from etude.search.session import SEARCH, Answering, Draft, Session, answering
from etude.search.vote import plurality
from etude.settings import Setting, stage

Critiques = Annotated[int, Setting("times that each answer is criticised and refined", low=0, high=16)]
Critic = Annotated[str, Setting("who criticises: the policy, or run.teacher", choices=("policy", "teacher"))]
Always = Annotated[bool, Setting("refine answers in which the critic finds no fault, too")]

FAULT = re.compile(r"\b(wrong|incorrect|errors?|mistakes?|not (right|correct))\b", re.IGNORECASE)
"""What a critique says that finds fault."""


def critique_vote(
    n: Samples = 8, critiques: Critiques = 1, critic: Critic = "policy", always: Always = False
) -> Answering:
    """The commonest of n answers, each criticised so often, to the first critique that finds no fault, and refined after each
    that does."""

    async def method(session: Session) -> Draft:
        async def one(i: int) -> Draft:
            draft = await session.draft("sample", i)
            session.offer(draft)
            for number in range(critiques):
                critique = await _criticised(session, draft, i, number)
                if not always and not FAULT.search(critique):
                    break
                draft = await _refined(session, draft, critique, i, number)
            return draft

        return plurality(await session.gather(one(i) for i in range(n)))

    async def _criticised(session: Session, draft: Draft, i: int, number: int) -> str:
        text = CRITICISE_UNAIDED.format(question=session.question, answer=draft.text)
        asked = reworded(session.prompt, text)
        return await session.say(
            asked, "critique", i, number, model=critic, tag="critique", parent=draft.node
        )

    async def _refined(session: Session, draft: Draft, critique: str, i: int, number: int) -> Draft:
        text = REFINE.format(question=session.question, answer=draft.text, feedback=critique)
        again = reworded(session.prompt, text)
        return await session.draft("refined", i, number, said=again, parent=draft.node, tag="refined")

    return answering(method, reads=["teacher"] if critic == "teacher" else [])


def _two() -> list[object]:
    """5 and 5, each of them criticised and refined to 7, and a 5 with which the critic is content: what was asked, and the path that
    was chosen."""
    found = answered(
        RECIPE, "5", "wrong, too low", "7", "5", "an error", "7", "5", "it is fine", settings={"n": 3}
    )
    nodes = found.episode.notes[SEARCH]["nodes"]
    return [
        found.text == "7",
        len(found.asked),
        "An earlier answer:\n5" in found.asked[1],
        "About that answer: wrong, too low" in found.asked[2],
        [n["tag"] for n in nodes if n.get("chosen")] == ["answer", "refined"],
    ]


RECIPE: Recipe = Recipe(
    name="critique_vote",
    paper=Paper(
        "Enhancing LLM Reasoning via Critique Models with Test-Time and Training-Time Supervision",
        "2411.16579",
        2024,
    ),
    idea="Draws several answers, has each of them criticised, refines those in which a fault is found, and lets them vote. "
    "A critic that sees what the policy overlooks gives right answers the majority where they had none.",
    equation="y_i ~ pi(. | x);  c_i ~ critic(. | x, y_i);  y'_i ~ pi(. | x, y_i, c_i) if c_i finds fault;  argmax_a sum_i 1[a(y'_i) = a]",
    stages={"rollout": stage(critique_vote)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "the critic is the policy itself or run.teacher; the paper trains one on 76k critiques",
        "an answer is refined where its critique has a word for a fault (rollout.always: everywhere); the paper's critic ends in a verdict",
        "question, answer and critique stand in a fresh prompt, where the paper goes on in the same conversation",
    ),
    confidence="memory",
    claim="With a critic better than the policy, at equal numbers of answers and at equal compute, the vote is right more often than of "
    "answers without critiques.",
    examples=(
        ByHand("5 and 5, found wrong, become 7 and 7, which have the majority", _two, [1, 8, 1, 1, 1]),
        ByHand(
            "run.teacher is paid for what it writes",
            lambda: (
                sorted(
                    answered(RECIPE, "5", "7", teacher=["no"], settings={"n": 1, "critic": "teacher"}).spent[
                        "models"
                    ]
                )
                == ["policy", "teacher"]
            ),
            True,
        ),
        Reduction(
            "nobody criticises: a vote",
            "majority",
            {"rollout.critiques": 0, "rollout.n": 3},
            {"rollout.n": 3},
        ),
    ),
)
