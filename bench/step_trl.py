"""TRL's side of bench/step.py: `GRPOTrainer` as its documentation uses it, on the same prompts and reward."""

from __future__ import annotations

import json
import os
import queue
import random
import re
import sys
import threading
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from contestants import serve
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

job = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(job["model"])
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
rng = random.Random(0)
rows = [(rng.randint(1, 99), rng.randint(1, 99)) for _ in range(4096)]
ASK = "State the final answer to the following arithmetic problem: {} + {} =\nGive only the answer."
data = Dataset.from_list(
    [{"prompt": [{"role": "user", "content": ASK.format(a, b)}], "answer": str(a + b)} for a, b in rows]
)
lengths: list[float] = []


def reward(completions: list[Any], answer: list[str], completion_ids: list[Any], **_: Any) -> list[float]:
    lengths.append(float(sum(len(c) for c in completion_ids)))
    found = [re.findall(r"-?\d+", c[0]["content"]) for c in completions]
    return [float(bool(f) and f[-1] == a) for f, a in zip(found, answer, strict=True)]


go: queue.Queue[bool] = queue.Queue()
done: queue.Queue[bool] = queue.Queue()


class TakeTurns(TrainerCallback):
    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if not go.get():
            os._exit(0)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        done.put(True)


size = job["tasks"] * job["attempts"]
config = GRPOConfig(
    output_dir=str(Path(job["place"]) / "trl"),
    per_device_train_batch_size=size,
    num_generations=job["attempts"],
    max_completion_length=job["max_tokens"],
    learning_rate=1e-6,
    max_steps=100000,
    bf16=True,
    use_cpu=True,
    gradient_checkpointing=False,
    save_strategy="no",
    report_to=[],
    disable_tqdm=True,
    logging_steps=1000000,
)
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=reward,
    args=config,
    train_dataset=data,
    callbacks=[TakeTurns()],
)
threading.Thread(target=trainer.train, daemon=True).start()


def turn() -> dict[str, float]:
    go.put(True)
    done.get()
    return {"tokens": lengths[-1]}


serve(turn)
os._exit(0)
