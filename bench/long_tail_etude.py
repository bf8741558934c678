"""The sampler of bench/long_tail.py, with a look at its rows before every step."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any

import numpy as np
from contestants import serve

from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.tasks import load
from etude.types import Request, SamplingParams

job = json.loads(sys.argv[1])
policy = Policy.load(job["model"])
sampler: Any = sampler_for(policy, job["rows"])
sampler.stops = frozenset()  # lengths are as asked for
loop = asyncio.new_event_loop()
keys = itertools.count()
source = load("chain_sum:max_terms=2,max_digits=2")
drawn = [source.draw(Request(), i, 0) for i in range(-(-job["short"] // 8))]
prompts = [policy.renderer.prompt(list(t.prompt)) for t in drawn]
lengths = np.random.default_rng(0).integers(16, 65, job["short"]).tolist()
rows: list[tuple[int, int]] = []  # in use and waiting, per step
advance = sampler._advance


def watched() -> None:
    rows.append((len(sampler.live), len(sampler.waiting)))
    advance()


sampler._advance = watched


async def reply(number: int, length: int) -> tuple[int, float]:
    """The tokens of a reply, and when it was in."""
    prompt = prompts[number // 8 % len(prompts)]
    found = await sampler.sample(prompt, SamplingParams(max_tokens=length), next(keys))
    return len(found.tokens), time.perf_counter()


async def play(kind: str) -> list[tuple[int, float]]:
    wanted = list(lengths) if kind == "without" else [job["long"], *lengths]
    size = job["rows"] if kind == "batches" else len(wanted)
    done: list[tuple[int, float]] = []
    for start in range(0, len(wanted), size):
        part = enumerate(wanted[start : start + size], start)
        done += await asyncio.gather(*(reply(i, n) for i, n in part))
    return done


def turn(kind: str) -> dict[str, float]:
    rows.clear()
    begin = time.perf_counter()
    done = loop.run_until_complete(play(kind))
    full = [live for live, waiting in rows if waiting or kind == "batches"]  # there, the next batch waits
    return {
        "seconds": time.perf_counter() - begin,
        "tokens": float(sum(n for n, _ in done)),
        "short_seconds": max(at for n, at in done if n <= 64) - begin,
        "occupancy": float(np.mean(full)) / job["rows"],
        "mean_rows": float(np.mean([live for live, _ in rows])),
        "steps": float(len(rows)),
    }


loop.run_until_complete(reply(0, 8))  # touches memory for the first time
serve(turn)
