"""Runs in TRL's own environment: the gradient of one of its losses on given completions, advantages and old log-probabilities."""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

with open(sys.argv[1]) as file:
    job = json.load(file)
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
model.model.embed_tokens.padding_idx = None
tokenizer = AutoTokenizer.from_pretrained(job["model"])
rows, group = job["rows"], job["attempts"]
config = GRPOConfig(
    output_dir=job["out"] + ".d",
    per_device_train_batch_size=len(rows),
    num_generations=group,
    beta=0.0,
    bf16=False,
    use_cpu=True,
    report_to=[],
    gradient_checkpointing=False,
    **job["config"],
)
data = Dataset.from_list([{"prompt": "a"}] * len(rows))
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=lambda completions, **k: [0.0] * len(completions),
    args=config,
    train_dataset=data,
)


def padded(parts, left):
    width = max(map(len, parts))
    ids = [[0] * (width - len(p)) + p if left else p + [0] * (width - len(p)) for p in parts]
    mask = [
        [0] * (width - len(p)) + [1] * len(p) if left else [1] * len(p) + [0] * (width - len(p))
        for p in parts
    ]
    return torch.tensor(ids), torch.tensor(mask)


advantages = torch.tensor([r["advantage"] for r in rows])
prompt_ids, prompt_mask = padded([r["prompt"] for r in rows], True)
completion_ids, completion_mask = padded([r["completion"] for r in rows], False)
old, _ = padded([r["logp"] for r in rows], False)
trainer.model.train()
trainer.current_gradient_accumulation_steps = 1
loss = trainer._compute_loss(
    trainer.model,
    {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": advantages,
        "old_per_token_logps": old.float(),
        "num_items_in_batch": completion_mask.sum(),
    },
)
loss.backward()
save_file(
    {n: p.grad.contiguous() for n, p in trainer.model.named_parameters() if p.grad is not None}, job["out"]
)
