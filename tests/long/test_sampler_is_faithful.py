"""What is sampled follows the probabilities that float32 transformers gives: end tokens as often as expected, and a mean
surprise that is the entropy. Run with -s to see the figures."""

import asyncio

import numpy as np
import pytest
import torch

from etude import seeds
from etude.models.embedded import directory
from etude.models.policy import Policy
from etude.sampling.engine import sampler_for
from etude.tasks import load
from etude.types import Request, SamplingParams

pytestmark = pytest.mark.long
PROMPTS, REPLIES = 8, 12


def test_replies_follow_their_probabilities() -> None:
    from transformers import AutoModelForCausalLM

    policy = Policy.load(str(directory()))
    source = load("chain_sum:max_terms=2,max_digits=2")
    drawn = [source.draw(Request(), 16 + i, 0) for i in range(PROMPTS)]
    prompts = [np.array(policy.renderer.prompt(task.prompt), np.int32) for task in drawn]
    sampler, params = sampler_for(policy, 64), SamplingParams(max_tokens=64)

    async def replies():
        keys = [(i, j) for i in range(PROMPTS) for j in range(REPLIES)]
        return await asyncio.gather(
            *(sampler.sample(prompts[i], params, seeds.key("x", i, j)) for i, j in keys)
        )

    model = AutoModelForCausalLM.from_pretrained(directory(), dtype=torch.float32)
    (end,) = sampler.stops
    ends, surprise = [], []  # of every token: seen - expected, and its variance
    for k, found in enumerate(asyncio.run(replies())):
        prompt = prompts[k // REPLIES]
        tokens = torch.from_numpy(found.tokens.astype(np.int64))
        with torch.no_grad():
            whole = torch.cat([torch.from_numpy(prompt.astype(np.int64)), tokens])[None]
            log_p = model(whole).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        p, q = log_p.exp(), log_p.exp()[:, end]
        entropy = -(p * log_p).sum(1)
        ends.append(torch.stack([(tokens == end).float() - q, q * (1 - q)]))
        chosen = -log_p.gather(1, tokens[:, None])[:, 0]
        surprise.append(torch.stack([chosen - entropy, (p * log_p**2).sum(1) - entropy**2]))
    for name, rows in (("end tokens", ends), ("surprise, nats", surprise)):
        off, variance = torch.cat(rows, 1).double().sum(1).tolist()
        print(f"{name}: {off:+.1f} from what is expected, SD {variance**0.5:.1f}")
        assert abs(off) < 4 * variance**0.5
