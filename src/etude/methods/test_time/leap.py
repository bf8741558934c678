"""LeaP, learning from peers (Luo et al., arXiv 2505.07787): paths of reasoning that run side by side tell each other where they
stand.

Every path thinks for T tokens, then says in a few words where it is; the summaries of k peers are put into its own turn, and it
goes on. Peers are the k least alike (dispersed), the k most alike (clustered), half of either (hybrid), or any. Alike is
measured by edit distance. After the last round every path ends by itself, and the answers vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.search.session import Answering, Draft, Session, answering
from etude.search.vote import plurality
from etude.settings import Setting, stage

RECAP = "\n\nLet me briefly recap where I stand: <summarize>"
CLOSE = "</summarize>"
COMPARE = "\n\nI should see whether my peers disagree with me, then go on.\n\n"

Paths = Annotated[int, Setting("N, paths side by side", low=1)]
Turns = Annotated[int, Setting("times that they tell each other", low=0)]
TurnTokens = Annotated[int, Setting("T, tokens between", "tokens", low=1)]
SummaryTokens = Annotated[int, Setting("longest summary", "tokens", low=1)]
Peers = Annotated[int, Setting("k, summaries that a path is told", low=0)]
Routing = Annotated[
    str,
    Setting(
        "whose: the least alike, the most alike, half of either, or any",
        choices=("dispersed", "clustered", "hybrid", "random"),
    ),
]


def leap(
    n: Paths = 4,
    turns: Turns = 4,
    turn_tokens: TurnTokens = 64,
    summary_tokens: SummaryTokens = 32,
    peers: Peers = 2,
    routing: Routing = "dispersed",
) -> Answering:
    """The commonest of the answers that the paths end with."""

    async def method(session: Session) -> Draft:
        lines = [session.line("sample", i) for i in range(n)]
        drafts: dict[int, Draft] = {}
        for turn in range(turns if peers else 0):
            live = [i for i in range(n) if i not in drafts or not drafts[i].whole]
            thought = await session.gather(_think(session, lines[i], drafts.get(i)) for i in live)
            drafts |= dict(zip(live, thought, strict=True))
            live = [i for i in live if lines[i].stop in ("length", "cut") and not lines[i].full]
            if len(live) < 2:
                continue
            summaries = dict(
                zip(
                    live,
                    await session.gather(_recap(session, lines[i], drafts[i]) for i in live),
                    strict=True,
                )
            )
            for i in live:
                others = [j for j in live if j != i]
                alike = [similarity(summaries[i], summaries[j]) for j in others]
                chosen = route(alike, peers, routing, session.shuffled(len(others), "route", turn, i))
                told = "\n".join(f"Peer {a}: {summaries[others[j]].strip()}" for a, j in enumerate(chosen, 1))
                lines[i].interject(f"{CLOSE}\n\n{told}{COMPARE}", tag="peers")
        for i, line in enumerate(lines):
            if i not in drafts or (not drafts[i].whole and not line.full):
                drafts[i] = session.offer(await _end(session, line, drafts.get(i)))
        return plurality([drafts[i] for i in range(n)])

    async def _think(session: Session, line: Conversation, before: Draft | None) -> Draft:
        return await session.go_on(line, before.node if before else None, "thinking", max_tokens=turn_tokens)

    async def _recap(session: Session, line: Conversation, draft: Draft) -> str:
        line.interject(RECAP, tag="recap")
        said = await session.go_on(line, draft.node, "summary", until=CLOSE, max_tokens=summary_tokens)
        return said.text[len(draft.text) :].removesuffix(CLOSE).removeprefix(RECAP)

    async def _end(session: Session, line: Conversation, draft: Draft | None) -> Draft:
        if draft is not None:
            line.stop = "cut"
        return await session.go_on(line, draft.node if draft else None, "answer")

    return answering(method)


def similarity(a: str, b: str) -> float:
    """2 L / (|a| + |b|), L the length of the longest common subsequence: the Levenshtein ratio, where a replaced sign is one
    taken away and one put in. 1 for two empty texts."""
    if not a and not b:
        return 1.0
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(a) + len(b))


def route(alike: Sequence[float], k: int, routing: str, order: Sequence[int]) -> list[int]:
    """The numbers of the peers that are told, at most `k` of them. `order`: all numbers in an order by chance."""
    near = sorted(range(len(alike)), key=lambda i: -alike[i])
    if routing == "random":
        return list(order[:k])
    if routing == "clustered":
        return near[:k]
    if routing == "dispersed":
        return near[::-1][:k]
    far = near[::-1][: k // 2]
    return [*far, *[i for i in near if i not in far][: k - len(far)]]


def _told() -> list[object]:
    """Two paths, one exchange: thoughts of 2 tokens, summaries, and the answers, each after the other's summary."""
    found = answered(
        RECIPE, "aaaa", "bbbb", "five", "seven", "7", "7",
        settings={"n": 2, "turns": 1, "turn_tokens": 2, "summary_tokens": 9, "peers": 1}, max_tokens=1000,
    )  # fmt: skip
    return [
        "Peer 1:" in found.asked[4],
        "seven" in found.asked[4].partition("Peer 1:")[2],
        len(found.asked),
        found.text[-1],
    ]


RECIPE: Recipe = Recipe(
    name="leap",
    paper=Paper("Learning from Peers in Reasoning Models", "2505.07787", 2025),
    idea="Lets several lines of thought run side by side and tell each other in a few words where they stand. One that began "
    "badly hears of another way while there is time to change. In the end they vote.",
    equation="each T tokens: c_i = summary_i; path i goes on from [y_i, c_j : j in route(i, k)];  vote",
    stages={"rollout": stage(leap)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "no example of the tags in the prompt, and one sentence for each turn where the release draws among several",
        "what was written after the last blank line is kept; the release cuts it",
        "turns of 64 tokens and summaries of 32 by default, for small models; the release has 2048 and 256",
        "LeaP-T, training on such traces, is what `etude train leap` does with those that end right",
    ),
    claim="Where some paths begin badly, more of them recover than of paths that do not hear of each other.",
    examples=(
        ByHand(
            "abcd and abxd share 3 of 4; nothing; two empty ones",
            lambda: [similarity("abcd", "abxd"), similarity("ab", "cd"), similarity("", "")],
            [0.75, 0, 1],
        ),
        ByHand(
            "of likenesses 0.1, 0.9, 0.5 two: far, near, half of either, as drawn",
            lambda: [
                route([0.1, 0.9, 0.5], 2, how, [2, 0, 1])
                for how in ("dispersed", "clustered", "hybrid", "random")
            ],
            [[0, 2], [1, 2], [0, 1], [2, 0]],
        ),
        ByHand(
            "each path goes on from the other's summary",
            lambda: [float(x == y) for x, y in zip(_told(), (True, True, 6, "7"), strict=True)],
            [1, 1, 1, 1],
        ),
        Reduction(
            "nobody is told: a vote", "majority", {"rollout.peers": 0, "rollout.n": 3}, {"rollout.n": 3}
        ),
    ),
)
