"""A policy whose weights lie on several ranks, as the driver sees it: everything that needs all of the weights is done by all
ranks at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from etude.batch import Batch
from etude.errors import UserError
from etude.models.config import ModelConfig, Unsupported
from etude.models.hf import TransformersBackbone
from etude.models.hooks import Hook
from etude.models.outputs import Outputs
from etude.models.policy import Policy
from etude.models.sharded import ShardedBackbone
from etude.models.weights import Weights
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Sample, Sampler, Watch
from etude.scale.ranks import Held, Ranks
from etude.types import Array, SamplingParams


@dataclass(frozen=True)
class Origin:
    """How a model was loaded, so that it can be loaded again."""

    model: str
    how: Mapping[str, Any]

    def read(self, **other: Any) -> Policy:
        return Policy.load(self.model, **{**self.how, "backbone": "transformers", **other})


class MirroredPolicy(Policy):
    """A policy that ranks share, in the driver."""

    backbone: Mirrored

    def follow(self, other: Policy, momentum: float) -> None:
        backbone = other.backbone
        assert isinstance(backbone, Mirrored)
        self.backbone.ranks.everywhere(follow_here, self.backbone.name, backbone.name, momentum)
        self.publish()

    def clone(self, frozen: bool = True) -> Policy:
        plain = super().clone(frozen)
        other = MirroredPolicy(plain.backbone, self.tokenizer, self.config, self.name, self.renderer)
        other.version = self.version
        return other


def load(ranks: Ranks, name: str, model: str, frozen: bool = False, **how: Any) -> MirroredPolicy:
    """`Policy.load(model, **how)`, shared by the ranks, which call it `name`."""
    ranks.everywhere(load_here, name, Origin(model, how), frozen)
    here = ranks.held.policies[name]
    return MirroredPolicy(Mirrored(ranks, name), here.tokenizer, here.config, model, here.renderer)


class Mirrored:
    """A `Backbone` whose work is done by all ranks. `here`: this process's part."""

    def __init__(self, ranks: Ranks, name: str) -> None:
        self.ranks, self.name, self.here = ranks, name, part(ranks.held, name)
        here = self.here
        self.precision, self.size, self.context = here.precision, here.size, here.context
        self._native: Weights | None = None
        self._stale = True

    @property
    def device(self) -> torch.device:
        return self.here.device

    @property
    def engine(self) -> str:
        return self.here.engine

    def outputs(self, batch: Batch, needs: frozenset[str], inputs: Tensor | None) -> tuple[Outputs, int]:
        """Without gradient; those are the learner's."""
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of a model that ranks share is taken by its learner")
        given = None if inputs is None else inputs.cpu()
        found = self.ranks.everywhere(score_here, self.name, batch.to("cpu"), needs, given)
        parts = [part for _, part in sorted((p for of in found for p in of), key=lambda pair: pair[0])]
        return joined(parts, self.project), len(batch)

    def project(self, hidden: Tensor) -> Tensor:
        return self.ranks.everywhere(project_here, self.name, hidden.cpu())[0]

    hooks = None

    def attach(self, hooks: Sequence[Hook]) -> None:
        """UserError: the layers are in several processes."""
        self.here.attach(hooks)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """This process's parts; what is asked of their shapes and sizes is that of the whole."""
        return self.here.parameters()

    def accumulate(self) -> None: ...

    def discard(self) -> None: ...

    def publish(self) -> None:
        self._stale = True
        if self._native is not None:
            self.native()

    def state_dict(self) -> dict[str, Tensor]:
        return self.ranks.everywhere(gathered_here, self.name)[0]

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if state or self.here.parameters():
            self.ranks.everywhere(given_here, self.name, dict(state))
            self.publish()

    def clone(self, frozen: bool) -> Mirrored:
        name = f"{self.name}'"
        while name in self.ranks.held.policies:
            name += "'"
        self.ranks.everywhere(clone_here, self.name, name, frozen)
        return Mirrored(self.ranks, name)

    def native(self) -> Weights | None:
        """The whole copy that this process samples from, where it was asked for (`copied`)."""
        if self._native is not None and self._stale:
            self._native.load(self.export())
            self._stale = False
        return self._native

    def copied(self) -> bool:
        """Makes a whole copy in this process, to sample from: on the CPU, for architectures that have a native pass. Whether there
        is one."""
        if self._native is None and self.device.type == "cpu":
            try:
                config = ModelConfig.from_transformers(self.here.config.to_dict())
            except Unsupported:
                return False
            self._native = Weights(config, {}, self.precision, frozen=True)
            self._stale = True
        return self._native is not None

    def export(self) -> Iterable[tuple[str, Tensor]]:
        if not self.here.lora:
            return self.ranks.everywhere(exported_here, self.name)[0]
        return self._alone().export()

    def exact_logits(self, tokens: Tensor, buffers: Mapping[str, Tensor]) -> Tensor:
        return self._alone().exact_logits(tokens, buffers)

    def _alone(self) -> TransformersBackbone:
        """The same model, whole in this process, on the CPU."""
        origin: Origin = self.ranks.held.origins[self.name]
        alone = origin.read(device="cpu").backbone
        assert isinstance(alone, TransformersBackbone)
        alone.load_state_dict(self.state_dict())
        return alone


