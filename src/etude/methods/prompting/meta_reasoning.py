"""Meta-reasoning prompting (Gao et al., arXiv 2406.11698): the model rates several ways of thinking for this question, and uses
the one that it rates highest."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from etude.errors import UserError
from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.score import probabilities
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage

WAYS = {
    "direct": ("answers at once, in a few words", "{question}"),
    "steps": ("thinks step by step before it answers", "{question}\n\nThink step by step."),
    "plan": (
        "makes a plan, then carries it out part by part",
        "{question}\n\nFirst make a short plan. Then carry it out, and answer.",
    ),
    "analogy": (
        "recalls a similar problem that it can solve, and goes by it",
        "{question}\n\nRecall a similar problem and how it is solved. Then solve this one in the same way.",
    ),
    "step_back": (
        "asks for the rule behind the question, then applies it",
        "{question}\n\nWhich rule or principle is this about? State it, then apply it.",
    ),
}
RATE = "{question}\n\nA way to solve such a problem: one {description}.\n\nIs this way well suited to this problem? Reply Yes or No."

Ways = Annotated[str, Setting(f"the ways to choose among, joined by +: {', '.join(WAYS)}")]


def meta_reasoning(ways: Ways = "direct+steps+plan+analogy+step_back") -> Answering:
    """A reply by the way that the model finds best suited; of equals the first."""
    names = ways.split("+")
    if unknown := [name for name in names if name not in WAYS]:
        raise UserError(f"rollout.ways: there is no way '{unknown[0]}'; there are {', '.join(WAYS)}")

    async def method(session: Session) -> Draft:
        chosen = names[0]
        if len(names) > 1:
            asked = [RATE.format(question=session.question, description=WAYS[name][0]) for name in names]
            rated = probabilities(session, asked, ("Yes", "No"))[:, 0]
            chosen = names[int(np.argmax(rated))]
            for name, score in zip(names, rated.tolist(), strict=True):
                session.note(name, None, "way", score=score)
        if chosen == "direct":
            return await session.draft("sample", 0)
        said = WAYS[chosen][1].format(question=session.question)
        return await session.draft("sample", 0, said=reworded(session.prompt, said), tag=chosen)

    return answering(method)


RECIPE: Recipe = Recipe(
    name="meta_reasoning",
    paper=Paper("Meta Reasoning for Large Language Models", "2406.11698", 2024),
    idea="Asks the model of several ways of thinking how well each suits the question, and uses the best. No single way is best for "
    "all questions. The choice costs a few prompts and no long replies.",
    equation="k = argmax_i p(Yes | x, description_i);  y ~ pi( . | template_k(x))",
    confidence="memory",
    stages={"rollout": stage(meta_reasoning)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "rated by the probability of Yes, where the paper has the model write a score",
        "five ways that are one call each; the paper's seven include tree of thoughts and self-refinement",
    ),
    claim="On tasks of which each favours another way, it beats every fixed one; a very small model chooses no better than by chance.",
    examples=(
        ByHand(
            "of direct (1/2), steps (3/4) and plan (1/2) it thinks step by step",
            lambda: float(
                answered(RECIPE, "7", settings={"ways": "direct+steps+plan"}, odds=(1, 3, 1)).asked[0]
                == "<user>3+4?\n\nThink step by step.<assistant>"
            ),
            1,
        ),
        Reduction(
            "one way, the direct one: one reply", "majority", {"rollout.ways": "direct"}, {"rollout.n": 1}
        ),
    ),
)
