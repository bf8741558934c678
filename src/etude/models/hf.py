"""Every other architecture and every other device, through transformers; and LoRA, through PEFT, for all of them.
Sequences are packed into one row (`models.packed`) where the architecture allows it; where it does not, they are padded on
the right, where causal attention does not see it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.batch import Batch
from etude.errors import UserError
from etude.models import packed, padded
from etude.models.backbone import assemble, predicting
from etude.models.config import ModelConfig, Unsupported
from etude.models.directory import read_tensors
from etude.models.head import chosen_log_probabilities
from etude.models.hf_export import merged, whole
from etude.models.hooks import Hook, Hooks, blocks_of
from etude.models.outputs import Outputs
from etude.models.pretrained import adapted, decodes, pretrained
from etude.models.projection import Projection
from etude.models.weights import Weights


class TransformersBackbone:
    """Trains float32 masters of the module's trainable parameters (with LoRA: the adapters only)."""

    def __init__(
        self,
        module: Any,
        precision: str,
        heads: Mapping[str, Tensor],
        lora: bool,
        frozen: bool,
        obstacle: str = "",
        flash: bool = False,
    ) -> None:
        self.module, self.precision, self.lora = module.eval(), precision, lora  # eval: no dropout
        self.obstacle, self.flash = obstacle, flash  # why sequences are not packed, "" where they are
        self.config = module.config
        self.projection = Projection(module)
        self.size = _active(module)
        self.context = int(getattr(self.config, "max_position_embeddings", None) or 1 << 20)
        self.heads = {name: t.detach().requires_grad_(not frozen) for name, t in heads.items()}
        self.leaves: dict[str, Tensor] = {}
        self.masters: dict[str, nn.Parameter] = {}
        if not frozen:
            self.leaves = {n: p for n, p in module.named_parameters() if p.requires_grad}
            self.leaves |= {f"heads.{n}": t for n, t in self.heads.items()}
            # where a leaf is float32 already, float() is the same memory: master and working copy are one
            self.masters = {n: nn.Parameter(t.detach().float()) for n, t in self.leaves.items()}
        self._given = not frozen  # whether its weights are other than those that it was loaded with
        self._native: Weights | None = None
        self._stale = True
        self.hooks: Hooks | None = None

    @classmethod
    def load(
        cls,
        directory: Path,
        precision: str,
        lora_rank: int,
        heads: Mapping[str, int],
        device: str,
        adapter: Path | None = None,
        recompute: bool = False,
    ) -> TransformersBackbone:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        module = pretrained(directory, dtype, adapter).to(device)
        if getattr(module, "_is_stateful", False) and not decodes(module):
            kind = module.config.model_type
            raise UserError(
                f"{directory} is a state-space model ('{kind}'), whose state cannot be sampled from in batches here; "
                "choose a model that decodes with a key/value cache (Llama, Qwen, Gemma, Phi ...)"
            )
        obstacle, flash = packed.obstacle(module)
        if recompute and not packed.recompute(module):
            kind = module.config.model_type
            raise UserError(f"the layers of '{kind}' cannot be computed again; set run.recompute=false")
        if lora_rank:
            module = adapted(module, lora_rank)
        width = module.config.get_text_config().hidden_size
        held = {}
        for name, k in heads.items():
            held[f"{name}.weight"] = torch.zeros(k, width, device=device)
            held[f"{name}.bias"] = torch.zeros(k, device=device)
        backbone = cls(module, precision, held, bool(lora_rank), False, obstacle, flash)
        if (directory / "heads.safetensors").exists():
            known = {
                n: t for n, t in read_tensors(directory) if n.startswith("heads.") and n in backbone.masters
            }
            backbone._copy(known)
        return backbone

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self.module.parameters()).device
        return found

    @property
    def engine(self) -> str:
        if self.obstacle:
            return f"transformers, sequences padded ({self.obstacle})"
        kernel = "flash attention" if self.flash else "scaled-dot-product attention"
        return f"transformers, sequences packed, {kernel}"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Around every use of the module: its weights are this backbone's, and so are the hooks on it."""
        with self.hooks.upon(self.module) if self.hooks else nullcontext():
            yield

    def attach(self, hooks: Sequence[Hook]) -> None:
        self.hooks = Hooks(tuple(hooks), len(blocks_of(self.module))) if hooks else None
        if self._native is not None:
            self._native.attach(self.hooks)

    def outputs(self, batch: Batch, needs: frozenset[str], inputs: Tensor | None) -> tuple[Outputs, int]:
        tokens = batch.tokens if inputs is None else inputs
        wanted = batch.needed.nonzero()[:, 0]
        with self.active():
            logp, spread, heads, state = self.forward(batch, tokens, wanted, needs)
        return assemble(batch, wanted, logp, spread, heads, state, self.project, needs), len(batch)

    def forward(
        self, batch: Batch, tokens: Tensor, wanted: Tensor, needs: frozenset[str]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """f32[M] log-probabilities of the int64[M] `wanted` tokens, entropies, outputs of the heads, and hidden states."""
        source, entropy = predicting(wanted), "entropy" in needs
        if self.obstacle:
            keep = "hidden" in needs or bool(self.heads)
            state, logits = padded.forwarded(self.module, batch, tokens, source, keep, self.hooks)
            logp, spread = chosen_log_probabilities(logits, batch.tokens[wanted], batch.sampling, entropy)
        else:
            lengths = torch.bincount(batch.sequence).tolist() if len(batch) else []
            where = packed.packing(lengths, tokens.device, self.flash)
            number = torch.arange(len(batch), device=tokens.device)[None]
            with self.hooks.computing(number) if self.hooks else nullcontext():
                states = (
                    packed.trunk(self.module, tokens, batch.position, where)
                    if len(batch)
                    else padded.nothing(self.module, tokens.device)
                )
            state = self.tied(states.index_select(0, source).float())
            logp, spread = self.projection.read(state, batch.tokens[wanted], batch.sampling, entropy)
        return logp, spread, self.read_heads(state), state

    def tied(self, state: Tensor) -> Tensor:
        """The hidden states. Ranks that share the weights make all of these part of the gradient here."""
        return state

    def read_heads(self, state: Tensor) -> dict[str, Tensor]:
        names = sorted({n.rsplit(".", 1)[0] for n in self.heads})
        return {n: F.linear(state, self.heads[f"{n}.weight"], self.heads[f"{n}.bias"]) for n in names}

    def project(self, hidden: Tensor) -> Tensor:
        """Logits by the output projection alone (without what some architectures do to them after it)."""
        last = self.module.get_output_embeddings()
        with self.active():
            logits: Tensor = last(hidden.to(self.device, last.weight.dtype))
        return logits.float()

    @torch.no_grad()
    def exact_logits(self, tokens: Tensor, buffers: Mapping[str, Tensor]) -> Tensor:
        module = copy.deepcopy(self.module).float().cpu()
        own = dict(module.named_parameters())
        for name, master in self.masters.items():
            if name in own:
                own[name].copy_(master)
        base = module.get_base_model() if self.lora else module
        for name, buffer in base.named_buffers():
            if name in buffers and buffer.shape == buffers[name].shape:
                buffer.copy_(buffers[name])
        logits: Tensor = module(tokens[None]).logits[0]
        return logits.float()

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.masters.items())

    @torch.no_grad()
    def accumulate(self) -> None:
        for name, leaf in self.leaves.items():
            if leaf.grad is None:
                continue
            master = self.masters[name]
            master.grad = leaf.grad.float() if master.grad is None else master.grad.add_(leaf.grad)
            leaf.grad = None

    def discard(self) -> None:
        for leaf in self.leaves.values():
            leaf.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        for name, leaf in self.leaves.items():
            if leaf.data_ptr() != self.masters[name].data_ptr():
                leaf.copy_(self.masters[name])
        self._stale = True
        if self._native is not None:
            self.native()

    def state_dict(self) -> dict[str, Tensor]:
        """What is trained, by its module's names: with LoRA the adapters, else everything. Of a frozen model what it was
        given, if anything."""
        return {name: tensor.detach() for name, tensor in self._stated().items()} if self._given else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if missing := set(self.masters) - set(state):
            raise UserError(
                f"the checkpoint lacks {len(missing)} tensors of the model, among them {min(missing)}"
            )
        self._given = self._given or bool(state)
        self._copy(state)

    def _stated(self) -> Mapping[str, Tensor]:
        """What a state is made of: the masters, or the tensors of a frozen model."""
        if self.masters:
            return self.masters
        return {**dict(self.module.named_parameters()), **{f"heads.{n}": t for n, t in self.heads.items()}}

    @torch.no_grad()
    def _copy(self, state: Mapping[str, Tensor]) -> None:
        own = self._stated()
        for name in own.keys() & state.keys():
            self._write(own[name], state[name])
        self.publish()

    def _write(self, tensor: Tensor, value: Tensor) -> None:
        tensor.copy_(value)

    def clone(self, frozen: bool) -> TransformersBackbone:
        heads = {n: t.detach().clone() for n, t in self.heads.items()}
        if frozen and self.lora:
            return SharedBackbone(self, heads)
        module = copy.deepcopy(self.module)
        if frozen:
            module.requires_grad_(False)
        other = TransformersBackbone(
            module, self.precision, heads, self.lora, frozen, self.obstacle, self.flash
        )
        if not frozen:
            other._copy(self.state_dict())
        return other

    def native(self) -> Weights | None:
        """A native copy of the merged weights, made on first use, for architectures that have one, on the CPU."""
        if self.device.type != "cpu":
            return None
        if self._native is None:
            try:
                config = ModelConfig.from_transformers(self.config.to_dict())
            except Unsupported:
                return None
            self._native = Weights(config, {}, self.precision, frozen=True)
            self._native.attach(self.hooks)
            self._stale = True
        if self._stale:
            self._native.load(self.export())
            self._stale = False
        return self._native

    @torch.no_grad()
    def export(self) -> Iterable[tuple[str, Tensor]]:
        yield from ((f"heads.{n}", t.detach()) for n, t in self.heads.items())
        masters = {n: m.detach() for n, m in self.masters.items()}
        yield from merged(self.module) if self.lora else whole(self.module, masters)


