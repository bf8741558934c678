"""Xolver (Hossain et al., arXiv 2506.14234): specialists with a shared memory of what has been best so far.

Of an episodic memory E of solved problems the k that fit best are shown; without any the model recalls one. Then for I rounds each of
m specialists writes an answer, with E's problems, its own last answer and the shared memory D in view, and a judge scores it:

    D_r = top_m(D_{r-1} + {(y, s(y)) : y ~ pi( . | role_a, x, E_k(x), y_{a,r-1}, D_{r-1})}_a);    the answer is the best of D_I

so the best score never falls from round to round.
"""

from __future__ import annotations

import re
from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import Answering, Draft, Said, Session
from etude.settings import Setting, stage
from etude.tools.retrieval import CorpusFolder, corpus_of

PLAN = "{question}\n\nDo not answer yet. Which {n} different specialists would solve this best? One a line, a few words each."
RECALL = "{question}\n\nDo not answer yet. Recall a related problem, and how it is solved."
ROLE = "You are {role}.\n\n{question}\n\n{shown}Answer the question."
RELATED = "Related problems:\n{}\n\n"
OWN = "Your last answer:\n{}\n\n"
BEST = "The best answers so far:\n{}\n\n"
LISTED = re.compile(r"^\W*(?:\d+\W+)?")
ANYBODY = "a careful solver"

Agents = Annotated[int, Setting("m, specialists, and answers that the shared memory holds", low=1, high=32)]
Rounds = Annotated[int, Setting("I, answers of each specialist", "rounds", low=1, high=32)]
Shown = Annotated[int, Setting("k, solved problems of the corpus that are shown", low=0, high=64)]
Recall = Annotated[bool, Setting("where none fits, the model recalls a related problem and its solution")]


def xolver(
    agents: Agents = 2,
    rounds: Rounds = 2,
    shown: Shown = 5,
    recall: Recall = True,
    roles: Annotated[bool, Setting("the model names the specialists")] = True,
    corpus: CorpusFolder = "",
    by: By = "judge",
    judge: WhoJudges = "policy",
) -> Answering:
    """The answer of the highest score of all that the specialists gave; of equals the first."""
    texts, score = corpus_of(corpus), scorer(by, judge)

    async def method(session: Session) -> Draft:
        who = await named(session) if roles else [""] * agents
        related = await experience(session)
        best: list[tuple[float, Draft]] = []
        own = [""] * agents
        for number in range(rounds):
            memory = "\n\n".join(draft.text for _, draft in best)
            said = [asked(session, who[a], related, own[a], memory) for a in range(agents)]
            found = await session.gather(
                session.draft(
                    "sample", a, *([number] if number else []), said=said[a], tag=who[a] or f"agent {a + 1}"
                )
                for a in range(agents)
            )
            if len(found) == agents:  # else the budget ended, and who is missing is not told
                own = [draft.text for draft in found]
            scores = await score(session, found)
            for value, draft in zip(scores, found, strict=True):
                session.mark(draft.node, score=value)
            best = sorted([*best, *zip(scores, found, strict=True)], key=lambda one: -one[0])[:agents]
            session.offer(best[0][1])
        return best[0][1]

    async def named(session: Session) -> list[str]:
        """As many roles as there are agents: those that the model named, and then anybody."""
        text = await session.say(
            PLAN.format(question=session.question, n=agents + 1), "plan", tag="specialists"
        )
        lines = [LISTED.sub("", line).strip(" .") for line in text.splitlines()]
        return [*[line[:80] for line in lines if line], *[ANYBODY] * agents][:agents]

    async def experience(session: Session) -> str:
        if texts and shown and (found := texts.best(session.question, shown)):
            return "\n\n".join(found)
        return (
            await session.say(RECALL.format(question=session.question), "recall", tag="recalled")
            if recall
            else ""
        )

    def asked(session: Session, role: str, related: str, own: str, memory: str) -> Said:
        parts = [form.format(text) for form, text in ((RELATED, related), (OWN, own), (BEST, memory)) if text]
        if not (role or parts):
            return session.prompt
        text = ROLE.format(role=role or ANYBODY, question=session.question, shown="".join(parts))
        return reworded(session.prompt, text)

    return answering_by(method, by, judge)


def _rounds() -> list[float]:
    """Two specialists and two rounds; the judge says 1/2, 3/4, then 9/10 and 1/2: the third answer wins."""
    found = answered(
        RECIPE,
        *("1. An algebraist.\n2. A clerk\n3. A poet", "1+1=2, by counting", "5", "6", "7", "8"),
        odds=(1, 3, 9, 1),
    )
    second = found.asked[4]
    return [
        float(found.text),
        len(found.asked),
        "You are An algebraist." in found.asked[2] and "You are A clerk." in found.asked[3],
        "by counting" in found.asked[3],
        "Your last answer:\n5" in second and "The best answers so far:\n6\n\n5" in second,
    ]


RECIPE: Recipe = Recipe(
    name="xolver",
    paper=Paper(
        "Xolver: Multi-Agent Reasoning with Holistic Experience Learning Just Like an Olympiad Team",
        "2506.14234",
        2025,
    ),
    idea="Several specialists, named by the model, answer in rounds with the best answers so far in view, and with solved problems "
    "that resemble this one. A judge keeps the best of all rounds, so what is kept never gets worse in the judge's eyes.",
    equation="D_r = top_m(D_{r-1} + {(y_a, s(y_a))}_a), y_a ~ pi(. | role_a, x, E_k(x), y_{a,r-1}, D_{r-1})",
    confidence="source",
    stages={"rollout": stage(xolver)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "the judge's probability of Yes, where the release asks for a 0 or a 1; another score is set by rollout.by",
        "the memory of solved problems is a corpus of texts, and does not grow while problems are examined: then the order of the "
        "problems would decide what each is answered with",
        "no program is run on the way, and the best answer is given as it is, without a call that extracts it",
    ),
    claim="With solved problems of the same procedure in the corpus accuracy is above that without.",
    examples=(
        ByHand("six calls; the best of both rounds, seen by who comes after it", _rounds, [7, 6, 1, 1, 1]),
        Reduction(
            "one specialist without a name, one round, nothing recalled: one reply",
            "majority",
            {"rollout.agents": 1, "rollout.rounds": 1, "rollout.recall": False, "rollout.roles": False},
            {"rollout.n": 1},
        ),
    ),
)