class WholeSampler:
    """Samples a model that ranks share from a whole copy in the driver, made when it is first asked: on the CPU, for
    architectures with a native pass. Elsewhere engines sample, and a model that they do not have cannot speak."""

    def __init__(self, policy: Policy, rows: int) -> None:
        self.policy, self.rows = policy, rows
        self._own: Sampler | None = None

    @property
    def own(self) -> Sampler:
        if self._own is None:
            backbone = self.policy.backbone
            assert isinstance(backbone, Mirrored)
            if not backbone.copied():
                raise UserError(
                    f"{self.policy.name} is shared by ranks and cannot be sampled from in this process: let engines do it, with "
                    "a table [engines] beside [trainer] (docs/scale.md)"
                )
            self._own = sampler_for(self.policy, self.rows)
        return self._own

    async def sample(
        self,
        prompt: Array,
        params: SamplingParams,
        key: int,
        watch: Watch | None = None,
        certainty: bool = False,
    ) -> Sample:
        return await self.own.sample(prompt, params, key, watch, certainty)

    def hold(self) -> AbstractAsyncContextManager[None]:
        return self.own.hold()

    async def refresh(self) -> None:
        await self.own.refresh()

    async def close(self) -> None:
        if self._own is not None:
            await self._own.close()


def joined(parts: Sequence[Outputs], project: Callable[[Tensor], Tensor]) -> Outputs:
    """Outputs of pieces of a batch as those of the batch."""
    first = parts[0]

    def rows(read: Callable[[Outputs], Tensor | None]) -> Tensor | None:
        found = [read(p) for p in parts]
        return None if found[0] is None else torch.cat([t for t in found if t is not None])

    return Outputs(
        torch.cat([p.logp for p in parts]),
        rows(lambda p: p.entropy),
        {name: torch.cat([p.heads[name] for p in parts]) for name in first.heads},
        rows(lambda p: p.hidden),
        project if first.hidden is not None else None,
    )


def dealt(pieces: Sequence[Batch], count: int) -> list[list[int]]:
    """Which pieces each of `count` ranks has: the largest first, to whom has least."""
    hands: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for number in sorted(range(len(pieces)), key=lambda i: -len(pieces[i])):
        least = loads.index(min(loads))
        hands[least].append(number)
        loads[least] += len(pieces[number])
    return [sorted(hand) for hand in hands]


# ---- what every rank does ----------------------------------------------------------------------------


def part(held: Held, name: str) -> ShardedBackbone:
    found = held.policies[name].backbone
    assert isinstance(found, ShardedBackbone)
    return found


def load_here(held: Held, name: str, origin: Origin, frozen: bool) -> None:
    policy = origin.read(device=held.mesh.device_type)
    assert isinstance(policy.backbone, TransformersBackbone)
    policy.backbone = ShardedBackbone(policy.backbone, held.mesh, frozen)
    held.policies[name], held.origins[name] = policy, origin


def clone_here(held: Held, name: str, new: str, frozen: bool) -> None:
    load_here(held, new, held.origins[name], frozen)
    part(held, new).take(part(held, name))


@torch.no_grad()
def score_here(
    held: Held, name: str, batch: Batch, needs: frozenset[str], inputs: Tensor | None
) -> list[tuple[int, Outputs]]:
    """Outputs of this rank's share of a batch, each with its place among all pieces."""
    policy = held.policies[name]
    pieces = list(batch.split(-(-len(batch) // held.count)))
    hands, starts = dealt(pieces, held.count), [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    found = []
    for turn in range(max(map(len, hands))):
        if turn >= len(hands[held.rank]):
            policy.outputs(idle(), needs)
            continue
        number = hands[held.rank][turn]
        given = None if inputs is None else inputs[starts[number] : starts[number + 1]]
        found.append((number, on_cpu(policy.outputs(pieces[number], needs, given))))
    return found


def on_cpu(out: Outputs) -> Outputs:
    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().cpu()

    heads = {name: head.detach().cpu() for name, head in out.heads.items()}
    return Outputs(out.logp.detach().cpu(), moved(out.entropy), heads, moved(out.hidden))


def idle() -> Batch:
    """Two tokens: what a rank runs that has nothing to do while others have."""
    whole = torch.zeros(2, dtype=torch.int64)
    row = torch.zeros(2)
    sampled = torch.tensor([False, True])
    return Batch(whole, whole, torch.arange(2), whole, whole, row, sampled, row, torch.arange(2), {}, {})


@torch.no_grad()
def project_here(held: Held, name: str, hidden: Tensor) -> Tensor | None:
    return part(held, name).projected(hidden, held.first)


def gathered_here(held: Held, name: str) -> dict[str, Tensor]:
    return part(held, name).gathered(held.first)


def given_here(held: Held, name: str, state: Mapping[str, Tensor]) -> None:
    part(held, name).load_state_dict(state)


def exported_here(held: Held, name: str) -> list[tuple[str, Tensor]]:
    return part(held, name).exported(held.first)


def follow_here(held: Held, name: str, other: str, momentum: float) -> None:
    held.policies[name].follow(held.policies[other], momentum)
