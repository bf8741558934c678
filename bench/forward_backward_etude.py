"""etude's side of bench/forward_backward.py; it also samples the completions that all contestants are given."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from contestants import serve

from etude.batch import pack
from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.tasks import load
from etude.types import Episode, Request, SamplingParams, Signal, Span

job = json.loads(sys.argv[1])
policy = Policy.load(job["model"])
source = load("chain_sum:max_terms=2,max_digits=2")
tasks = [source.draw(Request(), i, 0) for i in range(job["tasks"])]
prompts = [policy.renderer.prompt(list(t.prompt)) for t in tasks]
sampler = sampler_for(policy)
params = SamplingParams(max_tokens=job["tokens"])


async def replies() -> list[Any]:
    each = job["samples"]
    waiting = (sampler.sample(p, params, i * each + j) for i, p in enumerate(prompts) for j in range(each))
    return await asyncio.gather(*waiting)


samples = asyncio.run(replies())
signals = []
for number, sample in enumerate(samples):
    which = number // job["samples"]
    spans = (Span("user", prompts[which]), Span("assistant", sample.tokens, True, sample.logp))
    length = sum(map(len, spans))
    advantage = np.full(length, 1.0 if number % 2 else -1.0, np.float32)
    signals.append(Signal(Episode(tasks[which], spans), advantage))
whole = pack(signals)
rows = [{"prompts": prompts[n // job["samples"]].tolist(), "completions": s.tokens.tolist(),
         "advantages": 1.0 if n % 2 else -1.0} for n, s in enumerate(samples)]  # fmt: skip
Path(job["data"]).write_text(json.dumps({name: [row[name] for row in rows] for name in rows[0]}))
parameters = [p for _, p in policy.parameters()]


def turn() -> dict[str, float]:
    begin = time.perf_counter()
    out = policy.outputs(whole)
    count = float(whole.needed.sum())
    loss = (whole.advantage * -out.logp)[whole.needed].sum() / count
    loss.backward()
    policy.grad_accumulate()
    seconds = time.perf_counter() - begin
    norm = sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None) ** 0.5
    for p in parameters:
        if p.grad is not None:
            p.grad.zero_()
    return {"seconds": seconds, "tokens": count, "loss": float(loss.detach()), "grad_norm": norm}


serve(turn)
