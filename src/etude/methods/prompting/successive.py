"""Successive prompting (Dua et al., arXiv 2212.04092): one call decomposes, another answers, in turn.

The decomposing call sees the question and what was asked and answered so far, and says the next simple question, or that none
is left. The answering call sees the simple question alone (and the passage, where there is one), never the complex one. The
last answer, or one more call that sees all of them, is the answer.
"""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage

NONE_LEFT = "No more questions"
DECOMPOSE = (
    "Question: {question}\n{history}\nWhich simple question should be answered next, to answer it? Reply with that question alone, or with "
    f"'{NONE_LEFT}'."
)
CONCLUDE = "{question}\n\nWhat is known:\n{history}\n\nAnswer the question."

Questions = Annotated[int, Setting("simple questions at most; 0: it is answered at once", low=0, high=64)]
StepTokens = Annotated[int, Setting("longest simple question, and longest answer to it", "tokens", low=1)]


def successive(questions: Questions = 4, step_tokens: StepTokens = 64) -> Answering:
    """The answer to a question after the answers to at most `questions` simple ones."""

    async def method(session: Session) -> Draft:
        known: list[tuple[str, str]] = []
        for number in range(questions):
            history = _told(known)
            asked = DECOMPOSE.format(question=session.question, history=history)
            question = (
                await session.say(asked, "decompose", number, tag="question", max_tokens=step_tokens)
            ).strip()
            if not question or NONE_LEFT.casefold() in question.casefold():
                break
            answer = await session.say(question, "answer", number, tag="its answer", max_tokens=step_tokens)
            known.append((question, answer.strip()))
        if not known:
            return await session.draft("sample", 0)
        said = CONCLUDE.format(question=session.question, history=_told(known))
        return await session.draft("sample", 0, said=reworded(session.prompt, said))

    return answering(method)


def _told(known: list[tuple[str, str]]) -> str:
    return "\n".join(f"{question} {answer}" for question, answer in known)


def _taken() -> list[float]:
    """A question and its answer, no more questions, the answer: what each call sees."""
    found = answered(RECIPE, "what is 3+1?", "4", f"{NONE_LEFT}.", "7")
    first, simple, second, last = found.asked
    return [
        "3+4?" in first,
        simple == "<user>what is 3+1?<assistant>",
        "what is 3+1? 4" in second,
        "what is 3+1? 4" in last and "3+4?" in last,
    ]


RECIPE: Recipe = Recipe(
    name="successive",
    paper=Paper("Successive Prompting for Decomposing Complex Questions", "2212.04092", 2022),
    idea="Asks one call for the next simple question and another for its answer, in turn. The answering call never sees the complex "
    "question, so it cannot be led astray by it. What was answered so far decides what is asked next.",
    equation="q_s ~ pi( . | x, (q, a)_<s);  a_s ~ pi( . | q_s);  y ~ pi( . | x, (q, a)_1..S)",
    confidence="memory",
    stages={"rollout": stage(successive)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "asked for in words, with no examples retrieved for each step",
        "one model for both calls; no calculator; no training on synthetic decompositions",
        "GUESS: one more call that sees all answers gives the answer, where the paper takes the last simple one",
    ),
    claim="Where a question is a composition that the model cannot do at once, it beats one reply.",
    examples=(
        ByHand("what the four calls see", _taken, [1, 1, 1, 1]),
        Reduction("no simple questions: one reply", "majority", {"rollout.questions": 0}, {"rollout.n": 1}),
    ),
)
