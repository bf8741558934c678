"""Self-contemplation prompting, SEC (Li et al., arXiv 2309.14681): the model writes its own examples, then answers below them.

Two calls. The first shows the question and asks for k similar ones with answers, in a fixed form; where the reply cannot be
read it is asked for again, warmer. The second is an ordinary few-shot prompt of these pairs. Nobody checks their answers.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.types import Message

ASK = "Here is a question:\n{question}\n\nWrite {k} similar questions with their answers, each as two lines:\nQuestion: ...\nAnswer: ..."
PAIR = re.compile(r"Question:[ \t]*(.+?)\n+Answer:[ \t]*(.+?)(?=\n+\W*\d*\W*Question:|\Z)", re.DOTALL)

Examples = Annotated[int, Setting("k, examples that the model writes", low=0, high=32)]
Tries = Annotated[int, Setting("times that they are asked for, where they cannot be read", low=1, high=24)]
Warmer = Annotated[float, Setting("added to the temperature after each try", low=0, high=1)]


def self_contemplation(
    examples: Examples = 3,
    tries: Tries = 3,
    warmer: Warmer = 0.1,
    greedy: Annotated[bool, Setting("the answer is of the likeliest tokens")] = False,
) -> Answering:
    """An answer below `examples` pairs of the model's own."""

    async def method(session: Session) -> Draft:
        pairs = await _pairs(session) if examples else []
        shown = [m for q, a in pairs for m in (Message("user", q), Message("assistant", a))]
        said = (*session.prompt[:-1], *shown, session.prompt[-1])
        greedily: dict[str, Any] = {"greedy": True} if greedy else {}
        return await session.draft("sample", 0, said=said, **greedily)

    async def _pairs(session: Session) -> list[tuple[str, str]]:
        asked, found = ASK.format(question=session.question, k=examples), list[tuple[str, str]]()
        warm = session.generator().params.temperature
        for number in range(tries):
            text = await session.say(
                asked, "examples", number, tag="examples", temperature=warm + number * warmer
            )
            found = max(found, read_pairs(text)[:examples], key=len)
            if len(found) == examples:
                break
        return found

    return answering(method)


def read_pairs(text: str) -> list[tuple[str, str]]:
    """The questions and answers of a reply in the form that `ASK` asks for."""
    return [(question.strip(), answer.strip()) for question, answer in PAIR.findall(text)]


WRITTEN = "1. Question: 1+1?\nAnswer: 2\n2. Question: 2+2?\nAnswer: 2+2 is 4\n"

RECIPE: Recipe = Recipe(
    name="self_contemplation",
    paper=Paper("Are Human-generated Demonstrations Necessary for In-context Learning?", "2309.14681", 2023),
    idea="Asks the model for a few questions like this one, with answers, and shows them to it as examples. Nobody has to write or "
    "choose examples, and they fit the question. They may be wrong; their form helps all the same.",
    equation="D ~ pi( . | 'k questions like x, with answers');  y ~ pi( . | D, x)",
    stages={"rollout": stage(self_contemplation)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "asked for in one wording, where the release rotates six; at most 3 tries, of its 24",
        "where no try gives all k examples, the one that gave most is shown",
        "examples are turns of the conversation; trained by itself it imitates its right answers as replies to the question alone",
    ),
    claim="About as good as examples that people wrote, and better than none.",
    examples=(
        ByHand("two pairs", lambda: float(read_pairs(WRITTEN) == [("1+1?", "2"), ("2+2?", "2+2 is 4")]), 1),
        ByHand(
            "a reply that cannot be read, then one that can; the answer stands below both examples",
            lambda: float(
                answered(RECIPE, "no idea", WRITTEN, "7", settings={"examples": 2}).asked[2]
                == "<user>1+1?<assistant>2<user>2+2?<assistant>2+2 is 4<user>3+4?<assistant>"
            ),
            1,
        ),
        Reduction("no examples: one reply", "majority", {"rollout.examples": 0}, {"rollout.n": 1}),
    ),
)
