"""Re-reading (Xu et al., arXiv 2309.06275): the question is asked twice in one prompt.

A causal model reads a question once, from left to right; what comes late in it cannot change how its beginning was read. In
the second copy every token sees the whole of the first.
"""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.test_time.majority import Samples
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.search.vote import plurality
from etude.settings import Setting, stage

AGAIN = "Read the question again:"

Times = Annotated[int, Setting("how often the question stands in the prompt", low=1, high=8)]
Trigger = Annotated[str, Setting("what stands below it, such as: Let's think step by step.")]


def reread(times: Times = 2, n: Samples = 1, trigger: Trigger = "") -> Answering:
    """The commonest of n answers to the question, asked `times` times in one prompt."""

    async def method(session: Session) -> Draft:
        question = session.question
        words = [question, *[f"{AGAIN} {question}"] * (times - 1), *([trigger] if trigger else [])]
        said = session.prompt if len(words) == 1 else reworded(session.prompt, "\n\n".join(words))
        return plurality(await session.drafts(n, "sample", said=said))

    return answering(method)


RECIPE: Recipe = Recipe(
    name="reread",
    paper=Paper("Re-Reading Improves Reasoning in Language Models", "2309.06275", 2023),
    idea="Asks the question twice in one prompt. A language model reads from left to right, so the beginning of a question is read "
    "without knowing its end. In the second copy every word sees the whole of the first.",
    equation="y ~ pi( . | x, 'Read the question again:', x)",
    stages={"rollout": stage(reread)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "no trigger such as 'Let's think step by step' unless one is given",
        "trained by itself it imitates its right answers as replies to the question asked once",
    ),
    claim="Where what is asked for stands before the facts, two readings beat one, and three gain no more.",
    examples=(
        ByHand(
            "twice, and a trigger below",
            lambda: (
                answered(RECIPE, "7", settings={"trigger": "Think."}).asked[0]
                == "<user>3+4?\n\nRead the question again: 3+4?\n\nThink.<assistant>"
            ),
            True,
        ),
        Reduction(
            "once: a vote among as many", "majority", {"rollout.times": 1, "rollout.n": 3}, {"rollout.n": 3}
        ),
    ),
)
