"""Self-ask (Press et al., arXiv 2210.03350): a question is answered by asking and answering simpler ones first, in a fixed form.

The model writes "Follow up:" and a question; its "Intermediate answer:" is the model's own, or is looked up in a corpus (BM25)
and put into its turn; and so on until "So the final answer is:". Where nothing is found the model answers by itself.
"""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.tools.retrieval import CorpusFolder, corpus_of

FOLLOW, BETWEEN, FINAL = "Follow up:", "Intermediate answer:", "So the final answer is:"
SHOWN = (
    "Question: Which is warmer in January, the city where the Prado stands or the capital of Norway?\n"
    "Are follow up questions needed here: Yes.\n"
    f"{FOLLOW} In which city does the Prado stand?\n{BETWEEN} In Madrid.\n"
    f"{FOLLOW} What is the capital of Norway?\n{BETWEEN} Oslo.\n"
    f"{FOLLOW} Which is warmer in January, Madrid or Oslo?\n{BETWEEN} Madrid.\n"
    f"{FINAL} Madrid\n\n"
    "Question: A box holds 3 bags of 4 balls. 2 balls are lost. How many are left?\n"
    "Are follow up questions needed here: Yes.\n"
    f"{FOLLOW} How many balls were there?\n{BETWEEN} 12.\n"
    f"{FOLLOW} How many are 12 less 2?\n{BETWEEN} 10.\n"
    f"{FINAL} 10\n\n"
)
BEGIN = "Are follow up questions needed here:"

FollowUps = Annotated[
    int, Setting("questions that it asks itself at most; 0: it answers at once", low=0, high=32)
]
StepTokens = Annotated[int, Setting("longest follow-up, and longest intermediate answer", "tokens", low=1)]


def self_ask(follow_ups: FollowUps = 4, step_tokens: StepTokens = 48, corpus: CorpusFolder = "") -> Answering:
    """The answer after at most `follow_ups` questions to itself, or to the texts in `corpus`."""
    texts = corpus_of(corpus)

    async def method(session: Session) -> Draft:
        if not follow_ups:
            return await session.draft("sample", 0)
        said = reworded(session.prompt, f"{SHOWN}Question: {session.question}")
        line, parent = session.line("sample", 0, said=said), None
        line.interject(f"{BEGIN} Yes.\n{FOLLOW}", tag="form")
        for number in range(follow_ups):
            asked = await session.go_on(line, parent, "follow up", until="\n", max_tokens=step_tokens)
            question = asked.text.rpartition(FOLLOW)[2].strip()
            parent = asked.node
            if line.stop == "end" or FINAL in question:
                return asked if line.stop == "end" else await session.go_on(line, parent)
            line.interject(BETWEEN if asked.text.endswith("\n") else f"\n{BETWEEN}", tag="form")
            if texts and (found := texts.best(question, 1)):
                line.interject(f" {found[0]}\n", tag="looked up")
            else:
                known = await session.go_on(
                    line, parent, "intermediate answer", until="\n", max_tokens=step_tokens
                )
                parent = session.offer(known).node
                if line.stop == "end":
                    return known
            if number + 1 < follow_ups:
                line.interject(FOLLOW, tag="form")
        line.interject(FINAL, tag="form")
        return await session.go_on(line, parent)

    return answering(method)


def _alone() -> list[float]:
    found = answered(RECIPE, " How many are 3 and 4?\n 7.\n 7", settings={"follow_ups": 1})
    said = found.episode.text
    return [float(said.count(w)) for w in (FOLLOW, BETWEEN, FINAL)] + [
        float(found.episode.correct),
        len(found.asked),
    ]


RECIPE: Recipe = Recipe(
    name="self_ask",
    paper=Paper("Measuring and Narrowing the Compositionality Gap in Language Models", "2210.03350", 2022),
    idea="Lets the model ask itself simpler questions and answer them before it answers. Facts that it knows one by one it often "
    "cannot combine at once. With a corpus the simpler questions are looked up in place of being answered from memory.",
    equation="x -> (q_1, a_1), (q_2, a_2), ... -> y",
    confidence="memory",
    stages={"rollout": stage(self_ask)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "two examples of our own, where the paper shows four; follow-up questions are always held to be needed",
        "the form is put into the model's turn, so that every model keeps to it",
        "looked up by BM25 in text files, where the paper asks a search engine",
    ),
    claim="On questions of two hops the gap to their single hops is smaller than without.",
    examples=(
        ByHand("one question, its answer, the final answer; three calls", _alone, [1, 1, 1, 1, 3]),
        Reduction("no follow-up: one reply", "majority", {"rollout.follow_ups": 0}, {"rollout.n": 1}),
    ),
)
