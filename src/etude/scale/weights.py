"""A policy's weights as a directory that an engine loads: written beside, then renamed, so that none is ever half there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import torch

from etude.batch import pack
from etude.files import writing
from etude.models.directory import write_json, write_tensors
from etude.models.policy import Policy
from etude.types import Array, Episode, Message, Signal, Span, Task, Verdict

TEXT = "Name three rivers, and say of each in one sentence through which countries it flows."


def write(policy: Policy, place: Path) -> Path:
    """`place`, with the policy's weights in the precision in which it computes, adapters merged, auxiliary heads left out."""
    dtype = torch.bfloat16 if policy.precision == "bf16" else torch.float32
    beside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    with writing(place):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        kept = ((n, t) for n, t in policy.backbone.export() if not n.startswith("heads."))
        write_tensors(((n, t.to(dtype) if t.is_floating_point() else t) for n, t in kept), beside)
        config = {k: v for k, v in policy.config.items() if k not in ("quantization_config", "torch_dtype")}
        write_json(beside / "config.json", {**config, "dtype": str(dtype).removeprefix("torch.")})
        policy.tokenizer.save(beside)
        shutil.rmtree(place, ignore_errors=True)
        os.rename(beside, place)
    return place


def canary(policy: Policy) -> Array:
    """int32[n]: a text on which both sides are compared, as the policy's chat template renders it."""
    tokens = policy.renderer.prompt((Message("user", TEXT),))
    return np.asarray(tokens, np.int32)[:128]


def scored(policy: Policy, tokens: Array) -> Array:
    """f32[n - 1]: the policy's own log-probabilities of all tokens but the first. Charged to nothing."""
    meter = policy.meter.state_dict()
    task = Task((Message("user", TEXT),), _unchecked)
    span = Span("assistant", tokens, True, np.zeros(len(tokens), np.float32))
    batch = pack([Signal(Episode(task, (span,)), np.zeros(len(tokens), np.float32))])
    found: Array = policy.score(batch).logp[1:].float().cpu().numpy()
    policy.meter.load_state_dict(meter)
    return found


def _unchecked(answer: str) -> Verdict:
    raise TypeError("the canary is not checked")
