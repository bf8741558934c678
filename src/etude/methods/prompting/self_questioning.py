"""Self-questioning (arXiv 2505.12452): before it judges, the model asks itself what one must know to judge, and answers that.

    q_1..q_m ~ pi( . | x, 'ask');    a_i ~ pi( . | q_i), or what a corpus says of q_i;    y ~ pi( . | x, (q_i, a_i)_i)

What the answers say need not be what helps: longer prompts help by themselves. The paper's control is kept: a placebo of other
text, cut to the length that the questions and answers would have had.
"""

from __future__ import annotations

import re
from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.tools.retrieval import CorpusFolder, corpus_of

ASK = "{question}\n\nDo not answer yet. Write {m} short questions, one a line, about what one must know to answer this well."
BELOW = "{question}\n\nBackground:\n{background}\n\nAnswer the question."
NUMBERING = re.compile(r"^\W*(?:\d+\W+|q(?:uestion)?\s*\d*\s*[:.)]\s*)?", re.IGNORECASE)
PLACEBO = (
    "Water is made of hydrogen and oxygen. Light travels faster than sound. The Moon has no air. Iron rusts where it is wet. "
    "Plants take carbon dioxide from the air. Glass is made of sand. Bees carry pollen from flower to flower. "
)

Questions = Annotated[int, Setting("m, questions that it asks itself; 0: it answers at once", low=0, high=32)]
AnswerTokens = Annotated[int, Setting("longest answer to one of them", "tokens", low=1)]
Scaffold = Annotated[
    str,
    Setting(
        "what is shown above the answer: its questions and answers, or other text of the same length, to compare with",
        choices=("own", "placebo"),
    ),
]


def self_questioning(
    questions: Questions = 3,
    answer_tokens: AnswerTokens = 48,
    scaffold: Scaffold = "own",
    corpus: CorpusFolder = "",
) -> Answering:
    """A reply below its own questions and their answers, from its memory or from the passage of `corpus` that fits best."""
    texts = corpus_of(corpus)

    async def method(session: Session) -> Draft:
        if not questions:
            return await session.draft("sample", 0)
        text = await session.say(ASK.format(question=session.question, m=questions), "ask", tag="questions")
        asked = read_questions(text)[:questions]
        background = "\n".join(await session.gather(known(session, q, i) for i, q in enumerate(asked)))
        if scaffold == "placebo":
            background = placebo(len(background))
        if not background:
            return await session.draft("sample", 0)
        said = BELOW.format(question=session.question, background=background)
        return await session.draft("sample", 0, said=reworded(session.prompt, said))

    async def known(session: Session, question: str, number: int) -> str:
        """The question with its answer below it."""
        if texts and (found := texts.best(question, 1)):
            return f"{question}\n{found[0]}"
        said = await session.say(question, "know", number, tag="answer to itself", max_tokens=answer_tokens)
        return f"{question}\n{' '.join(said.split())}"

    return answering(method)


def read_questions(text: str) -> list[str]:
    """The lines of a reply that ask something, without their numbers; all lines where none ends in a question mark."""
    lines = [NUMBERING.sub("", line).strip() for line in text.splitlines()]
    lines = [line for line in dict.fromkeys(lines) if line]
    return [line for line in lines if line.endswith("?")] or lines


def placebo(characters: int) -> str:
    """Sentences that are true and beside the point, of that length."""
    return (PLACEBO * (characters // len(PLACEBO) + 1))[:characters]


def _asked() -> list[float]:
    found = answered(
        RECIPE, "1. What is 3?\n2. What is 4?", "Three.", "Four.", "7", settings={"questions": 2}
    )
    last = found.asked[-1]
    return [
        len(found.asked),
        "What is 3?\nThree.\nWhat is 4?\nFour." in last,
        "Three" not in found.asked[2],
        float(found.text),
    ]


def _placebo() -> list[float]:
    found = answered(RECIPE, "A?\nB?", "a", "b", "7", settings={"questions": 2, "scaffold": "placebo"})
    return [len(found.asked), "Water i" in found.asked[-1], "A?" not in found.asked[-1], len(placebo(1000))]


RECIPE: Recipe = Recipe(
    name="self_questioning",
    paper=Paper(
        "Introspective Growth: Automatically Advancing LLM Expertise in Technology Judgment",
        "2505.12452",
        2025,
    ),
    idea="Has the model ask what one must know to answer, and answer that by itself or from texts, before it answers. What a model "
    "knows and what it brings to mind are not the same. A placebo of the same length tells whether it is the content that helps.",
    equation="q_i ~ pi(. | x);  a_i ~ pi(. | q_i);  y ~ pi(. | x, (q_i, a_i)_i)",
    confidence="guess",
    stages={"rollout": stage(self_questioning)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "GUESS: the wording of the three calls, three questions, and that each is answered in a call of its own",
        "of any task; the paper judges whether two texts describe the same invention",
        "one model asks, answers and judges; the paper also lets a smaller one ask",
    ),
    claim="Accuracy is above that with a placebo of the same length.",
    examples=(
        ByHand(
            "two questions, each answered alone, both shown above the answer: four calls",
            _asked,
            [4, 1, 1, 7],
        ),
        ByHand(
            "the placebo costs the same calls, says nothing of them, and has the length asked for",
            _placebo,
            [4, 1, 1, 1000],
        ),
        Reduction("no questions: one reply", "majority", {"rollout.questions": 0}, {"rollout.n": 1}),
    ),
)