class SharedBackbone(TransformersBackbone):
    """What another backbone with LoRA was, for good: the same module, with the adapters that it had then. A reference
    that costs no second copy of the weights."""

    def __init__(self, owner: TransformersBackbone, heads: Mapping[str, Tensor]) -> None:
        super().__init__(
            owner.module,
            owner.precision,
            heads,
            True,
            frozen=True,
            obstacle=owner.obstacle,
            flash=owner.flash,
        )
        self._used = False
        self._mine = {n: p.detach().clone() for n, p in owner.module.named_parameters() if "lora_" in n}

    def _stated(self) -> Mapping[str, Tensor]:
        return {**self._mine, **{f"heads.{n}": t for n, t in self.heads.items()}}

    @contextmanager
    def active(self) -> Iterator[None]:
        if self._used:
            yield
            return
        own = dict(self.module.named_parameters())
        theirs = {n: own[n].data for n in self._mine}
        self._used = True
        try:
            for name, value in self._mine.items():
                own[name].data = value  # not copied into: a backward pass under way reads the other one
            with super().active():
                yield
        finally:
            for name, value in theirs.items():
                own[name].data = value
            self._used = False

    def exact_logits(self, tokens: Tensor, buffers: Mapping[str, Tensor]) -> Tensor:
        with self.active():
            return super().exact_logits(tokens, buffers)

    def export(self) -> Iterable[tuple[str, Tensor]]:
        with self.active():
            return list(super().export())

    def clone(self, frozen: bool) -> TransformersBackbone:
        with self.active():
            return super().clone(frozen)


def _active(module: Any) -> int:
    """Parameters a token is multiplied with: all but the input embedding, and the output projection."""
    total = sum(p.numel() for p in module.parameters())
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    untied = head is not None and head.weight is not embedding.weight
    return int(total) - (embedding.weight.numel() if untied else 0)
