"""One weight store. The optimiser sees a flat float32 master; forward passes read a bfloat16 working copy of
it (or the master itself in the float32 reference mode), in which norms and auxiliary heads stay float32. Queries, keys and values are one matrix, gate and up another; saving splits them by HF names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from etude.errors import UserError
from etude.models import kernels
from etude.models.activation_cache import ActivationCache
from etude.models.config import ModelConfig
from etude.models.hooks import Hooks
from etude.seeds import torch_generator

PACKED_FOR = 64  # rows; a layout made for 64 serves any number
ALIGN = 32  # elements; every tensor starts on a cache line in both precisions


class Entry(NamedTuple):
    """One tensor of the store: its name, shape, and the HF tensors stacked in it along dimension 0."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]  # (HF name, rows)
    matrix: bool  # has a working copy in lower precision


class Layer(NamedTuple):
    """The leaves of one block that forward passes read (and autograd writes gradients to)."""

    norm1: Tensor  # f32[D]
    qkv: Tensor  # [(H + 2K) * hd, D]
    qkv_bias: Tensor | None
    q_norm: Tensor | None  # f32[hd]
    k_norm: Tensor | None
    o: Tensor  # [D, H * hd]
    norm2: Tensor  # f32[D]
    gate_up: Tensor  # [2 * I, D]
    down: Tensor  # [D, I]


def entries(config: ModelConfig, heads: Mapping[str, int]) -> list[Entry]:
    """Every tensor of a model, matrices first so that they lie together."""
    d, q, kv = config.width, config.heads * config.head_dim, config.kv_heads * config.head_dim
    out = [Entry("embed", (config.vocabulary, d), (("model.embed_tokens.weight", config.vocabulary),), True)]
    if not config.tied:
        out.append(Entry("head", (config.vocabulary, d), (("lm_head.weight", config.vocabulary),), True))
    small = [Entry("norm", (d,), (("model.norm.weight", d),), False)]
    for i in range(config.layers):
        hf, me = f"model.layers.{i}.", f"layers.{i}."
        att, mlp = hf + "self_attn.", hf + "mlp."
        rows = (("q_proj", q), ("k_proj", kv), ("v_proj", kv))
        inner = config.inner
        out += [
            Entry(me + "qkv", (q + 2 * kv, d), tuple((f"{att}{n}.weight", r) for n, r in rows), True),
            Entry(me + "o", (d, q), ((att + "o_proj.weight", d),), True),
            Entry(
                me + "gate_up",
                (2 * inner, d),
                ((mlp + "gate_proj.weight", inner), (mlp + "up_proj.weight", inner)),
                True,
            ),
            Entry(me + "down", (d, inner), ((mlp + "down_proj.weight", d),), True),
        ]
        if config.qkv_bias:
            parts = tuple((f"{att}{n}.bias", r) for n, r in rows)
            out.append(Entry(me + "qkv_bias", (q + 2 * kv,), parts, True))
        small += [
            Entry(me + "norm1", (d,), ((hf + "input_layernorm.weight", d),), False),
            Entry(me + "norm2", (d,), ((hf + "post_attention_layernorm.weight", d),), False),
        ]
        if config.qk_norm:
            hd = config.head_dim
            small += [
                Entry(f"{me}{n}", (hd,), ((f"{att}{n}.weight", hd),), False) for n in ("q_norm", "k_norm")
            ]
    for name, k in sorted(heads.items()):
        small.append(Entry(f"heads.{name}.weight", (k, d), ((f"heads.{name}.weight", k),), False))
        small.append(Entry(f"heads.{name}.bias", (k,), ((f"heads.{name}.bias", k),), False))
    return out + small


