"""Modules of transformers as they are published: read, checked, and given adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from etude.errors import UserError
from etude.models.adapter import merge
from etude.models.directory import finite
from etude.seeds import key


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
def decodes(module: Any) -> bool:
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


def adapted(module: Any, rank: int) -> Any:
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
