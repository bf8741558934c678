"""Every other architecture, through transformers; and LoRA, through PEFT, for all of them. Slower than the
native pass, but right wherever `AutoModelForCausalLM` is: sequences are padded on the right, where causal
attention does not see it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.batch import Batch
from etude.errors import UserError
from etude.models.adapter import merge
from etude.models.backbone import assemble, predicting
from etude.models.config import ModelConfig, Unsupported
from etude.models.directory import finite, read_tensors
from etude.models.head import chosen_log_probabilities
from etude.models.outputs import Outputs
from etude.models.weights import Weights
from etude.seeds import key

PIECE = 2048  # padded tokens per forward call


class TransformersBackbone:
    """Trains float32 masters of the module's trainable parameters (with LoRA: the adapters only)."""

    def __init__(
        self, module: Any, precision: str, heads: Mapping[str, Tensor], lora: bool, frozen: bool
    ) -> None:
        self.module, self.precision, self.lora = module.eval(), precision, lora  # eval: no dropout
        self.config = module.config
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
        self._native: Weights | None = None
        self._stale = True

    @classmethod
    def load(
        cls,
        directory: Path,
        precision: str,
        lora_rank: int,
        heads: Mapping[str, int],
        device: str,
        adapter: Path | None = None,
    ) -> TransformersBackbone:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        module = pretrained(directory, dtype, adapter).to(device)
        if getattr(module, "_is_stateful", False) and not _decodes(module):
            kind = module.config.model_type
            raise UserError(
                f"{directory} is a state-space model ('{kind}'), whose state cannot be sampled from in batches here; "
                "choose a model that decodes with a key/value cache (Llama, Qwen, Gemma, Phi ...)"
            )
        if lora_rank:
            module = _adapted(module, lora_rank)
        width = module.config.get_text_config().hidden_size
        held = {}
        for name, k in heads.items():
            held[f"{name}.weight"] = torch.zeros(k, width, device=device)
            held[f"{name}.bias"] = torch.zeros(k, device=device)
        backbone = cls(module, precision, held, bool(lora_rank), frozen=False)
        if (directory / "heads.safetensors").exists():
            known = {
                n: t for n, t in read_tensors(directory) if n.startswith("heads.") and n in backbone.masters
            }
            backbone._copy(known)
        return backbone

    def outputs(self, batch: Batch, needs: frozenset[str], inputs: Tensor | None) -> tuple[Outputs, int]:
        tokens = batch.tokens if inputs is None else inputs
        wanted = batch.needed.nonzero()[:, 0]
        source = predicting(wanted)
        states, found = [], []
        keep = "hidden" in needs or bool(self.heads)
        for numbers in self._pieces(batch):
            first, last = int(numbers[0]), int(numbers[-1])
            inside = (batch.sequence >= first) & (batch.sequence <= last)
            row, column = batch.sequence[inside] - first, batch.position[inside]
            padded = torch.zeros(
                last - first + 1, int(column.max()) + 1, dtype=torch.int64, device=tokens.device
            )
            seen = torch.zeros_like(padded)
            padded[row, column], seen[row, column] = tokens[inside], 1
            out = self.module(padded, attention_mask=seen, use_cache=False, output_hidden_states=keep)
            asked = source[inside[source]]
            at = batch.sequence[asked] - first, batch.position[asked]
            found.append(out.logits[at].float())
            if keep:
                states.append(out.hidden_states[-1][at].float())
        width = self.config.get_text_config().hidden_size
        empty = torch.zeros(0, width, device=tokens.device)
        state = torch.cat(states) if states else empty
        vocabulary = self.config.get_text_config().vocab_size
        logits = torch.cat(found) if found else torch.zeros(0, vocabulary, device=tokens.device)
        logp, entropy = chosen_log_probabilities(
            logits, batch.tokens[wanted], batch.sampling, "entropy" in needs
        )
        names = {n.rsplit(".", 1)[0] for n in self.heads}
        heads = {
            n: F.linear(state, self.heads[f"{n}.weight"], self.heads[f"{n}.bias"]) for n in sorted(names)
        }
        return assemble(batch, wanted, logp, entropy, heads, state, self.project, needs), len(batch)

    def _pieces(self, batch: Batch) -> list[list[int]]:
        """Neighbouring sequences whose padded rectangle holds at most `PIECE` tokens."""
        lengths = torch.bincount(batch.sequence).tolist() if len(batch) else []
        out: list[list[int]] = []
        longest = 0
        for number, length in enumerate(lengths):
            longest = max(longest, length)
            if out and (len(out[-1]) + 1) * longest <= PIECE:
                out[-1].append(number)
            else:
                out.append([number])
                longest = length
        return out

    def project(self, hidden: Tensor) -> Tensor:
        """Logits by the output projection alone (without what some architectures do to them after it)."""
        head = self.module.get_output_embeddings()
        logits: Tensor = head(hidden.to(head.weight.dtype))
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
        """What is trained, by its module's names: with LoRA the adapters, else everything."""
        return {name: master.detach() for name, master in self.masters.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if missing := set(self.masters) - set(state):
            raise UserError(
                f"the checkpoint lacks {len(missing)} tensors of the model, among them {min(missing)}"
            )
        self._copy(state)

    @torch.no_grad()
    def _copy(self, state: Mapping[str, Tensor]) -> None:
        for name in self.masters.keys() & state.keys():
            self.masters[name].copy_(state[name])
        self.publish()

    def clone(self, frozen: bool) -> TransformersBackbone:
        heads = {n: t.detach().clone() for n, t in self.heads.items()}
        module = copy.deepcopy(self.module)
        if frozen:
            module.requires_grad_(False)
        other = TransformersBackbone(module, self.precision, heads, self.lora, frozen)
        if not frozen:
            other._copy(self.state_dict())
        return other

    def native(self) -> Weights | None:
        """A native copy of the merged weights, made on first use, for architectures that have one."""
        if self._native is None:
            try:
                config = ModelConfig.from_transformers(self.config.to_dict())
            except Unsupported:
                return None
            device = str(next(self.module.parameters()).device)
            self._native = Weights(config, {}, self.precision, device, frozen=True)
            self._stale = True
        if self._stale:
            self._native.load(self.export())
            self._stale = False
        return self._native

    @torch.no_grad()
    def export(self) -> Iterable[tuple[str, Tensor]]:
        yield from ((f"heads.{n}", t.detach()) for n, t in self.heads.items())
        module = self.module
        if not self.lora:
            masters = {n: m.detach() for n, m in self.masters.items()}
            yield from _published(module, {n: masters.get(n, t) for n, t in _distinct(module)})
            return
        base = module.get_base_model()
        layers = {n: m for n, m in base.named_modules() if hasattr(m, "get_delta_weight")}
        if any(type(m).__name__ == "ParamWrapper" for m in layers.values()):  # stacked experts
            merged = copy.deepcopy(module).float().merge_and_unload()
            yield from _published(base, dict(_distinct(merged)))
            return
        found = {}
        for name, value in _distinct(base):
            if "lora_" in name:
                continue
            owner = name.removesuffix(".base_layer.weight")
            if owner in layers and owner != name:
                value = value.float() + layers[owner].get_delta_weight("default").float()
            found[name.replace(".base_layer.", ".")] = value
        yield from _published(base, found)


def _distinct(module: Any) -> Iterable[tuple[str, Tensor]]:
    """The state of a module, tied tensors once: a second name would hold the rounded working copy."""
    own = dict(module.named_parameters())  # each parameter under its first name
    tied = {name for name, _ in module.named_parameters(remove_duplicate=False)} - own.keys()
    return [(name, value.detach()) for name, value in module.state_dict().items() if name not in tied]


def _published(module: Any, state: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """A state in float32, by the names that checkpoints of this architecture have where the module's are others."""
    held = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return held.items()
    renamed: dict[str, Tensor] = revert_weight_conversion(module, held)
    return renamed.items()


def pretrained(directory: Path, dtype: torch.dtype, adapter: Path | None = None) -> Any:
    """A model as transformers loads it, with the adapter merged where there is one. Raises `UserError` where weights are
    absent (transformers would draw them at random) or not finite."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32 if adapter else dtype, output_loading_info=True
        )
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise UserError(f"transformers cannot load a language model from {directory}: {cause}") from error
    module, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"{directory} lacks {len(missing)} tensors of the model, among them {missing[0]}")
    if adapter is not None:
        merged = merge(module, adapter)
        if dtype == torch.float32:
            module = merged
        else:  # made anew: constants keep the precision that transformers gives them
            module = AutoModelForCausalLM.from_config(merged.config, dtype=dtype).eval()
            module.load_state_dict(merged.state_dict())
    for name, value in module.named_parameters():
        finite(name, value, adapter or directory)
    return module


@torch.no_grad()
def _decodes(module: Any) -> bool:
    """Whether rows of different lengths, decoded together from a cache out of which rows are cut, are what they are
    alone: what the sampler relies on."""
    device = next(module.parameters()).device
    tokens = torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 5]], device=device)
    seen = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]], device=device)
    positions, more = (seen.cumsum(1) - 1).clamp(min=0), torch.tensor([[2]], device=device)
    try:
        out = module(tokens, attention_mask=seen, position_ids=positions, use_cache=True)
        cache = out.past_key_values
        cache.batch_select_indices(torch.tensor([0], device=device))
        mask = torch.tensor([[0, 0, 0, 1, 1, 1]], device=device)
        out = module(more, attention_mask=mask, position_ids=more, past_key_values=cache, use_cache=True)
        alone = module(torch.tensor([[3, 1, 2]], device=device), use_cache=False)
    except Exception:
        return False
    got, wanted = out.logits[0, -1].float(), alone.logits[0, -1].float()
    return bool((got - wanted).abs().max() <= 0.02 * wanted.abs().max())


def _adapted(module: Any, rank: int) -> Any:
    """Low-rank adapters (arXiv 2106.09685) on every linear layer but the output, in float32."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("LoRA needs peft; run: pip install 'etude[lora]'") from error
    settings = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key("lora", rank))
        return get_peft_model(module, settings)  # casts adapters to float32


def _active(module: Any) -> int:
    """Parameters a token is multiplied with: all but the input embedding, and the output projection."""
    total = sum(p.numel() for p in module.parameters())
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    untied = head is not None and head.weight is not embedding.weight
    return int(total) - (embedding.weight.numel() if untied else 0)
