"""GLoRe at test time (Havrilla et al., arXiv 2402.10963): where a draft's first bad step is, is asked of a reward model; the draft is
refined as a whole and from that step on, and the best of the three is given.

    k = min {i : r(x, s_1..s_i) < t};   y_g ~ pi( . | x, y);   y_l ~ pi( . | x, y with [BAD] before s_k);   argmax r over y, y_g, y_l

The score is a judge's by default; `etude train sorm` makes the reward model of the paper (by=model:RUN, whose number is a logit:
sound_from=0), `etude train glore_refiner` a policy that was taught both refinements.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.self_correction.glore import BAD, GLOBAL, LOCAL, marked
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.probe import step_ends
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import Answering, Draft, Session
from etude.search.vote import best
from etude.settings import Setting, stage

SoundFrom = Annotated[float, Setting("score from which a beginning counts as sound")]
Ways = Annotated[str, Setting("how a draft is refined", choices=("both", "global", "local", "none"))]
StepEnd = Annotated[str, Setting("text that ends a step")]


def glore(
    by: By = "judge",
    judge: WhoJudges = "policy",
    sound_from: SoundFrom = 0.5,
    refined: Ways = "both",
    step_end: StepEnd = "\n",
) -> Answering:
    """The best of a draft and its refinements."""
    score = scorer(by, judge)

    async def method(session: Session) -> Draft:
        draft = session.offer(await session.draft("sample", 0))
        found = [draft]
        if refined in ("both", "global"):
            found.append(await again(session, draft, GLOBAL, draft.text, "global"))
        if refined in ("both", "local"):
            steps = split(draft.text, step_end)
            begun = [Draft(draft.line, "".join(steps[: i + 1]), None, draft.node) for i in range(len(steps))]
            low = [i for i, s in enumerate(await score(session, begun)) if s < sound_from]
            if low:
                found.append(await again(session, draft, LOCAL, marked(steps, low[0]), "local"))
        if len(found) == 1:
            return draft
        scores = await score(session, found)
        for one, value in zip(found, scores, strict=True):
            session.mark(one.node, score=value)
        return best(found, scores)

    async def again(session: Session, draft: Draft, wording: str, shown: str, way: str) -> Draft:
        said = reworded(session.prompt, wording.format(question=session.question, draft=shown))
        return await session.draft(way, said=said, parent=draft.node, tag=way)

    return answering_by(method, by, judge)


def split(text: str, end: str) -> list[str]:
    """The steps of a text, each with what ends it, cut as those of its training are; one where nothing ends."""
    cuts = [0, *step_ends(text, end), len(text)]
    return [text[a:b] for a, b in pairwise(cuts)]


def _answered() -> list[object]:
    """A draft of three steps, the second of which the judge finds bad; of draft (1/2), global (3/4) and local refinement (4/5)
    the last is given."""
    found = answered(RECIPE, "a\nb\n5", "6", "a\n7", odds=(3, 1 / 3, 1 / 3, 1, 3, 4))
    return [
        found.text == "a\n7",
        len(found.asked),
        f"a\n{BAD} b\n5" in found.asked[2],
        "a\nb\n5" in found.asked[1],
    ]


RECIPE: Recipe = Recipe(
    name="glore",
    paper=Paper(
        "GLoRe: When, Where, and How to Improve LLM Reasoning via Global and Local Refinements",
        "2402.10963",
        2024,
    ),
    idea="Finds the first step of a draft from which no right end is to be expected, and refines the draft in two ways: as a whole, and from "
    "that step on. Of the draft and both refinements the one with the best score is given, so that refining does no harm.",
    equation="k = min {i : r(x, s_<=i) < t};  argmax r(x, .) over y, y_g ~ pi(. | x, y), y_l ~ pi(. | x, y, [BAD] at k)",
    stages={"rollout": stage(glore)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "one score finds the step and ranks the answers; the paper ranks by an ORM (`sorm` without probes) and finds steps by the SORM",
        "one policy drafts and refines; without a step that scores low there is no local refinement",
    ),
    confidence="memory",
    claim="The best of draft, global and local refinement is right more often than either refinement, and than the best of three drafts.",
    examples=(
        ByHand("the second step is marked, and the local refinement wins", _answered, [1, 3, 1, 1]),
        ByHand(
            "steps end with a line, or are one",
            lambda: [len(split(t, "\n")) for t in ("a\n\nb", "a\nb\n", "a", "")],
            [2, 2, 1, 1],
        ),
        Reduction("not refined: one reply", "majority", {"rollout.refined": "none"}, {"rollout.n": 1}),
    ),
)
