"""What a run's numbers came from, as far as it can be told apart: which model, and which arithmetic."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import metadata

import torch

from etude.machine import instructions
from etude.models import kernels
from etude.models.device import named
from etude.models.policy import Policy

ENDS = 64  # values at both ends of a tensor that stand for it
SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "model_type")


def arithmetic(device: torch.device) -> dict[str, str]:
    """What decides the bits of a computation: on another processor or with another PyTorch they may be others."""
    found = {
        "instructions": " ".join(instructions()) or "unknown",
        "torch": metadata.version("torch"),
        "kernels": kernels.why_not() or "native",
    }
    if device.type != "cpu":
        found["device"] = named(device)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return found | ({"ONEDNN_MAX_CPU_ISA": limit} if limit else {})


def model_identity(policy: Policy) -> dict[str, str]:
    """{what: hash} of a model as it was loaded. `weights` looks at the ends of every tensor."""
    tokenizer = policy.tokenizer
    shape = {name: policy.config.get(name) for name in SHAPE}
    return {
        "architecture": _hash(json.dumps(shape, sort_keys=True, default=str).encode()),
        "tokenizer": _hash(tokenizer.backend.to_str().encode()),
        "chat template": _hash((tokenizer.template or "").encode()),
        "weights": _weights(policy),
    }


def unlike(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """The names under which two of these differ."""
    return [name for name in dict.fromkeys([*then, *now]) if now.get(name) != then.get(name)]


@torch.no_grad()
def _weights(policy: Policy) -> str:
    seen = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(policy.backbone.export(), key=lambda pair: pair[0]):
        if name.startswith("heads."):
            continue
        flat = tensor.detach().flatten()
        ends = torch.cat([flat[:ENDS], flat[-ENDS:]]).float().cpu().contiguous()
        seen.update(f"{name} {tuple(tensor.shape)}".encode() + ends.numpy().tobytes())
    return seen.hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
