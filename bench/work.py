"""How much arithmetic a step is worth, and how much this machine can do: what shares of peak are made of.

Useful work counts 2 FLOPs per parameter for a token forwarded and 6 for a token trained, without attention. A prompt
counts once per group, however often a contestant computes it; its tokens need no output projection, and the last
token of a completion is never fed:

    sampling = 2 (blocks (prompt + completion - samples) + head completion)
    training = 6 (blocks (prompt + completion - samples) + head completion)      of the groups that are trained on

Where the forward pass of training was replayed from sampling it was not computed, and counts 2 less per parameter of the
blocks: `share_of_peak` counts what was computed, `share_if_recomputed` the two lines above as they stand.

The peak is the best rate of bfloat16 matrix products in the model's own shapes (every layer and the output projection,
2048 rows), measured between the contestants' turns.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from contestants import Contestant, ours, serve
from torch import Tensor

from etude.models.config import ModelConfig

ROWS = 2048
FORMULA = "2 FLOPs/parameter/token sampled or prefilled, 6/token trained, a prompt once a group; no attention"


def read_shape(directory: str | Path) -> ModelConfig:
    return ModelConfig.from_transformers(json.loads((Path(directory) / "config.json").read_text()))


def products(shape: ModelConfig) -> list[tuple[int, int]]:
    """(outputs, inputs) of one layer's matrices."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    d, inner = shape.width, shape.inner
    return [(q + 2 * kv, d), (d, q), (2 * inner, d), (d, inner)]


def blocks(shape: ModelConfig) -> int:
    return shape.layers * sum(a * b for a, b in products(shape))


def forward_flops(shape: ModelConfig, prompt: float, completion: float, samples: float) -> float:
    """Of `prompt` tokens (each group's once) and `completion` tokens in all, in `samples` completions."""
    rows = prompt + completion - samples
    return 2 * (blocks(shape) * rows + shape.vocabulary * shape.width * completion)


def training_flops(
    shape: ModelConfig, prompt: float, completion: float, samples: float, replayed: float = 0.0
) -> float:
    """`replayed`: the share of forward passes through the blocks that sampling had computed already."""
    spared = replayed * 2 * blocks(shape) * (prompt + completion - samples)
    return 3 * forward_flops(shape, prompt, completion, samples) - spared


class Peak:
    """Matrix products take their turns like everybody else; `gflops` is the best rate so far."""

    def __init__(self, model: str | Path) -> None:
        self.child: Contestant = ours("work.py", {"model": str(model)}, "peak")
        self.gflops = 0.0
        self.all: list[float] = []

    def turn(self) -> None:
        found = self.child.turn()["gflops"]
        self.all.append(found)
        self.gflops = max(self.gflops, found)
        print(f"  matrix products: {found:.0f} GFLOP/s", flush=True)

    def end(self) -> dict[str, Any]:
        self.child.end()
        return {"gflops": self.gflops, "all_gflops": self.all, "rows": ROWS, "formula": FORMULA}


def main() -> None:
    shape = read_shape(json.loads(sys.argv[1])["model"])
    layers = [[torch.randn(a, b).bfloat16() for a, b in products(shape)] for _ in range(shape.layers)]
    head = torch.randn(shape.vocabulary, shape.width).bfloat16()
    inputs = {n: torch.randn(ROWS, n).bfloat16() for n in {b for _, b in products(shape)} | {shape.width}}
    flops = 2 * ROWS * (blocks(shape) + head.numel())

    def once() -> float:
        begin = time.perf_counter()
        for matrix in (m for layer in layers for m in layer):
            torch.nn.functional.linear(inputs[matrix.shape[1]], matrix)
        _head(inputs[shape.width], head)
        return flops / (time.perf_counter() - begin) / 1e9

    once()  # the first pass touches memory for the first time
    serve(lambda: {"gflops": max(once() for _ in range(3))})


def _head(x: Tensor, head: Tensor, rows: int = 256) -> None:
    """The widest product, in pieces: its whole result would be written to memory that was never touched."""
    for part in x.split(rows):
        torch.nn.functional.linear(part, head)


if __name__ == "__main__":
    main()
