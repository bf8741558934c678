"""The configuration of a Llama-like model, read from its `config.json`: everything the native forward pass needs to
know. What it cannot express is refused with a reason; such a model runs through transformers instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Unsupported(Exception):
    """This architecture has no native forward pass; the message says which part of it."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a decoder of the Llama family (Llama, SmolLM2, Qwen2, Qwen3, Mistral)."""

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int  # width of the gated MLP
    eps: float
    tied: bool  # the output projection is the embedding
    qkv_bias: bool
    qk_norm: bool
    windows: tuple[int, ...]  # per layer: how many tokens it sees, itself included; 0: all
    context: int  # longest sequence in tokens
    theta: float
    scaling: Mapping[str, Any]  # rope parameters; {"rope_type": "default" | "linear" | "llama3", ...}

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Of a `config.json`. Raises `Unsupported` where the native forward pass would be wrong."""
        family = config.get("model_type", "?")
        if family not in ("llama", "qwen2", "qwen3", "mistral"):
            raise Unsupported(f"model type '{family}'")
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        kind = rope.get("rope_type", rope.get("type", "default"))
        rope["rope_type"] = kind
        if kind not in ("default", "linear", "llama3"):
            raise Unsupported(f"rope type '{kind}'")
        if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
            raise Unsupported("partial rotary embeddings")
        if config.get("hidden_act", "silu") != "silu":
            raise Unsupported(f"activation '{config['hidden_act']}'")
        if config.get("mlp_bias") or (family != "qwen2" and config.get("attention_bias")):
            raise Unsupported("biases on the output or MLP projections")
        if config.get("quantization_config"):
            raise Unsupported("quantised weights")
        if head_dim % 2 or heads % config.get("num_key_value_heads", heads):
            raise Unsupported("odd head sizes")
        return cls(
            family=family,
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            inner=config["intermediate_size"],
            eps=config.get("rms_norm_eps", 1e-6),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
            windows=_windows(config, family),
            context=config.get("max_position_embeddings", 2048),
            theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            scaling=rope,
        )

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads

    def frequencies(self) -> Tensor:
        """f32[head_dim / 2]: radians per position of each rotary pair (transformers' `modeling_rope_utils`)."""
        steps = torch.arange(0, self.head_dim, 2, dtype=torch.int64).float() / self.head_dim
        base = 1.0 / (self.theta**steps)
        kind = self.scaling.get("rope_type", "default")
        if kind == "linear":
            return base / float(self.scaling["factor"])
        return _llama3(base, self.scaling) if kind == "llama3" else base


def _llama3(base: Tensor, scaling: Mapping[str, Any]) -> Tensor:
    """Slow rotations are slowed further by `factor`, fast ones kept, those between interpolated (Llama 3.1)."""
    factor, old = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wavelength = 2 * math.pi / base
    smooth = (old / wavelength - low) / (high - low)
    between = (1 - smooth) * base / factor + smooth * base
    slowed = torch.where(wavelength > old / low, base / factor, base)
    middle = (wavelength <= old / low) & (wavelength >= old / high)
    return torch.where(middle, between, slowed)


def _windows(config: Mapping[str, Any], family: str) -> tuple[int, ...]:
    """Sliding windows per layer, 0 where a layer sees everything."""
    layers, window = int(config["num_hidden_layers"]), int(config.get("sliding_window") or 0)
    if family in ("qwen2", "qwen3") and not config.get("use_sliding_window", False):
        window = 0
    if not window or family == "llama" or window >= config.get("max_position_embeddings", 2048):
        return (0,) * layers
    if family == "mistral":
        return (window,) * layers
    kinds = config.get("layer_types") or [
        "sliding_attention" if i >= config.get("max_window_layers", 28) else "full_attention"
        for i in range(layers)
    ]
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
