"""Which sampler serves a policy."""

from __future__ import annotations

from etude.models.policy import Policy
from etude.sampling.hf import TransformersSampler
from etude.sampling.native import NativeSampler
from etude.sampling.scheduler import Scheduler


def sampler_for(policy: Policy, max_rows: int = 128) -> Scheduler:
    """A sampler that reads the policy's weights, with at most `max_rows` replies under way. One is enough: it batches
    all requests."""
    if policy.backbone.native() is not None:
        return NativeSampler(policy, max_rows)
    return TransformersSampler(policy, max_rows)
