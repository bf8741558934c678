"""Imitation that makes use of wrong answers: behind a mark that says so, mended, or on the way to a right one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from etude.credit.attempts import distilled
from etude.credit.imitate import demonstrations, imitate, tagged
from etude.reward.attempts import less_form
from etude.rollout.attempts import nth
from etude.rollout.corrections import CORRECTION, ERROR
from etude.settings import Setting
from etude.types import Episode, Group, Signal


def picked(answers: Sequence[tuple[bytes, bool]], most: int) -> list[int]:
    """Which of the (answer, right) are wrong and differ: the first `most`."""
    seen: dict[bytes, int] = {}
    for i, (words, right) in enumerate(answers):
        if not right:
            seen.setdefault(words, i)
    return list(seen.values())[:most]


def right_and_wrong(
    most: Annotated[int, Setting("wrong answers per task", low=0)] = 1,
):
    """The demonstration behind the bare prompt, and wrong answers behind the marked one (arXiv 2403.20046)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = demonstrations()(groups, context)
        for group in groups:
            answers = [(e.tokens[e.sampled].tobytes(), e.correct) for e in group.episodes]
            for i in picked(answers, most):
                signals += distilled(group.episodes[i], nth(1), "imitation")
        return signals

    return credit


def repaired(
    reflector: Annotated[
        bool, Setting("also learn to repair: the right answer after a wrong one and its feedback")
    ] = True,
):
    """Right first answers, and right second ones behind the bare question. With `reflector` also right second
    ones behind the question, the wrong answer and its feedback; and, where no repair succeeded, the first right
    answer of the same group in its place (Re-ReST, arXiv 2406.01495)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            right = [e for e in group.episodes if e.verdicts[0].correct]
            signals += [imitate(e, tagged(e, nth(1))) for e in right]
            for episode in group.episodes:
                if len(episode.verdicts) < 2 or episode.verdicts[0].correct:
                    continue
                if episode.correct:
                    signals += distilled(episode, nth(2), "imitation")
                    signals += [imitate(episode, tagged(episode, nth(2)))] if reflector else []
                elif right and reflector:
                    signals.append(_lesson(episode, right[0]))
        return signals

    return credit


def _lesson(wrong: Episode, right: Episode) -> Signal:
    """The prompt of `wrong`'s second attempt, answered with the first attempt of `right`."""
    last = max(i for i, s in enumerate(wrong.spans) if s.restart)
    answer = [replace(s, sampled=False, logp=None) for s in right.spans if s.tag == nth(1)]
    episode = replace(wrong, spans=(replace(wrong.spans[last], restart=False), *answer))
    return imitate(episode, tagged(episode, nth(1)))


KEEP = {
    "all": lambda rewards: True,
    "success": lambda rewards: rewards[-1] == 1,
    "better": lambda rewards: len(rewards) == 1 or rewards[-1] > rewards[-2],
    "best": lambda rewards: rewards[-1] == max(rewards),
}


def reward_weight(reward: float, tau: float) -> float:
    """exp(r / tau)."""
    return math.exp(reward / tau)


def last_turn(
    tau: Annotated[float, Setting("temperature of the weight exp(r / tau)", low=0.05)] = 0.4,
    keep: Annotated[
        str, Setting("which episodes are imitated, by their last reward", choices=tuple(KEEP))
    ] = "better",
):
    """The last attempt of an episode, weighted; earlier ones are context. An attempt in which no answer was found
    counts 1 less (RISE, arXiv 2407.18219)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for episode in (e for g in groups for e in g.episodes):
            rewards = less_form(episode, 1.0)
            if KEEP[keep](rewards):
                last = tagged(episode, nth(len(episode.verdicts)))
                signals.append(imitate(episode, last, reward_weight(rewards[-1], tau)))
        return signals

    return credit


def traces(
    mask: Annotated[bool, Setting("leave the wrong part out of the loss")] = False,
):
    """Demonstrations, and traces: the whole of them, or the correction alone (LEMMA, arXiv 2503.17439)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = demonstrations()(groups, context)
        signals = [s for s in signals if s.weights["imitation"].any()]
        for episode in (e for g in groups for e in g.demonstrations):
            where = tagged(episode, CORRECTION)
            if where.any():
                signals.append(imitate(episode, where if mask else where | tagged(episode, ERROR)))
        return signals

    return credit
