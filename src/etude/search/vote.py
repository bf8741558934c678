"""Which of several answers to one question is given: by votes, or by a score. Drafts in which no answer was found get no
vote; where nobody has a vote, the first draft is given. Ties go to the answer that was given first."""

from __future__ import annotations

from collections.abc import Sequence

from etude.search.session import Draft


def weighted(drafts: Sequence[Draft], weights: Sequence[float]) -> Draft:
    """A draft with the answer of the largest sum of weights: of those that gave it, the heaviest one."""
    sums: dict[str, float] = {}
    for draft, weight in zip(drafts, weights, strict=True):
        if draft.answer is not None:
            sums[draft.answer] = sums.get(draft.answer, 0.0) + weight
    if not sums:
        return drafts[0]
    winner = max(sums, key=lambda answer: sums[answer])
    return best(
        *zip(*((d, w) for d, w in zip(drafts, weights, strict=True) if d.answer == winner), strict=True)
    )


def plurality(drafts: Sequence[Draft]) -> Draft:
    """The commonest answer: self-consistency (arXiv 2203.11171)."""
    return weighted(drafts, [1.0] * len(drafts))


def best(drafts: Sequence[Draft], scores: Sequence[float]) -> Draft:
    """The draft with the highest score among those with an answer; among all, where none has one."""
    answered = [i for i, d in enumerate(drafts) if d.answer is not None] or range(len(drafts))
    return drafts[max(answered, key=lambda i: scores[i])]


def agreement(drafts: Sequence[Draft]) -> list[float]:
    """For each draft, the share of the drafts with an answer that give the same; 0 where it gives none."""
    given = [d.answer for d in drafts if d.answer is not None]
    return [given.count(d.answer) / len(given) if d.answer is not None else 0.0 for d in drafts]
