"""`etude eval MODEL --pairs FILE` and `etude check --pairs FILE --reward ...`: scorers on pairs with known labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from etude import tasks as sources
from etude.batch import pack, unpack
from etude.errors import UserError
from etude.evaluate.preferences import Asked, PreferenceResult, measured
from etude.event_loop import run as run_coroutine
from etude.models.policy import Policy
from etude.report.run import is_run
from etude.reward.combined import Combined
from etude.reward.model import RewardModel, ended, is_reward_model
from etude.reward.parts import Part
from etude.tasks.asked import asked as asks
from etude.tasks.check import Unjudged
from etude.tasks.isolate import Pool
from etude.tasks.spec import as_pairs
from etude.train.measure import load_policy, trains_on
from etude.types import Array, Episode, Message, SamplingParams, Span, Task

FEW = 64  # answers that are scored at once


def pairs_in(spec: str, models: Sequence[str] = ()) -> list[Task]:
    """All pairs of the files, but those that one of `models` (a run) trains on. UserError where none is left."""
    given = sources.load(as_pairs(spec))
    everything = given.examined() or []
    known = set().union(*(trains_on(m) for m in models if is_run(m)))
    fresh = [t for t in everything if asks(t) not in known]
    if not fresh:
        raise UserError(f"the run was trained on all pairs of '{spec}'; examine it on others")
    return fresh


def examine(model: str, spec: str) -> PreferenceResult:
    """A reward model by its numbers; any other model by the mean log-probability of an answer's tokens."""
    tasks = pairs_in(spec, [model])
    if is_reward_model(model):
        found = RewardModel(model)
        found.load()
        return measured(tasks, lambda asked: _in_pieces(asked, lambda few: found.members(few)[0]))
    policy = load_policy(model)
    return measured(
        tasks, lambda asked: _in_pieces(asked, lambda few: likelihood(policy, few)), log_odds=False
    )


def _in_pieces(asked: Asked, score: Callable[[Asked], Array]) -> Array:
    return np.concatenate([score(asked[i : i + FEW]) for i in range(0, len(asked), FEW)])


def likelihood(policy: Policy, asked: Asked) -> Array:
    """f64[n]: mean log pi(y_t) over a reply's tokens, its end included."""
    signals = []
    for prompt, text in asked:
        signal = ended(policy, prompt, text)
        before = len(signal.episode.spans[0])
        row = (np.arange(len(signal.advantage)) >= before).astype(np.float32)
        signals.append(type(signal)(signal.episode, 0 * row, {"policy": row}))
    batch = pack(signals, SamplingParams())
    rows = unpack(policy.score(batch).logp, batch, signals)
    return np.array([r.sum() / s.weights["policy"].sum() for r, s in zip(rows, signals, strict=True)], float)


def calibrate(parts: Sequence[Part], spec: str) -> PreferenceResult:
    """The reward that `parts` make, on pairs with known labels. What a part raises is an error here too."""
    tasks = pairs_in(spec)
    with Pool(known=[p.score for p in parts if p.user]) as pool:
        stage = Combined(parts, pool)
        stage.load()

        async def score(asked: Asked) -> Array:
            made = (_episode(prompt, text) for prompt, text in asked)
            scores = await asyncio.gather(*(stage(e) for e in made))
            return np.array([s["reward"] for s in scores])

        return measured(tasks, lambda asked: run_coroutine(score(asked)), log_odds=False)


def _episode(prompt: Sequence[Message], text: str) -> Episode:
    """A reply that nobody sampled: a token a word, for rewards that read lengths."""
    words = np.zeros(len(text.split()), np.int32)
    spans = (Span("assistant", words, True, np.zeros(len(words), np.float32)),)
    return Episode(Task(tuple(prompt), Unjudged()), spans, text=text, stop="end")
