"""Re-ReST: failed samples are repaired by a reflector before self-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.attempts import distilled
from etude.credit.imitate import imitate, tagged
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import nth
from etude.rollout.second import Refine
from etude.settings import Setting, stage
from etude.testing.examples import EXAMPLE_TASK
from etude.types import Episode, Group, Signal, Span, Verdict


def _lesson(wrong: Episode, right: Episode) -> Signal:
    """The prompt of `wrong`'s second attempt, answered with the first attempt of `right`."""
    last = max(i for i, s in enumerate(wrong.spans) if s.restart)
    answer = [replace(s, sampled=False, logp=None) for s in right.spans if s.tag == nth(1)]
    episode = replace(wrong, spans=(replace(wrong.spans[last], restart=False), *answer))
    return imitate(episode, tagged(episode, nth(1)))


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


def tried(*attempts: tuple[Sequence[int], bool]) -> Episode:
    """Attempts of these tokens, each right or wrong. The prompt is (1, 2); later attempts begin afresh after it, and
    without their help it would have been (1,)."""
    spans: list[Span] = []
    for number, (tokens, _) in enumerate(attempts, 1):
        words = Span("assistant", np.array(tokens), True, np.zeros(len(tokens)), tag=nth(number))
        spans += [Span("user", np.array([1, 2]), tag="prompt", restart=number > 1), words]
    plain = {nth(number): [1] for number in range(2, len(attempts) + 1)}
    verdicts = tuple(Verdict(float(right), right) for _, right in attempts)
    return Episode(EXAMPLE_TASK, tuple(spans), verdicts=verdicts, notes={"plain": plain})


def _rows() -> list[float]:
    """Trained tokens per signal, of a right answer and of a wrong one that was repaired."""
    group = Group(EXAMPLE_TASK, (tried(([3], True)), tried(([4, 5], False), ([6, 7, 8], True))))
    return [float(s.weights["imitation"].sum()) for s in repaired()([group])]


RECIPE = Recipe(
    name="re_rest",
    n=66,
    paper=Paper("Re-ReST: Reflection-Reinforced Self-Training for Language Agents", "2406.01495", 2024),
    idea="Self-training keeps the answers that were right and throws the others away. "
    "Here a wrong answer is given back with what the environment said of it, and if its repair is right, that is kept as well. "
    "Repairs are stored as answers to the bare question, and the model also learns to repair.",
    equation="L = - mean_t log pi(y_t | x) over right y and right repairs;  - mean_t log pi(y_t | x, wrong y, feedback)",
    departures=(
        "agent and reflector are one model, trained together, where the paper gives each its own LoRA and trains the reflector first",
        "one round per step, from the current weights",
        "only first actions of worlds that were not repaired teach the reflector",
    ),
    confidence="memory",
    stages={
        "rollout": stage(Refine, critic="feedback"),
        "reward": stage(each_attempt),
        "credit": stage(repaired),
        "objective": stage(cross_entropy),
    },
    claim="With telling feedback more tasks have a right sample, and accuracy exceeds that of self-training at equal samples.",
    examples=(
        ByHand("one right; one repaired: for the agent and for the reflector", _rows, [1, 3, 3]),
        Reduction(
            "nothing is repaired: rejection-sampling fine-tuning",
            "rft",
            {"rollout.second": 0.0},
            {"credit.distinct": False},
        ),
    ),
)
