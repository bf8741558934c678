"""`Policy`: a language model with its tokenizer, as the rest of etude sees it.

policy = Policy.load("smollm2")
out = policy.outputs(batch)              # differentiable
loss(out).backward(); policy.grad_accumulate()
optimiser.step(); policy.publish()       # the sampler reads the new weights from here on
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from etude.batch import Batch
from etude.models.activation_cache import ActivationCache
from etude.models.attention import native
from etude.models.backbone import Backbone
from etude.models.device import chosen, named
from etude.models.load import load
from etude.models.meter import Meter
from etude.models.outputs import Outputs
from etude.models.save import save
from etude.printable import say
from etude.text.chat_template import Renderer
from etude.text.tokenizer import Tokenizer

NOTHING: frozenset[str] = frozenset()
_told: set[str] = set()  # models whose text format was named in this process


class Policy:
    """Weights, tokenizer, renderer, version and meter. `version` counts publications."""

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: Tokenizer,
        config: Mapping[str, Any],
        name: str = "",
        renderer: Renderer | None = None,
    ) -> None:
        self.backbone, self.tokenizer, self.config, self.name = backbone, tokenizer, config, name
        self.renderer = renderer or Renderer(tokenizer)
        self.version = 0
        self.left: dict[str, Any] = {}  # by credit, for `Objective.under`; never saved, never cloned
        self.meter = Meter(backbone.size)

    @classmethod
    def load(
        cls,
        name: str,
        precision: str = "bf16",
        lora_rank: int = 0,
        heads: Mapping[str, int] | None = None,
        device: str = "cpu",
        backbone: str = "auto",
        recompute: bool = False,
    ) -> Policy:
        """`name`: "smollm2" (comes with etude), a model directory, or a name on the Hugging Face hub (nothing
        else is ever downloaded). `precision`: "bf16" or "fp32". `lora_rank` above 0 trains adapters instead of
        the weights. `heads`: auxiliary outputs {name: K} on the last hidden state, zero at first. `device`: "auto",
        "cpu", "cuda", "mps". `backbone`: "native", "transformers" or "auto" (native where the architecture
        allows, on the CPU). `recompute`: activation checkpointing. Raises `UserError`."""
        place = chosen(device)
        found, tokenizer, config = load(name, precision, lora_rank, heads or {}, place, backbone, recompute)
        policy = cls(found, tokenizer, config, name)
        if tokenizer.template is None and name not in _told:
            _told.add(name)
            say(f"etude: {name} has {policy.renderer.format}", err=True)
        return policy

    @property
    def precision(self) -> str:
        return self.backbone.precision

    @property
    def engine(self) -> str:
        """What computes, for people: "native", "transformers, sequences packed, ..."."""
        return self.backbone.engine

    @property
    def described(self) -> str:
        """In a line: what is trained, how large it is, where it runs and how."""
        size, trained = self.backbone.size, sum(p.numel() for _, p in self.parameters())
        return (
            f"{self.name}, {size / 1e6:.3g} M parameters a token, {trained / 1e6:.3g} M trained, {self.precision} on "
            f"{named(self.device)}, {self.engine}"
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are. Batches may lie elsewhere: what is read of them is moved here."""
        return self.backbone.device

    @property
    def context(self) -> int:
        """The longest sequence the model was made for, in tokens."""
        return self.backbone.context

    def outputs(self, batch: Batch, needs: frozenset[str] = NOTHING, inputs: Tensor | None = None) -> Outputs:
        """Log-probabilities of `batch.needed` tokens under `batch.sampling`, differentiable, on the policy's device.
        `needs`: "entropy", "hidden". `inputs` (int64[N]) replaces what is read, not what is predicted."""
        if unknown := needs - {"entropy", "hidden"}:
            raise ValueError(f"outputs can provide 'entropy' and 'hidden', not {sorted(unknown)}")
        read = None if inputs is None else inputs.to(self.device)
        out, rows = self.backbone.outputs(batch.to(self.device), needs, read)
        if torch.is_grad_enabled():
            self.meter.trained += rows
        else:
            self.meter.scored += rows
        return out

    @torch.no_grad()
    def score(
        self,
        batch: Batch,
        needs: frozenset[str] = NOTHING,
        tokens_per_piece: int = 4096,
        inputs: Tensor | None = None,
    ) -> Outputs:
        """The same without gradients, in pieces of whole episodes of at most `tokens_per_piece` tokens."""
        if len(batch) <= tokens_per_piece:
            return self.outputs(batch, needs, inputs)
        parts, start = [], 0
        for piece in batch.split(tokens_per_piece):
            given = None if inputs is None else inputs[start : start + len(piece)]
            parts.append(self.outputs(piece, needs, given))
            start += len(piece)
        first = parts[0]
        return Outputs(
            torch.cat([p.logp for p in parts]),
            None if first.entropy is None else torch.cat([p.entropy for p in parts if p.entropy is not None]),
            {name: torch.cat([p.heads[name] for p in parts]) for name in first.heads},
            None if first.hidden is None else torch.cat([p.hidden for p in parts if p.hidden is not None]),
            first.project,
        )

    @contextmanager
    def recording(self, wanted: bool = True) -> Iterator[None]:
        """The activations of what is sampled inside are cached for the gradient (`models.activation_cache`), where the
        native kernels sample; until `publish`."""
        self.forget()
        weights = self.backbone.native()
        unfit = weights is None or weights.config.qk_norm or weights.hooks is not None
        if weights is None or unfit or not wanted or not native(weights):
            yield
            return
        weights.activations, weights.recording = ActivationCache(), True
        try:
            yield
        finally:
            weights.recording = False

    def forget(self) -> None:
        """Samplers compute anew what they keep of earlier prompts: what a phase costs then depends on itself alone."""
        weights = self.backbone.native()
        if weights is not None:
            weights.generation += 1

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Names and float32 parameters for the optimiser; empty for a frozen policy."""
        return self.backbone.parameters()

    def grad_accumulate(self) -> None:
        """Adds what the last backward pass left to the float32 gradients of `parameters()`."""
        self.backbone.accumulate()

    def grad_discard(self) -> None:
        """After a backward pass that failed (out of memory): drops what it left, so that it can be repeated."""
        self.backbone.discard()

    def publish(self) -> int:
        """Makes the optimiser's step visible to forward passes and samplers; returns the new version."""
        self.backbone.publish()
        self.version += 1
        return self.version

    @torch.no_grad()
    def follow(self, other: Policy, momentum: float) -> None:
        """theta <- momentum theta + (1 - momentum) theta_other, for another trainable policy of the same architecture."""
        for (_, mine), (_, theirs) in zip(self.parameters(), other.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)
        self.publish()

    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs, exact. Tensors share memory with the policy: save before the next step."""
        return {
            "weights": self.backbone.state_dict(),
            "version": self.version,
            "meter": self.meter.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.backbone.load_state_dict(state["weights"])
        self.version = int(state["version"])
        self.meter.load_state_dict(state["meter"])

    def become(self, other: Policy) -> None:
        """Takes over the weights of a policy of the same shape, as a reference does that moves in rounds."""
        self.backbone.load_state_dict(other.backbone.state_dict())
        self.version += 1

    def clone(self, frozen: bool = True) -> Policy:
        """An independent policy of the same weights; frozen: without master and gradients, as a reference."""
        other = Policy(self.backbone.clone(frozen), self.tokenizer, self.config, self.name, self.renderer)
        other.version = self.version
        return other

    def save(self, directory: str | Path) -> Path:
        """Writes a directory that transformers loads, and returns after it did. Where it cannot, or gives other logits,
        the weights are kept, a warning is printed, and `UNVERIFIED.txt` in the directory says why."""
        return save(self.backbone, self.config, self.tokenizer, Path(directory))
