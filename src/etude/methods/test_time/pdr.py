"""PDR, parallel-distil-refine (Madaan et al., arXiv 2510.01123): drafts are written side by side, distilled into a short
workspace, and the next round writes with the workspace in view.

    s_i ~ pi( . | x, C_{r-1}), i = 1..M_r;    C_r = D(x, s_1..s_M), |C_r| <= kappa;    M = 1 in the last round, the answer

The workspace is written anew every round. What counts as long is the accepted path, not all that was written: each call sees
the question and the workspace alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from etude.errors import UserError
from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.search.vote import plurality
from etude.settings import Setting, stage
from etude.types import Message

SUMMARISE = (
    "{question}\n\nSeveral attempts at this:\n\n{drafts}\n\nWrite short notes for one more attempt: what the attempts agree on, where "
    "they contradict each other, and what is still open."
)
REFINE = "{question}\n\nNotes from earlier attempts, which may be wrong:\n{notes}\n\nAnswer the question."

Drafts = Annotated[str, Setting("M_r, drafts of each round before the answer: 8, or 16+8")]
Distil = Annotated[
    str,
    Setting(
        "what becomes of them: a summary, the likeliest ones, or ones drawn by chance",
        choices=("summary", "top", "random"),
    ),
]
Kept = Annotated[int, Setting("drafts that stay where they are not summed up", low=1)]
Kappa = Annotated[int | None, Setting("kappa, longest summary; none: run.max_tokens", "tokens", low=1)]


def pdr(drafts: Drafts = "8", distil: Distil = "summary", kept: Kept = 2, kappa: Kappa = None) -> Answering:
    """One answer with what is left of each round's drafts in view."""
    sizes = read_sizes(drafts)

    async def method(session: Session) -> Draft:
        notes = ""
        for number, size in enumerate(sizes):
            found = await session.drafts(
                size, "round", number, said=_asked(session, notes), tag=f"draft of round {number + 1}"
            )
            session.offer(plurality(found))
            notes = await _distilled(session, found, number)
        return await session.draft("sample", 0, said=_asked(session, notes))

    async def _distilled(session: Session, found: list[Draft], number: int) -> str:
        if distil == "summary":
            texts = "\n\n".join(f"Attempt {i}:\n{d.text}" for i, d in enumerate(found, 1))
            asked = SUMMARISE.format(question=session.question, drafts=texts)
            return await session.say(asked, "distil", number, tag="summary", max_tokens=kappa)
        if distil == "top":
            order = sorted(range(len(found)), key=lambda i: -found[i].logp)
        else:
            order = session.shuffled(len(found), "distil", number)
        return "\n\n".join(found[i].text for i in sorted(order[:kept]))

    return answering(method)


def read_sizes(drafts: str) -> list[int]:
    """[16, 8] of "16+8", [] of "0". UserError for anything else."""
    words = drafts.split("+")
    if not all(word.isdigit() for word in words):
        raise UserError(f"rollout.drafts is '{drafts}'; it must be numbers joined by +, such as 16+8")
    return [int(word) for word in words if int(word)]


def _asked(session: Session, notes: str) -> Sequence[Message]:
    if not notes:
        return session.prompt
    return reworded(session.prompt, REFINE.format(question=session.question, notes=notes))


def _refined() -> list[object]:
    """Two drafts, a summary, the answer: four calls, the last of which sees the summary and no draft; training sees neither."""
    found = answered(RECIPE, "five", "six", "not five", "7", settings={"drafts": "2"})
    spans = found.episode.spans
    return [
        found.text == "7",
        len(found.asked),
        "Attempt 2:\nsix" in found.asked[2],
        "not five" in found.asked[3] and "six" not in found.asked[3],
        [s.hidden for s in spans] == [True, False, False] and spans[1].unseen,
    ]


RECIPE: Recipe = Recipe(
    name="pdr",
    paper=Paper("Rethinking Thinking Tokens: LLMs as Improvement Operators", "2510.01123", 2025),
    idea="Writes several drafts side by side, sums up what they agree and differ on, and answers with the summary in view. No call "
    "sees more than the question and a short workspace, so thinking gets wide instead of long.",
    equation="s_i ~ pi(. | x, C_{r-1});  C_r = D(x, s_1..s_M), |C_r| <= kappa;  y ~ pi(. | x, C_R)",
    confidence="source",
    stages={"rollout": stage(pdr)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "`top` keeps the likeliest drafts, where the paper lets each next draft choose its own",
        "trained by itself it imitates its right answers as replies to the question alone, as rft does; the paper's training mixes two "
        "CISPO objectives (of plain traces and of one round) and is not built here",
    ),
    claim="At equal tokens of the accepted path it beats one long answer; at equal tokens in all, less surely.",
    examples=(
        ByHand("two drafts, a summary, an answer", _refined, [1, 4, 1, 1, 1]),
        ByHand(
            "the likeliest of two stays",
            lambda: (
                "notes: 6"
                in answered(
                    RECIPE,
                    Reply("5", -2.0),
                    Reply("notes: 6", -1.0),
                    "7",
                    settings={"drafts": "2", "distil": "top", "kept": 1},
                ).asked[2]
            ),
            True,
        ),
        Reduction("no drafts: one reply", "majority", {"rollout.drafts": "0"}, {"rollout.n": 1}),
    ),
)
