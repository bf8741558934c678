"""Abstain-QA: a question may be answered, or left unanswered, and the prompt says what a wrong answer costs.

Three clauses stand below the question: none; one that allows to abstain; one that counts a wrong answer against the model. Either may be
asked for reasons first, or for a confidence, below which the answer is taken back. Do LLMs Know When to NOT Answer? (Madhusudhan et
al., arXiv 2407.16221). What is measured stands in `etude.evaluate.abstention`:

    etude eval MODEL -t TASKS --with abstain_qa:clause=strict,reason=true --set run.abstain="I don't know"
"""

from __future__ import annotations

from typing import Annotated

from etude.evaluate.abstention import CONFIDENCE, Abstaining, stated
from etude.fixtures.inference import answered
from etude.methods.behaviour.r_tuning import Abstain
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import below
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage

CLAUSES = {
    "none": "",
    "standard": "If you do not know the answer, or if there is none, say: {abstain}",
    "strict": "A wrong answer counts against you, and saying nothing does not. Answer only if you are certain; otherwise say: "
    "{abstain}",
}
REASON = "Think step by step first. Put the answer alone on the last line."
CONFIDE = "Below your answer write how sure you are of it, from 0 to 1, as in: Confidence: 0.5"


def abstain_qa(
    clause: Annotated[str, Setting("what is said of abstaining", choices=tuple(CLAUSES))] = "standard",
    reason: Annotated[bool, Setting("reasons are asked for before the answer")] = False,
    least_confidence: Annotated[
        float,
        Setting(
            "stated confidence below which the answer is taken back; 0: none is asked for", low=0, high=2
        ),
    ] = 0.0,
    abstention: Abstain = "I don't know",
) -> Answering:
    """One reply; the abstaining words where its stated confidence is too low."""
    parts = [
        CLAUSES[clause].format(abstain=abstention),
        REASON if reason else "",
        CONFIDE if least_confidence else "",
    ]
    asked = "\n".join(part for part in parts if part)

    async def method(session: Session) -> Draft | str:
        draft = await session.draft("sample", 0, said=below(session.prompt, asked) if asked else None)
        if not least_confidence:
            return draft
        said, _, sure = draft.text.rpartition("\n")
        answer, confidence = (
            (said, stated(sure)) if "confidence" in sure.casefold() else (draft.text, stated(draft.text))
        )
        session.mark(draft.node, score=confidence)
        if confidence < least_confidence and not Abstaining((abstention,)).said(answer):
            return abstention
        draft.line.notes[CONFIDENCE] = confidence
        draft.text = draft.line.text = answer
        return draft

    return answering(method)


def _taken_back() -> list[float]:
    """Sure enough, and right; not sure enough; sure of nothing; an abstention that is not sure stays one."""
    replies = ("7\nConfidence: 0.8", "7\nConfidence: 0.4", "7", "I don't know\nConfidence: 0.1")
    found = [answered(RECIPE, r, settings={"least_confidence": 0.5}).episode for r in replies]
    return [float(e.correct) for e in found] + [float(e.text == "I don't know") for e in found]


def _asked() -> list[float]:
    """How often the words that abstain, the penalty and the call for reasons stand in the prompt of each clause."""
    prompts = [
        answered(RECIPE, "7", settings={"clause": clause, "reason": clause == "strict"}).asked[0]
        for clause in CLAUSES
    ]
    return [
        float(p.count(w)) for p in prompts for w in ("I don't know", "counts against you", "step by step")
    ]


RECIPE: Recipe = Recipe(
    name="abstain_qa",
    paper=Paper(
        "Do LLMs Know When to NOT Answer? Investigating Abstention Abilities of Large Language Models",
        "2407.16221",
        2024,
    ),
    idea="Tells the model that it may leave a question unanswered, and, in the strict form, that a wrong answer counts against it. "
    "It can also be asked how sure it is, and an answer that it is not sure of is taken back. Leaving a question unanswered is then "
    "counted as an outcome of its own.",
    equation="y = a if confidence(a) >= t, else the words that abstain",
    confidence="guess",
    stages={"rollout": stage(abstain_qa)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "the words of the three clauses are ours: only the abstract was at hand",
        "a reply that states no confidence counts as sure of nothing where one is asked for",
        "trained, it imitates its right answers to the bare question, as every method of inference does here",
    ),
    claim="On puzzles of which half have lost a premise, the strict clause with reasons leaves more of those unanswered, and costs few "
    "right answers.",
    unchecked="its words stand in every prompt",
    examples=(
        ByHand("taken back below 0.5", _taken_back, [1, 0, 0, 0, 0, 1, 1, 1]),
        ByHand("what each clause says", _asked, [0, 0, 0, 1, 0, 0, 1, 1, 1]),
        ByHand(
            "a bound that no confidence reaches abstains always",
            lambda: float(
                answered(RECIPE, "7\nConfidence: 1", settings={"least_confidence": 2.0}).text
                == "I don't know"
            ),
            1,
        ),
        Reduction(
            "no clause, no reasons, no bound: one reply",
            "majority",
            {"rollout.clause": "none"},
            {"rollout.n": 1},
        ),
    ),
)
