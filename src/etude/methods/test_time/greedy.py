"""The likeliest token always: what every method of inference is measured against."""

from __future__ import annotations

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Recipe
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import stage


def greedy() -> Answering:
    """One reply of the likeliest tokens."""

    async def method(session: Session) -> Draft:
        return await session.draft("greedy", greedy=True)

    return answering(method)


RECIPE: Recipe = Recipe(
    name="greedy",
    idea="Says the likeliest token every time, once. Nothing is drawn, so that asking twice is the same. "
    "It is the cheapest answer there is, and what others are measured against.",
    equation="y_t = argmax_v pi(v | x, y_<t)",
    stages={"rollout": stage(greedy)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 1},
    departures=("trained by itself it imitates its own right answers, as rft does",),
    examples=(
        ByHand(
            "one reply, one prompt of 25 tokens and two said",
            lambda: [
                (found := answered(RECIPE, "7")).text == "7",
                found.episode.correct,
                found.spent["models"]["policy"]["prompt"],
                found.spent["tokens"],
            ],
            [1, 1, len("<user>3+4?<assistant>"), 2],
        ),
    ),
)
