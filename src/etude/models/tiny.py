"""Models small enough for tests and experiments, with random weights and one token per character."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from etude.errors import UserError
from etude.models.config import ModelConfig
from etude.models.directory import write_json, write_tensors
from etude.models.policy import Policy
from etude.models.weights import Weights

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n.,:;!?+-*/=()[]<>'\"_#"
SPECIAL = ("<pad>", "<bos>", "<end>", "<user>", "<assistant>", "<system>", "<unk>")
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tiny(
    vocabulary: str | Sequence[str] | Backend = LETTERS,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    seed: int = 0,
    family: str = "llama",
    precision: str = "fp32",
    **more: Any,
) -> Policy:
    """A policy over a fresh tiny model (see `tiny_directory`); the directory is deleted again."""
    load = {k: more.pop(k) for k in ("head_sizes", "lora_rank", "backbone") if k in more}
    with tempfile.TemporaryDirectory() as place:
        path = tiny_directory(
            Path(place) / "tiny", vocabulary, layers, width, heads, kv_heads, seed, family, **more
        )
        return Policy.load(
            str(path),
            precision=precision,
            heads=load.get("head_sizes", {}),
            lora_rank=load.get("lora_rank", 0),
            backbone=load.get("backbone", "auto"),
        )


def tiny_directory(
    directory: str | Path,
    vocabulary: str | Sequence[str] | Backend = LETTERS,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    seed: int = 0,
    family: str = "llama",
    template: str | None = TEMPLATE,
    **config: Any,
) -> Path:
    """Writes a transformers-loadable model with random weights. `vocabulary`: characters (or words, matched
    whole and longest first), or a `tokenizers.Tokenizer` with <end> among its tokens. `template` None: no chat
    template. Further arguments enter `config.json`."""
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    backend = vocabulary if isinstance(vocabulary, Backend) else _characters(vocabulary)
    end = backend.token_to_id("<end>")
    if end is None:
        raise UserError("the tokenizer of a tiny model needs an <end> token")
    settings = {
        "model_type": family,
        "architectures": [_ARCHITECTURES[family]],
        "vocab_size": backend.get_vocab_size(with_added_tokens=True),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width // heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "sliding_window": None,
        "eos_token_id": end,
        "bos_token_id": backend.token_to_id("<bos>"),
        "pad_token_id": backend.token_to_id("<pad>"),
        "dtype": "float32",
        **config,
    }
    weights = Weights(ModelConfig.from_transformers(settings), {}, "fp32")
    weights.initialise(seed)
    write_tensors(weights.state_dict().items(), place)
    write_json(place / "config.json", settings)
    write_json(
        place / "generation_config.json", {"eos_token_id": end, "pad_token_id": settings["pad_token_id"]}
    )
    backend.save(str(place / "tokenizer.json"))
    about: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    about |= {"pad_token": "<pad>", "bos_token": "<bos>", "unk_token": "<unk>"}
    if template is not None:
        about["chat_template"] = template
    write_json(place / "tokenizer_config.json", about)
    return place


_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mistral": "MistralForCausalLM",
}


def _characters(vocabulary: str | Sequence[str]) -> Backend:
    words = list(dict.fromkeys(vocabulary))
    table = {word: i for i, word in enumerate([*SPECIAL, *words])}
    backend = Backend(models.WordLevel(table, unk_token="<unk>"))
    longest = sorted(words, key=len, reverse=True)
    pattern = "|".join(
        "".join("\\" + c if not c.isalnum() and c not in " \n" else c for c in w) for w in longest
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(f"{pattern}|[\\s\\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return backend
