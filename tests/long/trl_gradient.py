"""Runs in TRL's own environment: the gradient of one of its losses on given completions, advantages and old log-probabilities."""

import json
import os
import sys
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

with open(sys.argv[1]) as file:
    job = json.load(file)
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
model.model.embed_tokens.padding_idx = None
tokenizer = AutoTokenizer.from_pretrained(job["model"])
rows = job["rows"]
common = {
    "output_dir": job["out"] + ".d",
    "per_device_train_batch_size": len(rows),
    "bf16": False,
    "use_cpu": True,
    "report_to": [],
    "gradient_checkpointing": False,
    **job["config"],
}


def padded(parts, left=False):
    """Token ids and mask, int64[B, T]."""
    width = max(map(len, parts))
    blank = [[0] * (width - len(p)) for p in parts]
    ids = [b + p if left else p + b for p, b in zip(parts, blank, strict=True)]
    mask = [b + [1] * len(p) if left else [1] * len(p) + b for p, b in zip(parts, blank, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def preferences():
    """DPO: rows are chosen, rejected, chosen, rejected, ... with the reference's log-probability of each answer."""
    data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * len(rows))
    trainer = DPOTrainer(
        model=model, args=DPOConfig(**common), processing_class=tokenizer, train_dataset=data
    )
    trainer.precompute_ref_logps = True  # those of the rows
    ordered = rows[0::2] + rows[1::2]
    input_ids, attention_mask = padded([r["prompt"] + r["completion"] for r in ordered])
    mask = [[0] * len(r["prompt"]) + [1] * len(r["completion"]) for r in ordered]
    half = len(rows) // 2
    reference = torch.tensor([sum(r["reference"]) for r in ordered])
    return trainer, {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "completion_mask": padded(mask)[0],
        "ref_chosen_logps": reference[:half],
        "ref_rejected_logps": reference[half:],
    }


def labelled():
    """KTO: rows with a label and the reference's log-probability; the divergence z_0 is given."""
    data = Dataset.from_list(
        [{"prompt": "a", "completion": "b", "label": i % 2 == 0} for i in range(len(rows))]
    )
    trainer = KTOTrainer(
        model=model, args=KTOConfig(**common), processing_class=tokenizer, train_dataset=data
    )
    trainer.precompute_ref_logps = True
    trainer._compute_kl_logps = lambda model, batch: torch.full((len(rows),), job["baseline"])
    input_ids, attention_mask = padded([r["prompt"] + r["completion"] for r in rows])
    mask = [[0] * len(r["prompt"]) + [1] * len(r["completion"]) for r in rows]
    return trainer, {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "completion_mask": padded(mask)[0],
        "label": torch.tensor([r["advantage"] > 0 for r in rows]),
        "ref_logps": torch.tensor([sum(r["reference"]) for r in rows]),
        "ref_KL_logps": torch.zeros(len(rows)),
    }


def by_function(kind):
    """CPO, SimPO, label smoothing and ORPO: TRL's own loss of log-probabilities that are computed here. Rows are chosen,
    rejected, chosen, rejected, ..."""
    config = {
        "beta": 0.1,
        "label_smoothing": 0.0,
        "simpo_gamma": 0.0,
        "alpha": 0.0,
        "loss_type": "sigmoid",
    } | job["config"]
    chosen_weight = config.pop("chosen_weight", 0.0)
    logps, nats, tokens = [], 0.0, 0
    for i, r in enumerate(rows):
        ids = torch.tensor([r["prompt"] + r["completion"]])
        table = torch.log_softmax(model(ids).logits[0, len(r["prompt"]) - 1 : -1], -1)
        each = table.gather(1, torch.tensor(r["completion"])[:, None])[:, 0]
        if i % 2 == 0:
            nats, tokens = nats - each.sum(), tokens + len(each)
        mean = config["loss_type"] == "simpo" or kind == "orpo"
        logps.append(
            (each.mean() if mean else each.sum()) - (sum(r["reference"]) if job["against_reference"] else 0)
        )
    self = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **config)
    chosen, rejected = torch.stack(logps[0::2]), torch.stack(logps[1::2])
    if kind == "orpo":  # its losses are log-likelihoods, which it subtracts
        return nats / tokens - ORPOTrainer.odds_ratio_loss(self, chosen, rejected)[0].mean()
    return CPOTrainer.cpo_loss(self, chosen, rejected)[0].mean() + chosen_weight * nats / tokens


def rewarded(kind, config):
    """GRPO and RLOO: rows with an advantage and the log-probabilities that they were sampled with."""
    trainer = kind(
        model=model,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **k: [0.0] * len(completions),
        args=config(num_generations=job["attempts"], beta=0.0, **common),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * len(rows)),
    )
    prompt_ids, prompt_mask = padded([r["prompt"] for r in rows], True)
    completion_ids, completion_mask = padded([r["completion"] for r in rows])
    old = padded([r["logp"] for r in rows])[0].float()
    return trainer, {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor([r["advantage"] for r in rows]),
        "old_per_token_logps": old,
        "old_logps": (old * completion_mask).sum(1),
        "num_items_in_batch": completion_mask.sum(),
    }


if job["trainer"] in ("cpo", "orpo"):
    loss = by_function(job["trainer"])
else:
    trainer, inputs = {
        "dpo": preferences,
        "kto": labelled,
        "grpo": lambda: rewarded(GRPOTrainer, GRPOConfig),
        "rloo": lambda: rewarded(RLOOTrainer, RLOOConfig),
    }[job["trainer"]]()
    model = trainer.model
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(
        trainer.model, inputs, *((False,) if job["trainer"] in ("dpo", "kto") else ())
    )
loss.backward()
save_file({n: p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}, job["out"])
