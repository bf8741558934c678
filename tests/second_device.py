"""A second device on a machine that has one: its tensors compute as the CPU's do, but say that they lie elsewhere, and
refuse to be mixed with the CPU's, or to be read as numpy arrays, exactly where CUDA's would.

PyTorch's device type "lazy" is borrowed for it: nothing uses it in this build, and autograd runs it in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_flatten, tree_map

from etude.models.pretrained import pretrained

SECOND = torch.device("lazy:0")
CPU = torch.device("cpu")
aten = torch.ops.aten
MIXED = {aten._to_copy, aten.copy_}  # what moves numbers from one device to another
CHOOSING = {
    aten.index,
    aten.index_put,
    aten.index_put_,
    aten._index_put_impl_,
}  # may be given places on the CPU


class Elsewhere(torch.Tensor):
    """A tensor of the second device; `held` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=SECOND,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})

    def tolist(self) -> Any:  # CUDA's may be asked for it; numpy() it is that they refuse
        return self.held.tolist()


def _here(value: Any) -> Any:
    if isinstance(value, Elsewhere):
        return value.held
    return CPU if isinstance(value, torch.device) and value.type == SECOND.type else value


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = [x for x in given if isinstance(x, Elsewhere)]
    packet = function.overloadpacket
    if there and packet not in MIXED:
        firsts = given if packet not in CHOOSING else [args[0], *args[2:3]]
        stray = [
            x for x in firsts if isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere) and x.dim()
        ]
        strange = packet in CHOOSING and not isinstance(args[0], Elsewhere)
        if stray or strange:
            raise RuntimeError(f"expected all tensors on one device, but {function} was given two")
    asked = kwargs.get("device")
    plain_args, plain_kwargs = tree_map(_here, (args, kwargs))
    out = function(*plain_args, **plain_kwargs)
    if packet is aten.copy_:
        elsewhere = isinstance(args[0], Elsewhere)
    else:
        elsewhere = bool(there) if asked is None else torch.device(asked).type == SECOND.type
    if not elsewhere:
        return out
    wrapped = tree_map(lambda x: Elsewhere(x) if type(x) is torch.Tensor else x, out)
    if function._schema.is_mutable and there:
        return return_and_correct_aliasing(function, args, kwargs, wrapped)
    return wrapped


class _Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


@contextmanager
def second_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Inside, "cuda", which is returned, and "auto" mean the second device."""
    monkeypatch.setattr("etude.models.policy.chosen", lambda name: "cpu" if name == "cpu" else str(SECOND))
    autocast = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind="cpu": autocast("cpu"))
    tensor = torch.tensor  # makes its result in one go, past every mode

    def made(data: Any, *, device: Any = None, **more: Any) -> torch.Tensor:
        out = tensor(data, **more)
        return out if device is None else out.to(device)

    def read(
        *given: Any,
    ) -> Any:  # on the CPU, as ever: transformers exchanges functions of torch while it reads
        with _disable_current_modes(), monkeypatch.context() as plain:
            plain.setattr(torch, "tensor", tensor)
            return pretrained(*given)

    monkeypatch.setattr("etude.models.hf.pretrained", read)
    monkeypatch.setattr(torch, "tensor", made)
    monkeypatch.setattr(torch, SECOND.type, torch.cpu, raising=False)
    served = "_get_fused_kernels_supported_devices"
    monkeypatch.setattr(sys.modules["torch.optim.optimizer"], served, lambda: ["cpu", SECOND.type])
    with _Everywhere():
        yield "cuda"
