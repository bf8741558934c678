"""The steps of bench/growth.py: sizes are exact and every group is trained."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from contestants import serve

from etude.assembly import build
from etude.methods import find
from etude.models.backbone import NativeBackbone
from etude.models.config import ModelConfig
from etude.models.directory import read_config
from etude.models.embedded import directory
from etude.models.policy import Policy
from etude.models.weights import Weights
from etude.sampling.engine import sampler_for
from etude.text.tokenizer import read
from etude.train.step import Learner
from etude.types import Episode, Message, SamplingParams, Signal, Span, Task, Verdict

# width, layers, heads, key heads, inner; the two larger ones are SmolLM2's
SHAPES = {
    "tiny": (64, 2, 4, 2, 128),
    "30M": (256, 12, 4, 2, 768),
    "135M": (576, 30, 9, 3, 1536),
    "360M": (960, 32, 15, 5, 2560),
}
objective = build(find("grpo"), {})[1]["objective"]
counter = itertools.count()


def unjudged(answer: str) -> Verdict:
    raise TypeError("nothing is checked here")


@cache
def learner(model: str) -> tuple[Learner, Any]:
    """With random weights; the vocabulary is always SmolLM2's."""
    config = read_config(directory())
    width, layers, heads, kv_heads, inner = SHAPES[model]
    shape = replace(
        ModelConfig.from_transformers(config), width=width, layers=layers, heads=heads, kv_heads=kv_heads, inner=inner,
        head_dim=width // heads, windows=(0,) * layers,
    )  # fmt: skip
    weights = Weights(shape, {}, "bf16")
    weights.initialise(0)
    policy = Policy(NativeBackbone(weights), read(directory()), config)
    sampler: Any = sampler_for(policy, 128)
    sampler.stops = frozenset()
    one = Learner(policy, build(find("grpo"), {"update.lr": "1e-6"})[1]["update"])
    return one, sampler


def turn(
    tasks: int, samples: int, prompt: int, completion: int, model: str = "135M", share: bool = True
) -> dict[str, float]:
    if learner.cache_info().currsize and model not in SEEN:
        learner.cache_clear()  # one model at a time
    SEEN.add(model)
    one, sampler = learner(model)
    rng = np.random.default_rng(next(counter))
    number = tasks if share else tasks * samples
    prompts = [rng.integers(100, 40000, prompt).astype(np.int32) for _ in range(number)]
    names = [Task((Message("user", str(p[:8])),), check=unjudged) for p in prompts]
    which = np.arange(tasks * samples) // (samples if share else 1)
    params = SamplingParams(max_tokens=completion)

    async def replies() -> list[Any]:
        return await asyncio.gather(*(sampler.sample(prompts[i], params, next(counter)) for i in which))

    begin = time.perf_counter()
    with one.policy.recording():  # as the loop does
        found = LOOP.run_until_complete(replies())
    rollout = time.perf_counter() - begin
    signals = []
    for i, (p, sample) in enumerate(zip(which, found, strict=True)):
        spans = (Span("user", prompts[p]), Span("assistant", sample.tokens, True, sample.logp))
        advantage = np.full(prompt + completion, 1.0 if i % 2 else -1.0, np.float32)
        signals.append(Signal(Episode(names[p], spans, policy_version=sample.version), advantage))
    one.learn(objective, signals, 0, 0.0)
    seconds = time.perf_counter() - begin
    tokens = float(tasks * samples * completion)
    facts = {"seconds": seconds, "rollout_seconds": rollout, "tokens": tokens}
    return {**facts, "parameters": float(one.policy.backbone.size)}


SEEN: set[str] = set()
LOOP = asyncio.new_event_loop()
serve(turn)
