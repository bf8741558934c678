"""Episodes of several attempts made by hand, and what a recipe's assembled credit says of their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from etude.credit.imitate import tagged
from etude.methods import build
from etude.recipe import Recipe
from etude.rollout.attempts import ANSWERS, UNAIDED, attempt_tag
from etude.testing.examples import EXAMPLE_TASK
from etude.types import Array, Episode, Group, Message, Signal, Span, Verdict


def example_attempts(*rewards: float, between: str = "", answers: Sequence[str | None] = ()) -> Episode:
    """Attempts with these rewards, right where the reward is 1; attempt k is k tokens long, log-probability -1 a token.
    The first prompt is (1, 2). Each later attempt begins a sequence of its own, after a sampled text `between` (its
    tag) if there is one; without its help it would have been asked (1,). `answers`: what was read from each attempt."""
    spans: list[Span] = []
    unaided: dict[str, list[int]] = {}
    for number in range(1, len(rewards) + 1):
        for tag, length in ((between, 1), (attempt_tag(number), number)):
            if not tag or (tag == between and number == 1):
                continue
            prompt = Span("user", np.array([1, 2], np.int32), tag="prompt", restart=number > 1)
            words = np.arange(3, 3 + length, dtype=np.int32)
            spans += [prompt, Span("assistant", words, True, -np.ones(length, np.float32), tag=tag)]
            unaided |= {tag: [1]} if number > 1 else {}
    verdicts = tuple(Verdict(reward, reward == 1) for reward in rewards)
    notes = {UNAIDED: unaided, ANSWERS: list(answers) or [""] * len(rewards)}
    return Episode(EXAMPLE_TASK, tuple(spans), verdicts=verdicts, notes=notes)


def credited_signals(
    recipe: Recipe,
    *groups: Sequence[Episode],
    settings: Mapping[str, Any] | None = None,
    progress: float = 0.0,
    **context: Any,
) -> list[Signal]:
    """What the recipe's reward and credit stages make of the groups. `progress`: of the run. Where credit asks for
    log-probabilities, they are -1. `context`: attributes of the run's context instead of these."""
    _, stages = build(recipe, dict(settings or {}))
    made = []
    for number, episodes in enumerate(groups):
        task = replace(EXAMPLE_TASK, prompt=(Message("user", str(number)),))
        scored = [e.with_scores(stages["reward"](e)) for e in episodes]
        made.append(Group(task, tuple(replace(e, task=task) for e in scored)))

    def rows(signals: Sequence[Signal], read: Any, *needs: Any, **more: Any) -> list[Array]:
        return [np.full(len(s.advantage), -1, np.float32) for s in signals]

    where = SimpleNamespace(**{"seed": 0, "step": 0, "progress": progress, "rows": rows, **context})
    signals: list[Signal] = stages["credit"](made, where)
    return signals


def advantages_of(signals: Sequence[Signal], tag: str, row: str = "policy") -> list[float]:
    """The advantage of the part `tag`, one number for each signal in which the part has a weight in `row`."""
    return [a for _, a in _parts(signals, tag, row)]


def weights_of(signals: Sequence[Signal], tag: str, row: str) -> list[float]:
    """The weight of the part `tag` in `row`, one number for each signal in which it has any."""
    return [w for w, _ in _parts(signals, tag, row)]


def _parts(signals: Sequence[Signal], tag: str, row: str) -> list[tuple[float, float]]:
    found = []
    for signal in signals:
        on = tagged(signal.episode, tag)
        pairs = set(
            zip(signal.weights.get(row, 0.0 * on)[on].tolist(), signal.advantage[on].tolist(), strict=True)
        )
        if len(pairs) > 1:
            raise ValueError(f"the tokens of '{tag}' are credited differently: {sorted(pairs)}")
        found += [pair for pair in pairs if pair[0]]
    return found
