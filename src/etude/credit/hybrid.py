"""Attempts are reinforced, demonstrations imitated: which of a group's episodes teach in which way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.group import centred, constant, each, standardised
from etude.credit.imitate import imitate, shown, tagged
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal


def centred_or_imitated():
    """r_i - mean r for attempts; imitation of demonstrations."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        return each(centred)(groups, context) + shown(groups)

    return credit


def practised(right: Sequence[bool], gate: float) -> bool:
    """Whether the share of right attempts lies above the gate."""
    return float(np.mean(right)) > gate


def gated(
    gate: Annotated[
        float, Setting("share of right attempts up to which a task is imitated", low=-1, high=1)
    ] = 0.0,
):
    """A_i = r_i - mean r for tasks above the gate; the demonstration, and no attempt, for the others and for those
    that nobody attempted (HPT, arXiv 2509.04419)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        sides: dict[bool, list[Group]] = {True: [], False: []}
        for group in groups:
            right = [e.correct for e in group.episodes]
            if right or not group.failed:  # where every attempt broke, nothing is known of the task
                sides[bool(right) and practised(right, gate)].append(group)
        return each(centred)(sides[True], context) + shown(sides[False])

    return credit


def practise_and_correct(
    prefix: Annotated[bool, Setting("imitate the steps before the intervention as well")] = True,
    begin: Annotated[float, Setting("share of the run before attempts are reinforced", low=0, high=1)] = 0.0,
):
    """GRPO's advantages for attempts; imitation of interventions (InT, arXiv 2601.14209)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        practised = groups if context.progress >= begin else []
        corrected = [e for g in groups for e in g.demonstrations]
        return each(standardised)(practised, context) + [imitate(e, written(e, prefix)) for e in corrected]

    return credit


def written(episode: Episode, prefix: bool) -> Array:
    """bool[T]: the tokens of an intervention, and of what the policy wrote before it."""
    mine = np.repeat([s.role == "assistant" for s in episode.spans], [len(s) for s in episode.spans])
    return mine if prefix else tagged(episode, "intervention") | tagged(episode, "probe")


def by_spot(epsilon: Annotated[float, Setting("added to the standard deviation", low=0)] = 1e-4):
    """(r - mean) / (std + epsilon) among the attempts at one token; imitation of the text's other tokens
    (RMT, arXiv 2509.24375)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            for spot in dict.fromkeys(e.notes["spot"] for e in group.episodes):
                mine = [e for e in group.episodes if e.notes["spot"] == spot]
                advantage = standardised(np.array([e.reward for e in mine]), epsilon)
                signals += [constant(e, float(a)) for e, a in zip(mine, advantage, strict=True)]
            for whole in group.demonstrations:
                text = tagged(whole, "demonstration")
                text[np.flatnonzero(text)[list(whole.notes["spots"])]] = False
                signals.append(imitate(whole, text))
        return signals

    return credit
