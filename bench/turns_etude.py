"""The conversations of bench/turns.py."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from contestants import serve

from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.tasks import load
from etude.types import Array, Request, SamplingParams

HEARD, SAID = 25, 12  # tokens of a turn

job = json.loads(sys.argv[1])
policy = Policy.load(job["model"])
sampler = sampler_for(policy, job["conversations"])
sampler.stops = frozenset()  # type: ignore[attr-defined]  # lengths are as asked for
loop = asyncio.new_event_loop()
source = load("number_guess:highest=10000")
tasks = [source.draw(Request(), i, 0) for i in range(job["conversations"])]
opening = policy.renderer.prompt(list(tasks[0].prompt))
heard = np.random.default_rng(0).integers(1000, 20000, (job["turns"], job["conversations"], HEARD), np.int32)


async def talk(i: int, tokens: Array, turn: int) -> Array:
    words = np.concatenate([tokens, heard[turn, i]])
    found = await sampler.sample(words, SamplingParams(max_tokens=SAID), 1000 * turn + i)
    return np.concatenate([words, found.tokens])


async def play(kind: str) -> list[Array]:
    policy.forget()
    rows = [opening] * job["conversations"]
    for turn in range(job["turns"]):
        if kind == "anew":
            policy.forget()
        rows = await asyncio.gather(*(talk(i, row, turn) for i, row in enumerate(rows)))
    return rows


def turn(kind: str) -> dict[str, float]:
    before = policy.meter.prefilled
    rows = loop.run_until_complete(play(kind))
    return {
        "tokens": float(SAID * job["turns"] * len(rows)),
        "prefilled": float(policy.meter.prefilled - before),
        "sum": float(sum(int(row.sum()) for row in rows)),
    }


loop.run_until_complete(talk(0, opening, 0))  # touches memory for the first time
serve(turn)
