"""Hooks on hidden states: what a model computes is read or changed on its way, in training, scoring and sampling alike.

    with hooked(policy, Hook(2, Steer(vector, strength=4.0))):
        policy.outputs(batch)                       # the gradient passes through the hook
        sampler_for(policy)                         # and so does what is sampled

A hook stands at a layer and a place. "hidden" is the residual stream: layer 0 what enters the first block, layer i what leaves
the i-th, before the last norm. "heads" is what the attention of block i (from 1) gives to its output matrix, the heads side by
side. On the Llama family the native body and transformers agree on both.

The native body calls a hook between its own products, so it acts in training, prefill and decoding by any of the native
engines. What cannot be reused is not: while a hook is on nothing is recorded for the gradient (`models.activation_cache`),
and keys that were computed without it are dropped, as they are when it goes. Ranks that share the weights take no hooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from etude.errors import UserError

PLACES = ("hidden", "heads")
_OUTPUT = re.compile(r"(^|\.)\w*att\w*\.(o_proj|out_proj|c_proj|dense|output\.dense)$")

Change = Callable[[Tensor, Tensor | None], Tensor]
"""(state [..., D], int64[...] which token of the batch each row is, -1 for filling, None while sampling) -> [..., D], in the
precision of `state`."""


@dataclass(frozen=True)
class Hook:
    """`change` at a `layer` (below 0: from the last block backwards, -1 the last) and a place, of `PLACES`."""

    layer: int
    change: Change
    place: str = "hidden"

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise UserError(f"a hook's place is '{self.place}'; it must be {' or '.join(PLACES)}")


class Read:
    """Keeps what it sees, [..., D] each, in the order of the calls, and changes nothing. With its gradient while one is taken."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self.tokens: list[Tensor | None] = []

    def __call__(self, state: Tensor, tokens: Tensor | None) -> Tensor:
        self.states.append(state)
        self.tokens.append(tokens)
        return state

    def of_tokens(self, n: int) -> Tensor:
        """f32[n, D]: the states of the n tokens of the batch that was computed last; 0 where a token was not forwarded.
        Tokens that share a row hold it once, at the first of them."""
        if not self.states or self.tokens[-1] is None:
            raise ValueError("no batch was computed under this hook")
        state, tokens = self.states[-1], self.tokens[-1]
        rows, numbers = state.reshape(-1, state.shape[-1]), tokens.reshape(-1)
        real = (numbers >= 0).nonzero()[:, 0]
        return rows.new_zeros(n, rows.shape[1], dtype=torch.float32).index_copy(
            0, numbers[real], rows[real].float()
        )


@dataclass
class Steer:
    """h + strength v, f32[D] v, at every position. Differentiable in v."""

    vector: Tensor
    strength: float = 1.0

    def __call__(self, state: Tensor, tokens: Tensor | None) -> Tensor:
        _fits(self.vector, state)
        return state + (self.strength * self.vector).to(state.device, state.dtype)


@dataclass
class Scale:
    """s * h, channel by channel: f32[D] s, 1 changes nothing and 0 removes a channel. Differentiable in s."""

    channels: Tensor

    def __call__(self, state: Tensor, tokens: Tensor | None) -> Tensor:
        _fits(self.channels, state)
        return state * self.channels.to(state.device, state.dtype)


