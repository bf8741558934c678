"""Transfer Q* (Chakraborty et al., arXiv 2405.20495, and its release umd-huang-lab/Transfer-Q): what to say next is chosen by where a
model that is aligned already would end from there.

    Q(y, z) = E[w r(x, y z tau)], tau ~ rho( . | x, y z);    z chosen by log rho(z | x, y) + Q(y, z) / alpha

rho is the policy, so train or align it first. Where it was aligned to the reward that is wanted, w = 1 (direct); where to another one,
r_b, with strength beta, ends that the wanted reward likes better than r_b count more, w = exp((r - r_b) / beta) (indirect).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.search.score import By, WhoJudges, answering_by, scorer
from etude.search.session import SEARCH, Answering, Draft, Session
from etude.settings import Setting, stage
from etude.types import Array

Candidates = Annotated[int, Setting("k, ways to go on that are looked at", low=1, high=1024)]
Piece = Annotated[int, Setting("tokens that are chosen at once", "tokens", low=1)]
Ends = Annotated[int, Setting("ends that each way is played out to", low=1, high=1024)]
Horizon = Annotated[int | None, Setting("longest end; none: run.max_tokens", "tokens", low=1)]
Alpha = Annotated[float, Setting("what a nat of the policy is worth in rewards", low=1e-6)]
AlignedBy = Annotated[
    str, Setting("the score that the policy was aligned to, where that is another one; empty: the same")
]
Strength = Annotated[float, Setting("beta, how strongly it was held to its start in that", low=1e-6)]


def transfer_q(
    candidates: Candidates = 4,
    piece: Piece = 4,
    ends: Ends = 1,
    horizon: Horizon = None,
    alpha: Alpha = 1.0,
    greedy: Annotated[bool, Setting("the best way is taken, not drawn in proportion")] = True,
    by: By = "judge",
    judge: WhoJudges = "policy",
    aligned_by: AlignedBy = "",
    strength: Strength = 2.0,
    pieces: Annotated[int, Setting("pieces at most; then the likeliest end is taken", low=1)] = 64,
) -> Answering:
    """An answer that is put together of `pieces`, each chosen among `candidates` by where they end."""
    score, before = scorer(by, judge), scorer(aligned_by or by, judge)

    async def method(session: Session) -> Draft:
        at: Draft | None = None
        for number in range(pieces):
            found = await session.gather(step(session, at, number, i) for i in range(candidates))
            found = list({d.line.samples[-1].tokens.tobytes(): d for d in reversed(found)}.values())[::-1]
            values = [await value(session, draft) for draft in found]
            at = found[chosen(session, number, [said(d) for d in found], values)]
            if over(at):
                return at
        assert session.offered is not None
        return session.offered

    async def step(session: Session, at: Draft | None, number: int, i: int) -> Draft:
        line = session.line("piece", i) if at is None else at.line.fork(i)
        if at is not None:
            line.stop = "cut"
        return await session.go_on(
            line, None if at is None else at.node, f"piece {number + 1}", max_tokens=piece
        )

    async def value(session: Session, draft: Draft) -> float:
        """The mean of w r over the ends that are played out from `draft`, or of itself where it is over."""
        played = [draft] if over(draft) else await session.gather(end(session, draft, j) for j in range(ends))
        wanted = np.array(await score(session, played))
        weights = np.ones(len(played))
        if aligned_by:
            weights = np.exp((wanted - np.array(await before(session, played))) / strength)
        for one, w in zip(played, wanted.tolist(), strict=True):
            session.mark(one.node, score=w)
            if session.offered is None or w > session.nodes[session.offered.node]["score"]:
                session.offer(one)
        found = float((weights * wanted).mean())
        session.mark(draft.node, value=found)
        return found

    async def end(session: Session, draft: Draft, number: int) -> Draft:
        line = draft.line.fork(-1 - number)
        line.stop = "cut"
        return await session.go_on(line, draft.node, "end", max_tokens=horizon)

    def chosen(session: Session, number: int, logp: Sequence[float], values: Sequence[float]) -> int:
        weights = preferred(logp, values, alpha)
        if greedy:
            return int(weights.argmax())
        return session.drawn(weights, "piece", number)

    return answering_by(method, by, judge)


def preferred(logp: Sequence[float], values: Sequence[float], alpha: float) -> Array:
    """f64[k], in proportion to rho(z) exp(Q(z) / alpha)."""
    found = np.asarray(logp, float) + np.asarray(values, float) / alpha
    weights = np.exp(found - found.max())
    return np.asarray(weights / weights.sum())


def said(draft: Draft) -> float:
    """The log-probability of the last piece."""
    return float(draft.line.samples[-1].logp.sum())


def over(draft: Draft) -> bool:
    return draft.line.stop == "end" or draft.line.full


# "a " and "b " end in 5 (1/4) and 7 (3/4), so b is gone on from; its ways are the answers 7 (4/5) and 8 (1/5).
TALK = (Reply("a ", ends=False), Reply("b ", ends=False), "5", "7", "7", "8")


def _led(*alpha: float) -> list[float]:
    """With each alpha: the answer, how many replies it took, and what the chosen piece was worth."""
    found = []
    for a in alpha:
        one = answered(
            RECIPE,
            *TALK,
            settings={"candidates": 2, "piece": 2, "alpha": a},
            odds=(1 / 3, 3, 4, 1 / 4),
        )
        nodes = one.episode.notes[SEARCH]["nodes"]
        found += [float(one.text.split()[-1]), len(one.asked), nodes[1]["value"]]
    return found


RECIPE: Recipe = Recipe(
    name="transfer_q",
    paper=Paper("Transfer Q Star: Principled Decoding for LLM Alignment", "2405.20495", 2024),
    idea="Goes on by a few tokens at a time, and among several ways takes the one that ends best: each is played out by the model, which was "
    "aligned beforehand, and a reward looks at the ends. So a reward steers what is said without any training on it.",
    equation="z* = argmax_z log rho(z | x, y) + Q(x, y, z) / alpha;  Q = E_{tau ~ rho}[w r],  w = exp((r - r_b) / beta) or 1",
    confidence="source",
    stages={"rollout": stage(transfer_q)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "ways are sampled pieces of a few tokens, those that say the same once; the release looks at the ten likeliest next tokens",
        "ends are played out to the limit; the release cuts them after 20 tokens (direct) or 5 (indirect)",
        "where no piece ends an answer within the limit, the best end that was played out is given",
    ),
    claim="With a policy that was trained on the reward the mean reward is above that with the policy it was trained from.",
    examples=(
        ByHand("the way that ends at 3/4, then the answer at 4/5", lambda: _led(1.0), [7, 6, 0.75]),
        ByHand(
            "log-probabilities 0 and -1, values 0 and 1/2: equal at alpha = 1/2, 1 : e^(-1/2) at alpha = 1",
            lambda: [preferred((0, -1), (0, 0.5), a)[0] for a in (0.5, 1.0)],
            [0.5, 1 / (1 + np.exp(-0.5))],
        ),
    ),
)
