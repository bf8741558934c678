"""A model as one GGUF file, which llama.cpp and what is built on it run. Written here for the architectures that etude
computes natively and for byte-level BPE tokenizers; its tensors are read back and compared before it is called done.
The names and keys are those of the format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.errors import UserError
from etude.models.config import ModelConfig, Unsupported
from etude.models.directory import read_config, read_tensors
from etude.text.tokenizer import Tokenizer, read

DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
ARCHITECTURES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
ELSEWHERE = "convert the directory that `--to DIR` writes with llama.cpp's convert_hf_to_gguf.py"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # Llama 3's, and Qwen's
SPLITS = {
    f"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS % '{1,3}'}": "llama-bpe",
    f"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS % ''}": "qwen2",
}
PROBE = 'He said: "it\'s 1234 + 56,789"\n\n  naïve 日本 😀\tend.'
ROUNDING = {
    "f32": 0.0,
    "f16": 2.0**-10,
    "bf16": 2.0**-7,
    "q8_0": 2.0**-6,
}  # of the largest weight of a tensor


def write_gguf(directory: Path, path: Path, dtype: str, name: str) -> None:
    """Writes the model in `directory`, which transformers loads, to `path`. `dtype` of matrices: f32, f16, bf16 or q8_0;
    vectors stay f32. UserError where the model cannot be expressed."""
    import gguf

    if dtype not in DTYPES:
        raise UserError(f"a GGUF file holds {', '.join(DTYPES)}; got '{dtype}'")
    settings, tokenizer = read_config(directory), read(directory)
    try:
        config = ModelConfig.from_transformers(settings)
    except Unsupported as unsupported:
        raise UserError(f"{unsupported} is not written as GGUF here; {ELSEWHERE}") from unsupported
    if any(config.windows):
        raise UserError(f"sliding windows are not written as GGUF here; {ELSEWHERE}")
    kind = getattr(gguf.MODEL_ARCH, ARCHITECTURES[config.family])
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[kind])
    _sizes(writer, config, name, dtype)
    _words(writer, tokenizer, settings, config.vocabulary)
    names = gguf.get_tensor_name_map(kind, config.layers)
    for given, value in _tensors(directory, config, names):
        _add(writer, given, value, dtype)
    if config.scaling["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _factors(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if doubt := _doubt(path, _tensors(directory, config, names), dtype):
        raise UserError(f"the GGUF file was not kept, since {doubt}; {ELSEWHERE}")


def _sizes(writer: Any, config: ModelConfig, name: str, dtype: str) -> None:
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_vocab_size(config.vocabulary)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.inner)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.theta)
    writer.add_layer_norm_rms_eps(config.eps)
    if config.scaling["rope_type"] == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.scaling["factor"]))


def _factors(config: ModelConfig) -> np.ndarray:
    """f32[head_dim / 2]: how many times slower each rotary pair turns than its base says."""
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    return (config.theta**-steps / config.frequencies()).numpy()


def _tensors(directory: Path, config: ModelConfig, names: Any) -> Iterator[tuple[str, np.ndarray]]:
    """f32 tensors by their names in the file. In llama.cpp's Llama a rotary pair is two neighbouring rows, in
    transformers' the halves of a head: rows of queries and keys change places."""
    turned = {"q_proj.weight": config.heads, "k_proj.weight": config.kv_heads}
    for given, value in read_tensors(directory):
        if given.startswith("heads.") or (given == "lm_head.weight" and config.tied):
            continue
        found = names.get_name(given, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise UserError(f"the tensor {given} has no place in a GGUF file of {config.family}")
        heads = turned.get(given.rpartition("self_attn.")[2])
        tensor = value.float()
        if heads and ARCHITECTURES[config.family] == "LLAMA":
            tensor = _paired(tensor, heads)
        yield found, tensor.contiguous().numpy()


def _paired(rows: Tensor, heads: int) -> Tensor:
    """f32[heads x 2 x half, width]: row j of the first half comes right before row j of the second."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _add(writer: Any, name: str, value: np.ndarray, dtype: str) -> None:
    import gguf

    kinds = gguf.GGMLQuantizationType
    kind = kinds.F32 if value.ndim < 2 else kinds[DTYPES[dtype]]
    if kind == kinds.Q8_0 and value.shape[-1] % 32:  # blocks of 32 do not fit
        kind = kinds.F16
    if kind == kinds.F16 and float(np.abs(value).max()) > float(np.finfo(np.float16).max):
        raise UserError(f"{name} holds weights too large for f16; use --dtype bf16")
    writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)


# ---- the tokenizer -----------------------------------------------------------------------------------


def _words(writer: Any, tokenizer: Tokenizer, settings: dict[str, Any], size: int) -> None:
    import gguf

    state = json.loads(tokenizer.backend.to_str())
    writer.add_tokenizer_model("gpt2")  # what byte-level BPE is called there
    writer.add_tokenizer_pre(_splitter(state))
    types = gguf.TokenType
    tokens = [f"[PAD{i}]" for i in range(size)]
    kinds = [types.UNUSED] * size
    for text, number in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        if number < size:
            tokens[number], kinds[number] = text, types.NORMAL
    for added in state["added_tokens"]:
        kinds[added["id"]] = types.CONTROL if added["special"] else types.USER_DEFINED
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = state["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_add_bos_token(bool(len(tokenizer.encode("", special=True))))
    if tokenizer.stops:
        writer.add_eos_token_id(tokenizer.stops[0])
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("pad", writer.add_pad_token_id),
        ("unk", writer.add_unk_token_id),
    ):
        special = tokenizer.backend.token_to_id(tokenizer.specials.get(f"{name}_token", ""))
        if special is not None:
            add(special)
    if tokenizer.template is not None:
        writer.add_chat_template(tokenizer.template)


def _splitter(state: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer cuts text into words before it merges bytes."""
    first = state["pre_tokenizer"] or {}
    steps = first["pretokenizers"] if first.get("type") == "Sequence" else [first]
    kinds = [step.get("type") for step in steps]
    if state["model"].get("type") == "BPE" and kinds and kinds[-1] == "ByteLevel":
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and (found := SPLITS.get(steps[0]["pattern"].get("Regex", ""))):
            return found
    kind = state["model"].get("type", "?")
    raise UserError(f"a tokenizer of this kind ({kind}) is not written as GGUF here; {ELSEWHERE}")


# ---- read back ---------------------------------------------------------------------------------------


def _doubt(path: Path, tensors: Iterable[tuple[str, np.ndarray]], dtype: str) -> str:
    """What of `tensors` is not in the file as it should be, but for rounding; "" for nothing."""
    import gguf

    there = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, value in tensors:
        if name not in there:
            return f"it lacks {name}"
        found = gguf.quants.dequantize(there[name].data, there[name].tensor_type).reshape(value.shape)
        bound = ROUNDING[dtype] if value.ndim > 1 else 0.0
        if not float(np.abs(found - value).max()) <= bound * float(np.abs(value).max()):
            return f"its {name} is another than the model's"
    return ""
