"""What a run will need, said before anything is sampled: memory of a process by what it is for, and tokens of a step. Worked out
from the model's shape; what a run then takes stands beside it after its first steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from etude.models.policy import Policy
from etude.scale.mirrored import Mirrored
from etude.train.run import Run
from etude.train.step import Learner

GB = 1e9


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    weights: float = 0.0  # those that compute, and the float32 masters
    gradients: float = 0.0
    moments: float = 0.0  # of AdamW
    others: float = 0.0  # auxiliary models, with all that is trained of them
    activations: float = 0.0  # of one micro-batch, at its largest

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.moments + self.others + self.activations


def memory(run: Run) -> Memory:
    """Of this process: with ranks, of each of them."""
    weights, gradients, moments = _model(run.learner.policy)
    others = 0.0
    for part in run.context.auxiliary.values():
        others += sum(_model(part.policy if isinstance(part, Learner) else part))
    tokens = min(
        run.settings.micro_tokens,
        run.settings.tasks_per_step * run.settings.group_size * run.settings.context,
    )
    per_token = activation_bytes(run.learner.policy, run.settings.recompute)
    return Memory(weights, gradients, moments, others, tokens * per_token)


def _model(policy: Policy) -> tuple[float, float, float]:
    """Bytes of weights, gradients and moments. A model that ranks share is there in parts, but for the layer that computes."""
    trained = float(sum(p.numel() for _, p in policy.parameters()))
    whole = max(trained, _size(policy))
    working = 2 if policy.precision == "bf16" else 4
    if isinstance(policy.backbone, Mirrored):
        count, frozen = policy.backbone.ranks.count, whole - trained
        gathered = working * _largest(policy)
        return (4 * trained + working * frozen) / count + gathered, 4 * trained / count, 8 * trained / count
    masters = 4 * trained if policy.precision == "bf16" else 0.0
    return working * whole + masters, 4 * trained, 8 * trained


def _shape(policy: Policy) -> Mapping[str, float]:
    config: Mapping[str, Any] = {**policy.config, **(policy.config.get("text_config") or {})}
    width = float(config.get("hidden_size") or config.get("n_embd") or 0)
    heads = float(config.get("num_attention_heads") or config.get("n_head") or 1)
    return {
        "width": width,
        "layers": float(config.get("num_hidden_layers") or config.get("n_layer") or 0),
        "inner": float(config.get("intermediate_size") or 4 * width),
        "keys": width / heads * float(config.get("num_key_value_heads") or heads),
        "vocabulary": float(config.get("vocab_size") or 0),
        "tied": float(bool(config.get("tie_word_embeddings", True))),
    }


def _size(policy: Policy) -> float:
    """Parameters, embeddings included."""
    shape = _shape(policy)
    tables = shape["vocabulary"] * shape["width"]
    return float(policy.backbone.size) + (0 if shape["tied"] else tables)


def _largest(policy: Policy) -> float:
    """Parameters that are gathered at once: embeddings and output projection, and two layers."""
    shape = _shape(policy)
    tables = shape["vocabulary"] * shape["width"] * (1 if shape["tied"] else 2)
    layers = max(1.0, shape["layers"])
    return tables + 2 * max(0.0, _size(policy) - tables) / layers


def activation_bytes(policy: Policy, recompute: bool) -> float:
    """What the backward pass keeps of one token: inputs of the products, norms in float32. `recompute`: the layers' inputs, and
    one layer's own."""
    shape = _shape(policy)
    size = 2 if policy.precision == "bf16" else 4
    layer = size * (6 * shape["width"] + 2 * shape["keys"] + 3 * shape["inner"]) + 8 * shape["width"]
    return shape["layers"] * size * shape["width"] + layer if recompute else shape["layers"] * layer


def sentences(run: Run) -> list[str]:
    """The plan in numbers, a line each."""
    found, own = memory(run), run.settings
    count = run.place.count if run.place is not None else 1
    parts = {
        "weights": found.weights,
        "gradients": found.gradients,
        "AdamW": found.moments,
        "other models": found.others,
        f"activations of {own.micro_tokens} tokens": found.activations,
    }
    each = ", ".join(f"{name} {value / GB:.2g}" for name, value in parts.items() if value)
    episodes = own.tasks_per_step * own.group_size
    where = f"each of {count} ranks" if count > 1 else "the trainer"
    return [
        f"memory of {where}, estimated: {found.total / GB:.2g} GB ({each})",
        f"a step: {own.tasks_per_step} tasks x {own.group_size} attempts, at most {episodes * own.max_tokens} tokens in a turn of "
        f"{own.max_tokens}" + ("; sampling is a step ahead" if own.lag else ""),
    ]


def measured(metrics: Mapping[str, Any], seconds: float, run: Run) -> str:
    """What a step took, where its memory was estimated."""
    device = run.learner.policy.device
    there = f"{metrics['rss_mb'] / 1000:.2g} GB in this process"
    if device.type == "cuda":
        there += f", at most {torch.cuda.max_memory_allocated(device) / GB:.2g} GB of the GPU by the trainer"
    return f"measured: {seconds:.2g} s a step, {there}"
