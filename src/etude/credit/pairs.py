"""Preferences made from the outcomes of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.group import constant
from etude.settings import Setting
from etude.types import Array, Episode, Group, Message, Signal, Span


def preference_pairs(
    pairs: Annotated[int, Setting("pairs per task", low=1, high=64)] = 1,
    margin: Annotated[float, Setting("least difference in reward within a pair", low=0, high=1)] = 1e-6,
):
    """For each mixed group, `pairs` times a better and a worse episode, best against worst first; ties are
    broken by a keyed draw. Chosen tokens have advantage +1, rejected -1; `extras["pair"]` numbers the pair
    from 1 within its group."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals: list[Signal] = []
        for group in groups:
            rewards = group.rewards
            draw = seeds.generator(context.seed, "pairs", context.step, group.task.key).random(len(rewards))
            order = np.lexsort((draw, rewards))
            for number in range(min(pairs, len(order) // 2)):
                worst, best = order[number], order[-1 - number]
                if rewards[best] - rewards[worst] < margin:
                    break
                for index, sign in ((best, 1.0), (worst, -1.0)):
                    signal = constant(group.episodes[index], sign)
                    mark = np.full(len(signal.advantage), number + 1, np.float32)
                    signals.append(Signal(signal.episode, signal.advantage, extras={"pair": mark}))
        return signals

    return credit


REVISE = "{how}\n\nQuestion: {question}\n\nResponse: {response}"


def token_reward(better: Array, worse: Array) -> Array:
    """sigmoid(log pi_ref(y_t | better) - log pi_ref(y_t | worse)) - 1/2, in [-1/2, 1/2]."""
    return 1 / (1 + np.exp(worse - better)) - 0.5


def contrasted_pairs(
    pairs: Annotated[int, Setting("pairs per task", low=1, high=64)] = 1,
    margin: Annotated[float, Setting("least difference in reward within a pair", low=0, high=1)] = 1e-6,
    better: Annotated[str, Setting("how a response is to be revised for the better")] = (
        "Revise the response so that it is more helpful, correct, coherent and concise."
    ),
    worse: Annotated[str, Setting("how it is to be revised for the worse")] = (
        "Revise the response so that it is less helpful, incorrect, incoherent and verbose."
    ),
):
    """Preference pairs; `extras["token_reward"]` is what the frozen start thinks of each of their tokens
    (T-REG, arXiv 2412.02685)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = preference_pairs(pairs, margin)(groups, context)
        rows = [_under(how, signals, context) for how in (better, worse)]
        rewards = [token_reward(*both) * s.episode.sampled for s, *both in zip(signals, *rows, strict=True)]
        return [
            replace(s, extras={**s.extras, "token_reward": r.astype(np.float32)})
            for s, r in zip(signals, rewards, strict=True)
        ]

    return credit


def _under(how: str, signals: Sequence[Signal], context: Any) -> list[Array]:
    """f32[T] each: log pi_ref of the sampled tokens after a prompt that asks to revise the response."""
    renderer, asked, sizes = context.policy.renderer, [], []
    for episode in (s.episode for s in signals):
        first = next(i for i, span in enumerate(episode.spans) if span.sampled)
        response = renderer.decode(episode.tokens[episode.sampled])
        text = REVISE.format(how=how, question=episode.task.prompt[-1].content, response=response)
        prompt = Span("user", renderer.prompt([Message("user", text)]))
        spans = (prompt, *episode.spans[first:])
        sizes.append((len(prompt), sum(len(s) for s in episode.spans[:first])))
        asked.append(constant(replace(episode, spans=spans), 0.0))
    model = context.companions["reference"]
    rows = context.rows(asked, lambda out: out.logp, policy=model)
    return [np.append(np.zeros(old, np.float32), r[new:]) for r, (new, old) in zip(rows, sizes, strict=True)]


def step_pair(episode: Episode, number: int) -> list[Signal]:
    """The right step (+1) and its edit (-1) after what stood before them (notes `edit`); pair `number` of the group."""
    edit = episode.notes["edit"]
    right = episode.tokens[edit["start"] : edit["end"]]
    before = Span("user", episode.tokens[: edit["start"]], tag="prefix")
    signals = []
    for tokens, sign in ((right, 1.0), (edit["tokens"], -1.0)):
        step = Span("assistant", np.array(tokens, np.int32), tag="step")
        on = np.append(np.zeros(len(before)), np.ones(len(step))).astype(np.float32)
        pair = {"pair": np.full(len(on), number, np.float32)}
        laid = replace(episode, spans=(before, step))
        signals.append(Signal(laid, on * np.float32(sign), {"policy": on}, pair))
    return signals


def full_and_step_pairs():
    """One pair of a right and a wrong answer per mixed group, and the pair of the edited step. Row "chosen": the
    text that is preferred (RISE, arXiv 2410.06638)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = preference_pairs(pairs=1)(groups, context)
        for group in groups:
            for episode in group.episodes:
                signals += step_pair(episode, 2) if "edit" in episode.notes else []
        rows = [s.weights["policy"] * (s.advantage > 0) for s in signals]
        return [
            replace(s, weights={**s.weights, "chosen": row}) for s, row in zip(signals, rows, strict=True)
        ]

    return credit
