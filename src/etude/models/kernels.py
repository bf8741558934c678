"""The native kernels: `kernels.cpp` and, for processors with AMX, `tiles.cpp`, built on first use with the machine's
compiler and kept in the user's cache.

Nobody needs them for a right answer. Where there is no compiler, no AVX-512 with bfloat16, another precision or
another device, the PyTorch functions beside every call do the same work more slowly; one log line says why.
`ETUDE_KERNELS=off` asks for that.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from etude import cache as caches
from etude.machine import cpu_flags, vendor

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.cpp", "tiles.cpp"))
FLAGS = ("-O3", "-std=c++17", "-march=x86-64-v4", "-mavx512bf16", "-fopenmp", "-shared", "-fPIC", "-w")
TILE_FLAGS = ("-mamx-tile", "-mamx-bf16")
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "fma"}
PAGE = 16  # positions
log = logging.getLogger("etude")

# On Intel's processors MKL's float32 products of few rows (with two threads of some others too) add in another order
# than those of many; strictly reproducible ones do not, and are no slower. MKL reads this at its first product, and
# offers it on no other make.
if vendor() == "GenuineIntel" and "avx2" in cpu_flags():
    os.environ.setdefault("MKL_CBWR", "AVX512,STRICT" if "avx512f" in cpu_flags() else "AVX2,STRICT")


def library() -> ctypes.CDLL | None:
    """The kernels, or None where they cannot be had (said once)."""
    return _loaded()[0]


def why_not() -> str:
    """Why the kernels are not used; empty where they are."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("ETUDE_KERNELS", "").lower() in ("off", "0", "no"):
        return None, "ETUDE_KERNELS says so"
    try:
        return ctypes.CDLL(str(_built())), ""
    except Exception as error:
        log.warning("native kernels are not used, PyTorch computes in their place: %s", error)
        return None, str(error)


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels can compute with these: bfloat16 on the CPU."""
    return (
        all(t.device.type == "cpu" for t in tensors)
        and tensors[0].dtype == torch.bfloat16
        and library() is not None
    )


@cache
def _tiles() -> bool:
    found = library()
    return found is not None and bool(found.tiles_allowed())


def tiles(*tensors: Tensor) -> bool:
    """Whether `tiles.cpp` computes products of these: `usable`, on a processor with AMX."""
    return usable(*tensors) and _tiles()


def _built() -> Path:
    if not cpu_flags() >= NEEDED:
        raise RuntimeError("this processor has no AVX-512 instructions for bfloat16")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise RuntimeError("no C++ compiler is installed")
    if cpu_flags() >= {"amx_tile", "amx_bf16"}:
        try:
            return _compiled(compiler, (*FLAGS, *TILE_FLAGS))
        except RuntimeError as error:  # a compiler from before AMX
            log.warning("sampler and trainer will not agree to the last bit in bf16: %s", error)
    return _compiled(compiler, FLAGS)


def _compiled(compiler: str, flags: tuple[str, ...]) -> Path:
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout
    text = "\n".join([version, *flags]).encode() + b"".join(source.read_bytes() for source in SOURCES)
    name = hashlib.blake2b(text, digest_size=8).hexdigest()
    place = caches.kept("kernels", f"{name}.so")
    if not place.exists():
        place = caches.writable(place)
    if place.exists():
        return place
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        made = Path(work) / place.name
        done = subprocess.run(
            [compiler, *flags, "-o", str(made), *map(str, SOURCES)],
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        if done.returncode:
            raise RuntimeError(f"{compiler} failed: {done.stderr.strip().splitlines()[:1]}")
        os.replace(made, place)
    return place


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Runs a kernel on `torch.get_num_threads()` threads. Tensors go as addresses: they must be contiguous."""
    found = library()
    assert found is not None
    passed = [_passed(a) for a in (*arguments, torch.get_num_threads())]
    getattr(found, name)(*passed)


def _passed(argument: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_long | ctypes.c_float:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    assert argument.is_contiguous()
    return ctypes.c_void_p(argument.data_ptr())
