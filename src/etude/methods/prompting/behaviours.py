"""Behaviours (Metacognitive Reuse, arXiv 2509.13237): what is worked out again and again is written down once, and used by name.

From an attempt the model itself draws short instructions with a name, "carry_first: add the digits from the right and carry". They
stand above the question when it is asked again; or those of a handbook that fit the question do, found by BM25. Trained, the policy
imitates its right answers as replies to the question alone, so that it needs no handbook.
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

REFLECT = (
    "{question}\n\nA solution:\n{draft}\n\nIs the reasoning sound, and what in it was worked out that one could have known? Which short "
    "rules would have made it shorter?"
)
EXTRACT = "{reflection}\n\nList these rules, one a line, each as name_of_rule: what to do."
USE = "Rules that may help:\n{rules}\n\n{question}\n\nName the rules that you use."
RULE = re.compile(r"^\W*(?:\d+\W+)?(\w[\w-]*)\**\s*:\s*(\S.*)$")

Kept = Annotated[int, Setting("k, behaviours that stand above the question; 0: none", low=0, high=256)]


def behaviours(kept: Kept = 8, corpus: CorpusFolder = "") -> Answering:
    """A reply below the behaviours of the handbook `corpus` that fit best (a paragraph each), or, without one, below those that the
    model draws from a first attempt of its own at the question. Where there are none: that attempt."""
    texts = corpus_of(corpus)

    async def method(session: Session) -> Draft:
        if texts and (found := texts.best(session.question, kept)):
            return await below(session, "\n".join(found))
        first = session.offer(await session.draft("sample", 0))
        if not kept or texts:
            return first
        reflection = await session.say(
            REFLECT.format(question=session.question, draft=first.text),
            "reflect",
            tag="reflection",
            parent=first.node,
        )
        listed = await session.say(
            EXTRACT.format(reflection=reflection), "extract", tag="behaviours", parent=first.node
        )
        rules = read_rules(listed)[:kept]
        return await below(session, "\n".join(rules), first.node) if rules else first

    async def below(session: Session, rules: str, parent: int | None = None) -> Draft:
        said = reworded(session.prompt, USE.format(rules=rules, question=session.question))
        return await session.draft("again", 0, said=said, parent=parent)

    return answering(method)


def read_rules(text: str) -> list[str]:
    """The lines `name: instruction` of a reply, the first of each name."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := RULE.match(line.strip()):
            found.setdefault(match[1].casefold(), f"{match[1]}: {match[2].strip()}")
    return list(found.values())


def _own() -> list[float]:
    said = "- carry_first: from the right\n2. check_sign: of both\ncarry_first: again\nnothing else"
    found = answered(RECIPE, "5", "It could have known how to carry.", said, "carry_first gives 7")
    return [
        len(found.asked),
        "A solution:\n5" in found.asked[1],
        "how to carry" in found.asked[2],
        "help:\ncarry_first: from the right\ncheck_sign: of both\n\n3+4?" in found.asked[3],
        float(found.episode.correct),
    ]


RECIPE: Recipe = Recipe(
    name="behaviours",
    paper=Paper(
        "Metacognitive Reuse: Turning Recurring LLM Reasoning Into Concise Behaviors", "2509.13237", 2025
    ),
    idea="Draws short, named instructions from an attempt, and answers again with them above the question; or takes those of a handbook "
    "that fit. What is worked out at length every time is said in a line. Trained, the model needs the lines no longer.",
    equation="b_1..b_k = extract(reflect(x, y_0)) or BM25_k(handbook, x);  y ~ pi(. | b_1..b_k, x)",
    confidence="memory",
    stages={"rollout": stage(behaviours)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "one model attempts, reflects and answers, where the paper has a larger one for the handbook",
        "a handbook is a text file, looked up by BM25; the paper retrieves by topic or by embeddings",
        "GUESS: the wording of the three calls, and k = 8 (the paper shows 40)",
    ),
    claim="With a handbook of worked sub-routines answers are shorter at an equal accuracy.",
    examples=(
        ByHand(
            "an attempt, a reflection, two rules of different names, an answer below them: four calls",
            _own,
            [4, 1, 1, 1, 1],
        ),
        ByHand(
            "where no rule can be read the first attempt stays",
            lambda: [
                float((found := answered(RECIPE, "7", "All is well.", "Nothing.")).text),
                len(found.asked),
            ],
            [7, 3],
        ),
        Reduction("no behaviours: one reply", "majority", {"rollout.kept": 0}, {"rollout.n": 1}),
    ),
)
