"""Self-consistency (Wang et al., arXiv 2203.11171): several answers are drawn, and the commonest is given."""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.search.ledger import Limit
from etude.search.session import Answering, Draft, Session, answering
from etude.search.vote import plurality
from etude.settings import Setting, stage

Samples = Annotated[int, Setting("answers that are drawn", low=1, high=100_000)]


def majority(n: Samples = 16) -> Answering:
    """The answer that most of n samples give; of equally many, the one that was given first."""

    async def method(session: Session) -> Draft:
        return plurality(await session.drafts(n, "sample"))

    return answering(method)


RECIPE: Recipe = Recipe(
    name="majority",
    paper=Paper(
        "Self-Consistency Improves Chain of Thought Reasoning in Language Models", "2203.11171", 2022
    ),
    idea="Draws several answers and gives the one that most of them agree on. Ways of going wrong are many, the right answer is "
    "one, so errors scatter while right answers meet. Replies without an answer have no vote.",
    equation="argmax_a sum_i 1[a_i = a]",
    stages={"rollout": stage(majority)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "trained by itself it imitates one of the replies with the winning answer where that is right, as rft does",
    ),
    claim="Accuracy rises with n where right answers are the commonest, and falls where a wrong one is.",
    examples=(
        ByHand(
            "7, 5, 5, none, 7, 5: five has three votes",
            lambda: float(answered(RECIPE, "a 7", "5", "5", "who knows", "7", "5", settings={"n": 6}).text),
            5,
        ),
        ByHand(
            "two each: the first",
            lambda: [
                float((found := answered(RECIPE, "7", "5", "5", "7", settings={"n": 4})).text),
                found.episode.correct,
            ],
            [7, 1],
        ),
        ByHand(
            "the prompt is computed once for three samples; the end is a token too",
            lambda: [
                (spent := answered(RECIPE, "7", "5", "55", settings={"n": 3}).spent)["models"]["policy"][
                    "prompt"
                ],
                spent["models"]["policy"]["shared"],
                spent["tokens"],
            ],
            [len("<user>3+4?<assistant>"), 2 * len("<user>3+4?<assistant>"), 2 + 2 + 3],
        ),
        ByHand(
            "of a budget of 5 tokens the second reply gets 3, and nobody a third",
            lambda: [
                (
                    found := answered(
                        RECIPE, "7", "55555", "5", settings={"n": 3}, limit=Limit(tokens=5), max_tokens=5
                    )
                ).spent["tokens"],
                len(found.asked),
                found.spent["exhausted"],
            ],
            [5, 2, 1],
        ),
    ),
)