class Weights:
    """See the module's docstring. `frozen` stores keep the working copy only and never train."""

    def __init__(
        self,
        config: ModelConfig,
        heads: Mapping[str, int],
        precision: str,
        device: str = "cpu",
        frozen: bool = False,
    ) -> None:
        self.config, self.head_sizes, self.precision, self.device = config, dict(heads), precision, device
        self.frozen = frozen
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.entries = entries(config, heads)
        self.offsets: dict[str, int] = {}
        size = 0
        for entry in self.entries:
            if not entry.matrix and not hasattr(self, "matrices"):
                self.matrices = size  # elements of the flat store that have a working copy
            self.offsets[entry.name] = size
            size += -(-_numel(entry.shape) // ALIGN) * ALIGN
        self.size = size
        if precision == "fp32":
            self.flat = torch.zeros(size, dtype=torch.float32, device=device)
            self.low, self.small = self.flat[: self.matrices], self.flat[self.matrices :]
        else:
            self.low = torch.zeros(self.matrices, dtype=torch.bfloat16, device=device)
            self.small = torch.zeros(size - self.matrices, dtype=torch.float32, device=device)
            self.flat = torch.zeros(0 if frozen else size, dtype=torch.float32, device=device)
        self.grad: Tensor | None = None
        self.leaves: dict[str, Tensor] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        for entry in self.entries:
            start, n = self.offsets[entry.name], _numel(entry.shape)
            begin = start if entry.matrix else start - self.matrices
            leaf = (self.low if entry.matrix else self.small)[begin : begin + n].view(entry.shape).detach()
            self.leaves[entry.name] = leaf.requires_grad_(not frozen)
            if not frozen:
                self.parameters[entry.name] = nn.Parameter(self.flat[start : start + n].view(entry.shape))
        self.layers = [self._layer(i) for i in range(config.layers)]
        self.norm, self.embed = self.leaves["norm"], self.leaves["embed"]
        self.head = self.leaves.get("head", self.embed)
        self._rope: tuple[Tensor, Tensor] | None = None
        self._packed: tuple[list[Layer], Tensor] | None = None
        self.activations: ActivationCache | None = None
        self.recording = False
        self.hooks: Hooks | None = None
        self.generation = 0  # of the weights; what was computed in another one is out of date

    def _layer(self, i: int) -> Layer:
        names = ("norm1", "qkv", "qkv_bias", "q_norm", "k_norm", "o", "norm2", "gate_up", "down")
        return Layer(*(self.leaves.get(f"layers.{i}.{name}") for name in names))  # type: ignore[arg-type]

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, f32[R, hd / 2], of int64[R] positions; from a table that grows when needed."""
        top = int(positions.max()) + 1 if len(positions) else 1
        if self._rope is None or len(self._rope[0]) < top:
            size = max(256, 1 << (top - 1).bit_length())
            angle = torch.outer(torch.arange(size).float(), self.config.frequencies()).to(self.device)
            self._rope = (angle.cos(), angle.sin())
        cos, sin = self._rope
        return cos[positions], sin[positions]

    def attach(self, hooks: Hooks | None) -> None:
        """Computes under these hooks from here on. What was computed under others is out of date."""
        self.hooks, self.activations, self.recording = hooks, None, False
        self.generation += 1

    @torch.no_grad()
    def packed(self) -> tuple[list[Layer], Tensor]:
        """The layers and the output matrix of the working copy as oneDNN wants them, for decoding: products of few
        rows run up to twice as fast, with the same bits. Made anew after every `refresh`. Our own products (`kernels.tiles`)
        read them as they are."""
        if kernels.tiles(self.head):
            return self.layers, self.head
        if self._packed is None:
            head, *rest = [_pack(m) for m in (self.head, *(m for x in self.layers for m in _matrices(x)))]
            quads = [rest[i : i + 4] for i in range(0, len(rest), 4)]
            layers = [
                x._replace(qkv=a, o=b, gate_up=c, down=d)
                for x, (a, b, c, d) in zip(self.layers, quads, strict=True)
            ]
            self._packed = layers, head
        return self._packed

    @torch.no_grad()
    def initialise(self, seed: int, scale: float = 1.0) -> None:
        """Random weights for a model from nothing: normal, `scale` / sqrt(fan-in); norms 1; heads 0."""
        for entry in self.entries:
            target = self.parameters[entry.name]
            if len(entry.shape) == 2 and entry.matrix:
                generator = torch_generator("weights", seed, entry.name)
                deviation = scale / entry.shape[1] ** 0.5
                target.copy_(torch.randn(entry.shape, generator=generator) * deviation)
            elif entry.name.endswith(("norm", "norm1", "norm2")):
                target.fill_(1.0)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Rounds the master into the working copy (nothing to do where they are the same tensor)."""
        self._packed = self.activations = None
        self.generation += 1
        if self.precision == "bf16" and not self.frozen:
            self.low.copy_(self.flat[: self.matrices])
            self.small.copy_(self.flat[self.matrices :])

    @torch.no_grad()
    def accumulate(self) -> None:
        """Adds the gradients of the leaves to the float32 gradients of the parameters, and clears the former."""
        for name, leaf in self.leaves.items():
            if leaf.grad is None:
                continue
            parameter = self.parameters[name]
            if parameter.grad is None:
                if self.grad is None:
                    self.grad = torch.zeros_like(self.flat)
                start = self.offsets[name]
                parameter.grad = self.grad[start : start + leaf.numel()].view(leaf.shape)
                parameter.grad.copy_(leaf.grad)
            else:
                parameter.grad.add_(leaf.grad)
            leaf.grad = None

    def discard(self) -> None:
        """Forgets what an interrupted backward pass has left on the leaves."""
        for leaf in self.leaves.values():
            leaf.grad = None

    def _source(self, entry: Entry) -> Tensor:
        """The most precise tensor held of an entry."""
        return self.leaves[entry.name].detach() if self.frozen else self.parameters[entry.name].detach()

    def state_dict(self) -> dict[str, Tensor]:
        """Views of the master by HF names (float32; of the working copy where the store is frozen)."""
        out: dict[str, Tensor] = {}
        for entry in self.entries:
            rows = self._source(entry).split([n for _, n in entry.parts])
            out |= {name: row for (name, _), row in zip(entry.parts, rows, strict=True)}
        return out

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, Tensor]], where: str = "the checkpoint") -> None:
        """Copies tensors by HF names into the master and refreshes the working copy. Auxiliary heads that are
        not among them keep their values; any other absence, or a wrong shape, raises `UserError`."""
        mine = self.state_dict()
        missing = {n for n in mine if not n.startswith("heads.")}
        for name, value in tensors:
            if name not in mine:
                continue
            if mine[name].shape != value.shape:
                found, wanted = tuple(value.shape), tuple(mine[name].shape)
                raise UserError(f"{where} holds {name} of shape {found} where the model has {wanted}")
            mine[name].copy_(value)
            missing.discard(name)
        if missing:
            raise UserError(f"{where} lacks {len(missing)} tensors of the model, among them {min(missing)}")
        self.refresh()

    @torch.no_grad()
    def clone(self, frozen: bool) -> Weights:
        """An independent copy; a frozen one holds only what forward passes read."""
        other = Weights(self.config, self.head_sizes, self.precision, self.device, frozen)
        if frozen:
            for name, leaf in other.leaves.items():
                leaf.copy_(self.leaves[name])
        else:
            other.load(self.state_dict().items())
        return other


def _matrices(layer: Layer) -> tuple[Tensor, ...]:
    return layer.qkv, layer.o, layer.gate_up, layer.down


def _pack(matrix: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.detach(), PACKED_FOR)
    return out


def _numel(shape: tuple[int, ...]) -> int:
    out = 1
    for n in shape:
        out *= n
    return out
