"""The peer's side of bench/forward_backward.py: transformers, padded."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from contestants import serve
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

job = json.loads(sys.argv[1])
pure = job["kind"] == "bf16"
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16 if pure else torch.float32)
model.train()
data = json.loads(Path(job["data"]).read_text())
prompts, completions = ([torch.tensor(x) for x in data[n]] for n in ("prompts", "completions"))


def padded(rows: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """int64[B, T] ids and mask."""
    ones = [torch.ones_like(r) for r in rows]
    ids, mask = (pad_sequence(x, batch_first=True, padding_side=side) for x in (rows, ones))
    return ids, mask


(before, seen), (after, real) = padded(prompts, "left"), padded(completions, "right")
ids, mask = torch.cat([before, after], 1), torch.cat([seen, real], 1)
advantage = torch.tensor(data["advantages"])[:, None]
keep = after.shape[1] + 1  # the completion's logits and the one before its first token
mixed = contextlib.nullcontext() if pure else torch.autocast("cpu", torch.bfloat16)


def turn() -> dict[str, float]:
    begin = time.perf_counter()
    with mixed:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=keep, use_cache=False
        )
        logits = out.logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), after, reduction="none")
    total = (advantage * loss * real).sum() / real.sum()
    total.backward()
    seconds = time.perf_counter() - begin
    norm = sum(float(p.grad.float().square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
    model.zero_grad(set_to_none=False)
    return {"seconds": seconds, "tokens": float(real.sum()), "loss": float(total.detach()), "grad_norm": norm}


serve(turn)
