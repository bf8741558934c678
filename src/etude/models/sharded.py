"""One model on several ranks: every rank holds a part of each tensor, and all of them call the same functions in the same
order. By PyTorch's FSDP2: a layer's weights are gathered when it runs, its gradient is added up over the ranks.

Ranks add, they never average: who divides is `train.step`, by denominators that were counted over the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.batch import Batch
from etude.errors import UserError
from etude.models.hf import TransformersBackbone
from etude.models.hf_export import distinct, published
from etude.models.hooks import Hook
from etude.models.outputs import Outputs
from etude.models.weights import Weights

if TYPE_CHECKING:  # importing it takes as long as everything else that a run needs, so that only ranks do
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which every rank holds a part. All ranks call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Heads(nn.Module):
    """Auxiliary linear outputs, in float32 whatever the trunk computes in."""

    def __init__(self, heads: Mapping[str, Tensor], frozen: bool) -> None:
        super().__init__()
        self.named = {name: f"p{number}" for number, name in enumerate(heads)}
        for name, tensor in heads.items():
            self.register_parameter(self.named[name], nn.Parameter(tensor.detach().clone(), not frozen))

    def forward(self, state: Tensor) -> dict[str, Tensor]:
        held = {name: getattr(self, place) for name, place in self.named.items()}
        names = sorted({n.rsplit(".", 1)[0] for n in held})
        return {n: F.linear(state, held[f"{n}.weight"], held[f"{n}.bias"]) for n in names}


class Root(nn.Module):
    """The module, its output projection and its heads: what all ranks enter and leave together."""

    def __init__(self, module: nn.Module, heads: Heads, run: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.heads = module, heads
        self._run = run

    def forward(self, *given: Any) -> Any:
        return self._run(*given)


class ShardedBackbone(TransformersBackbone):
    """A `TransformersBackbone` of which this rank holds its part. Masters are float32, with LoRA those of the adapters."""

    def __init__(self, plain: TransformersBackbone, mesh: DeviceMesh, frozen: bool) -> None:
        if plain.obstacle:
            raise UserError(
                f"this architecture cannot be shared by ranks, since its sequences cannot be packed ({plain.obstacle}); leave "
                "[trainer] out"
            )
        from torch.distributed.fsdp import MixedPrecisionPolicy

        module = plain.module.cpu() if mesh.device_type != "cpu" else plain.module
        trained = not frozen and not plain.lora
        for parameter in module.parameters():
            if trained:  # masters; what computes is rounded when it is gathered
                parameter.data = parameter.data.float()
            if frozen:
                parameter.requires_grad_(False)
        super().__init__(module, plain.precision, {}, plain.lora, True, "", plain.flash)
        self.mesh = mesh
        self.heads = dict(plain.heads)
        self.read_out = Heads({n: t.float().cpu() for n, t in plain.heads.items()}, frozen)
        self.root = Root(module, self.read_out, self._run)
        mixed = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if trained and self.precision == "bf16" else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
        for layer in layers(module):
            self._shard(layer, mixed)
        if self.heads:
            self._shard(self.read_out, MixedPrecisionPolicy(cast_forward_inputs=False))
        self._shard(self.root, mixed)
        self._given = not frozen
        if not frozen:
            self.masters = {n: p for n, p in self._stated().items() if p.requires_grad}  # type: ignore[misc]

    def _shard(self, module: nn.Module, mixed: MixedPrecisionPolicy) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard

        made = fully_shard(module, mesh=self.mesh, mp_policy=mixed)
        assert isinstance(made, FSDPModule)
        made.set_gradient_divide_factor(1.0)
        made.set_force_sum_reduction_for_comms(True)

    @property
    def engine(self) -> str:
        return f"{super().engine}, shared by {self.mesh.size()} ranks"

    @property
    def device(self) -> torch.device:
        kind = self.mesh.device_type
        return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)

    # ---- forward and backward ------------------------------------------------------------------------

    def outputs(self, batch: Batch, needs: frozenset[str], inputs: Tensor | None) -> tuple[Outputs, int]:
        found = super().outputs(batch, needs, inputs)
        if not torch.is_grad_enabled():
            self.root.reshard()  # type: ignore[operator]  # kept for a backward pass that does not come
        return found

    def forward(self, *given: Any) -> Any:
        return self.root(*given)

    def _run(self, batch: Batch, tokens: Tensor, wanted: Tensor, needs: frozenset[str]) -> Any:
        """Of all that is returned, every part has every trained tensor in its gradient, if only with 0: a rank whose losses
        do not read a head would else have no gradient to add for it, while the others wait."""
        logp, spread, heads, state = super().forward(batch, tokens, wanted, needs)
        tie = nothing_of(*heads.values())
        return logp + tie, spread + tie, {n: h + tie for n, h in heads.items()}, state + tie

    def tied(self, state: Tensor) -> Tensor:
        last = self.module.get_output_embeddings()
        return state + nothing_of(*(p.view(-1)[:1] for p in last.parameters() if p.requires_grad))

    def read_heads(self, state: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.read_out(state) if self.heads else {}
        return found

    def attach(self, hooks: Sequence[Hook]) -> None:
        if hooks:
            raise UserError("weights that are shared out over ranks take no hooks; leave [trainer] out")

    def accumulate(self) -> None: ...  # the gradients are where they belong

    def discard(self) -> None: ...

    def publish(self) -> None:
        self.root.reshard()  # type: ignore[operator]

    def native(self) -> Weights | None:
        return None

    # ---- all of it -----------------------------------------------------------------------------------

    @torch.no_grad()
    def projected(self, hidden: Tensor, keep: bool) -> Tensor | None:
        """As `project`, where `keep`. All ranks call this."""
        root: Any = self.root
        root.unshard()
        found = self.project(hidden).cpu() if keep else None
        root.reshard()
        return found

    @torch.no_grad()
    def take(self, other: ShardedBackbone) -> None:
        """The weights of another one of the same shape, each rank its part."""
        mine, theirs = (dict(b.root.named_parameters()) for b in (self, other))
        for name, parameter in mine.items():
            parameter.copy_(theirs[name])
        self.publish()

    @torch.no_grad()
    def gathered(self, keep: bool) -> dict[str, Tensor]:
        """As `state_dict`, whole and on the CPU, where `keep`; nothing elsewhere. All ranks call this."""
        found = {}
        for name, tensor in self._stated().items() if self._given else ():
            full = whole(tensor.detach())
            if keep:
                found[name] = full.cpu()
        return found

    @torch.no_grad()
    def exported(self, keep: bool) -> list[tuple[str, Tensor]]:
        """As `export`, of a model without adapters. All ranks call this."""
        heads: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        for name, value in [*self._own_heads().items(), *distinct(self.module)]:
            tensor = whole(value.detach())
            if keep:
                (heads if name.startswith("heads.") else found)[name] = tensor.cpu()
        return [*heads.items(), *published(self.module, found)] if keep else []

    def _stated(self) -> Mapping[str, Tensor]:
        return self.masters or {**dict(self.module.named_parameters()), **self._own_heads()}

    def _own_heads(self) -> dict[str, Tensor]:
        own = dict(self.read_out.named_parameters())
        return {f"heads.{n}": own[place] for n, place in self.read_out.named.items()}

    def _write(self, tensor: Tensor, value: Tensor) -> None:
        copy_into(tensor, value)


def nothing_of(*tensors: Tensor) -> Tensor | float:
    """0, whatever they hold, with all of them in its gradient."""
    if not tensors:
        return 0.0
    total = torch.stack([t.float().sum() for t in tensors]).sum()
    return torch.where(torch.zeros((), dtype=torch.bool, device=total.device), total, 0.0)


@torch.no_grad()
def copy_into(part: Tensor, value: Tensor) -> None:
    """Gives this rank its part of a whole tensor that every rank has."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(part, DTensor):
        value = distribute_tensor(
            value.to(part.device_mesh.device_type, part.dtype),
            part.device_mesh,
            part.placements,
            src_data_rank=None,
        )
    part.copy_(value)


def layers(module: nn.Module) -> list[nn.Module]:
    """The layers of a transformers module, each of which is gathered by itself."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
