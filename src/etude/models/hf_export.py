"""The state of a transformers module as checkpoints of its architecture hold it: float32, adapters merged."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor


def whole(module: Any, masters: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """All tensors, by the float32 `masters` where there are some."""
    return published(module, {n: masters.get(n, t) for n, t in distinct(module)})


def merged(module: Any) -> Iterable[tuple[str, Tensor]]:
    """A module of PEFT with its adapters added in."""
    base = module.get_base_model()
    layers = {n: m for n, m in base.named_modules() if hasattr(m, "get_delta_weight")}
    if any(type(m).__name__ == "ParamWrapper" for m in layers.values()):  # stacked experts
        alone = copy.deepcopy(module).float().merge_and_unload()
        return published(base, dict(distinct(alone)))
    found = {}
    for name, value in distinct(base):
        if "lora_" in name:
            continue
        owner = name.removesuffix(".base_layer.weight")
        if owner in layers and owner != name:
            value = value.float() + layers[owner].get_delta_weight("default").float()
        found[name.replace(".base_layer.", ".")] = value
    return published(base, found)


def distinct(module: Any) -> Iterable[tuple[str, Tensor]]:
    """The state of a module, tied tensors once: a second name would hold the rounded working copy."""
    own = dict(module.named_parameters())  # each parameter under its first name
    tied = {name for name, _ in module.named_parameters(remove_duplicate=False)} - own.keys()
    return [(name, value.detach()) for name, value in module.state_dict().items() if name not in tied]


def published(module: Any, state: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """A state in float32, by the names that checkpoints of this architecture have where the module's are others."""
    held = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return held.items()
    renamed: dict[str, Tensor] = revert_weight_conversion(module, held)
    return renamed.items()
