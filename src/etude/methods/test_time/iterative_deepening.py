"""Iterative deepening sampling (Chen et al., arXiv 2502.05449): an answer is made to doubt itself, at growing intervals.

Round i of a sample goes on for at most B_i = B_0 gamma^i tokens; then a fixed sentence of doubt is put into the model's own
turn and it goes on, until B_max tokens are spent. The answer of the last round counts; the answers of several samples vote.
With growth gamma there are only about log_gamma(B_max / B_0) doubts.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.test_time.majority import Samples
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.search.session import Answering, Draft, Session, answering
from etude.search.vote import plurality
from etude.settings import Setting, stage

DOUBT = "\nWait, I may have made a mistake. Let me think again.\n"

First = Annotated[int, Setting("B_0, tokens before the first doubt", "tokens", low=1)]
Growth = Annotated[float, Setting("gamma, how much longer each round is than the one before", low=1)]
Rounds = Annotated[int, Setting("most rounds", "rounds", low=1, high=64)]
MaxTokens = Annotated[
    int | None, Setting("B_max, tokens of a sample in all; none: run.max_tokens", "tokens", low=1)
]
Doubt = Annotated[str, Setting("what is put into the model's turn between rounds")]


def iterative_deepening(
    n: Samples = 1,
    first: First = 32,
    growth: Growth = 2.0,
    rounds: Rounds = 4,
    max_tokens: MaxTokens = None,
    doubt: Doubt = DOUBT,
) -> Answering:
    """The commonest of the answers that n samples end with."""

    async def method(session: Session) -> Draft:
        limit = max_tokens or session.generator().params.max_tokens

        async def one(i: int) -> Draft:
            line, draft, parent, left = session.line("sample", i), None, None, limit
            for number in range(rounds):
                size = min(left, ceil(first * growth**number))
                draft = await session.go_on(line, parent, f"round {number + 1}", max_tokens=size)
                left, parent = left - len(line.samples[-1].tokens), draft.node
                if left < 1 or number + 1 == rounds or line.full:
                    break
                line.interject(doubt, tag="doubt")
            assert draft is not None
            return session.offer(draft)

        return plurality(await session.gather(one(i) for i in range(n)))

    return answering(method)


def _deepened() -> list[object]:
    """B_0 = 2, gamma = 2, 7 tokens: a round is cut after 2; the next ends by itself after 2 of 4; the last has 3 left."""
    found = answered(
        RECIPE, "55", "5", "777", settings={"first": 2, "max_tokens": 7, "doubt": "No."}, max_tokens=1000
    )
    said = [(s.tag, len(s)) for s in found.episode.spans if s.tag != "prompt"]
    wanted = [("round 1", 2), ("doubt", 3), ("round 2", 1), ("doubt", 3), ("round 3", 3)]
    return [said == wanted, found.text == "55No.5No.777", found.spent["tokens"]]


RECIPE: Recipe = Recipe(
    name="iterative_deepening",
    paper=Paper("Iterative Deepening Sampling for Large Language Models", "2502.05449", 2025),
    idea="Lets the model answer, then puts a doubt into its own mouth and lets it go on, each time for longer than before. So it looks "
    "again even where it would not have by itself. Few doubts are needed, since the rounds grow.",
    equation="B_{i+1} = gamma B_i, a doubt between rounds, until B_max;  argmax_a sum_i 1[a_i = a]",
    confidence="memory",
    stages={"rollout": stage(iterative_deepening)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "GUESS: a round that ends before its tokens are spent is doubted as well, its end taken away",
        "GUESS: B_0 = 32, gamma = 2, four rounds; the paper's values are not known",
        "votes, where the paper also has a reward model choose",
    ),
    claim="For a model that was taught to correct itself, growing rounds beat none at equal tokens.",
    examples=(
        ByHand("rounds of 2, 4 (ends after 1) and what is left of 7", _deepened, [1, 1, 2 + 2 + 3]),
        Reduction(
            "one round as long as a reply may be: a vote",
            "majority",
            {"rollout.rounds": 1, "rollout.n": 3, "rollout.first": 6},
            {"rollout.n": 3},
        ),
    ),
)