class Perturb:
    """h_t + delta_t, f32[N, D] delta of a batch's N tokens, 0 at first, inside a ball: |delta_t| <= radius, the L2 norm of each
    token's own. bool[N] `where`: on these tokens alone. Tokens that share a row (the same prompt, computed once) share the delta of
    the first. It belongs to one batch, so nothing can be sampled under it."""

    def __init__(self, where: Tensor, width: int, radius: float) -> None:
        if not radius >= 0:
            raise ValueError(f"the radius of a ball is {radius}; it must not be below 0")
        self.where, self.radius = where, radius
        self.delta = torch.zeros(len(where), width, device=where.device, requires_grad=True)

    def __call__(self, state: Tensor, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            raise ValueError("a perturbation belongs to the tokens of one batch; nothing is sampled under it")
        _fits(self.delta[0] if len(self.delta) else state[..., 0], state)
        at = tokens.clamp(min=0).to(self.delta.device)
        on = (self.where[at] & (tokens >= 0).to(self.delta.device))[..., None]
        return state + torch.where(on, self.delta[at], 0.0).to(state.device, state.dtype)

    @torch.no_grad()
    def project(self) -> None:
        """Puts every token's delta back into the ball: divides it by max(1, |delta_t| / radius)."""
        if self.radius == 0:
            self.delta.zero_()
        else:
            self.delta /= (self.delta.norm(dim=-1, keepdim=True) / self.radius).clamp(min=1)


def _fits(vector: Tensor, state: Tensor) -> None:
    if vector.shape[-1] != state.shape[-1]:
        raise UserError(f"a hook has {vector.shape[-1]} channels where the model has {state.shape[-1]}")


@dataclass
class Hooks:
    """The hooks that are on a body of `layers` blocks, and which tokens it is computing."""

    hooks: tuple[Hook, ...]
    layers: int
    tokens: Tensor | None = None  # as for `Change`; set around the forward pass of a batch
    on: bool = False  # on a module of transformers now
    at: dict[tuple[str, int], list[Change]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for hook in self.hooks:
            layer = hook.layer + self.layers + 1 if hook.layer < 0 else hook.layer
            least = 0 if hook.place == "hidden" else 1
            if not least <= layer <= self.layers:
                raise UserError(
                    f"a hook stands at layer {hook.layer}; '{hook.place}' of this model has {least} to {self.layers}"
                )
            self.at.setdefault((hook.place, layer), []).append(hook.change)

    def __call__(self, place: str, layer: int, state: Tensor) -> Tensor:
        """The state after all hooks at this place, in their order."""
        for change in self.at.get((place, layer), ()):
            state = change(state, self.tokens)
        return state

    @contextmanager
    def computing(self, tokens: Tensor) -> Iterator[None]:
        """While the rows that are forwarded are int64[...] `tokens` of a batch."""
        before, self.tokens = self.tokens, tokens
        try:
            yield
        finally:
            self.tokens = before

    @contextmanager
    def upon(self, module: Any) -> Iterator[None]:
        """While a causal model of transformers (adapters or not) computes: the hooks are on its blocks and output matrices."""
        if self.on:
            yield
            return
        layers = blocks_of(module)
        self.on = True
        try:
            with ExitStack() as held:
                for place, number in self.at:
                    held.callback(self._register(layers, place, number).remove)
                yield
        finally:
            self.on = False

    def _register(self, layers: Sequence[Any], place: str, number: int) -> Any:
        if place == "heads":
            output = _output_of(layers[number - 1])

            def before(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                return (self(place, number, given[0]), *given[1:])

            return output.register_forward_pre_hook(before)

        def after(_: Any, given: Any, out: Any) -> Any:
            if isinstance(out, tuple):
                return (self(place, number, out[0]), *out[1:])
            return self(place, number, out)

        def entering(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if given:
                return (self(place, number, given[0]), *given[1:]), named
            return given, {**named, "hidden_states": self(place, number, named["hidden_states"])}

        if not number:
            return layers[0].register_forward_pre_hook(entering, with_kwargs=True)
        return layers[number - 1].register_forward_hook(after)


def blocks_of(module: Any) -> Sequence[Any]:
    """The blocks of a causal model of transformers, in order. UserError where they cannot be told."""
    count = module.config.get_text_config().num_hidden_layers
    found: Any = next(
        (m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count), None
    )
    if found is None:
        raise UserError(f"the layers of '{module.config.model_type}' cannot be told, so it takes no hooks")
    blocks: Sequence[Any] = found
    return blocks


def _output_of(layer: Any) -> Any:
    if getattr(layer.forward, "recomputed", False):  # hooks are off again when it is computed anew
        raise UserError("hooks on heads and run.recompute=true do not go together; set run.recompute=false")
    for name, module in layer.named_modules():
        if _OUTPUT.search(name):
            return module
    raise UserError(
        f"the output matrix of attention in {type(layer).__name__} cannot be told, so its heads take no hooks"
    )


@contextmanager
def hooked(policy: Any, *hooks: Hook) -> Iterator[None]:
    """`policy` computes and is sampled under `hooks` inside, beside those that it has already. Not its clones. UserError for a layer
    that it does not have, and for a policy whose weights are shared out over processes."""
    body = policy.backbone
    before: Hooks | None = body.hooks
    body.attach((*(before.hooks if before else ()), *hooks))
    try:
        yield
    finally:
        body.attach(before.hooks if before else ())


def depth(policy: Any) -> int:
    """How many blocks a policy has, as hooks count them: a hook may stand at 0 to so many. UserError where it takes none."""

    def unchanged(state: Tensor, tokens: Tensor | None) -> Tensor:
        return state

    with hooked(policy, Hook(0, unchanged)):
        found: int = policy.backbone.hooks.layers
    return found
