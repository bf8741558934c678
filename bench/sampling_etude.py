"""etude's side of bench/sampling.py."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from typing import Any

import numpy as np
from contestants import serve

from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Sample
from etude.types import SamplingParams

job = json.loads(sys.argv[1])
policy = Policy.load(job["model"])
sampler: Any = sampler_for(policy, job["rows"])
sampler.stops = frozenset()  # the end token is sampled like any other
params = SamplingParams(max_tokens=job["tokens"])
loop = asyncio.new_event_loop()
keys = itertools.count()


async def replies(prompts: list[list[int]]) -> list[Sample]:
    waiting = (sampler.sample(np.array(p, np.int32), params, next(keys)) for p in prompts)
    return await asyncio.gather(*waiting)


def turn(prompts: list[list[int]]) -> dict[str, Any]:
    found = loop.run_until_complete(replies(prompts))
    tokens = sum(len(s.logp) for s in found)
    return {"tokens": float(tokens), "lengths": [len(s.tokens) for s in found]}


serve(turn)
