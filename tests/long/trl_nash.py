"""Runs in the environment of an older TRL, the last line that has `NashMDTrainer`: the gradient of its loss on given completions,
preferences and log-probabilities of the reference."""

import json
import os
import sys
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from trl.experimental.nash_md import NashMDTrainer

with open(sys.argv[1]) as file:
    job = json.load(file)
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
model.model.embed_tokens.padding_idx = None
width = max(len(r["completion"]) for r in job["rows"])
own, reference = [], []
for r in job["rows"]:
    table = torch.log_softmax(
        model(torch.tensor([r["prompt"] + r["completion"]])).logits[0, len(r["prompt"]) - 1 : -1], -1
    )
    each = table.gather(1, torch.tensor(r["completion"])[:, None])[:, 0]
    blank = torch.zeros(width - len(each))  # padding, as the trainer masks it
    own.append(torch.cat([each, blank]))
    reference.append(torch.cat([torch.tensor(r["reference"]), blank]))
won = torch.sigmoid(torch.tensor([r["reward"] - r["opponent"] for r in job["rows"]]))
self = SimpleNamespace(beta=job["beta"])
loss, _, _ = NashMDTrainer._compute_losses(self, torch.stack(own), torch.stack(reference), won)
loss.backward()
save_file({n: p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}, job["out"])
