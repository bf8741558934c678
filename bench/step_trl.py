"""TRL's side of bench/step.py and bench/to_target.py: `GRPOTrainer` as its documentation uses it."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from contestants import serve
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from etude.tasks.check import Number  # the same reading of an answer for both; needs nothing but NumPy

job = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(job["model"])
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
drawn = json.loads(Path(job["prompts"]).read_text())
data = Dataset.from_list(
    [{"prompt": [{"role": "user", "content": r["prompt"]}], "answer": r["answer"]} for r in drawn]
)
found: Counter[str] = Counter()


def reward(
    prompts: list[Any], completions: list[Any], answer: list[str], completion_ids: list[Any], **_: Any
) -> list[float]:
    scores = [
        Number(gold, extract="last_number")(c[0]["content"]).reward
        for c, gold in zip(completions, answer, strict=True)
    ]
    tokens = float(sum(len(c) for c in completion_ids))
    once = {p[0]["content"]: p for p in prompts}.values()
    texts = [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in once]
    prompt = float(sum(len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts))
    sizes = {"prompt": prompt, "tokens": tokens, "samples": float(len(completions))}
    found.update({**sizes, **{f"trained_{k}": v for k, v in sizes.items()}, "correct": sum(scores)})
    return scores


go: queue.Queue[bool] = queue.Queue()
done: queue.Queue[bool] = queue.Queue()


class TakeTurns(TrainerCallback):
    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        go.get()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        done.put(True)


size = job["tasks"] * job["samples"]
rows = min(size, job.get("peer_rows") or max(1, 4096 // job["tokens"]))
while size % rows:
    rows -= 1
config = GRPOConfig(
    output_dir=str(Path(job["place"]) / "trl"),
    per_device_train_batch_size=rows,
    gradient_accumulation_steps=size // rows,
    num_generations=job["samples"],
    max_completion_length=job["tokens"],
    learning_rate=job["lr"],
    lr_scheduler_type="constant",
    max_steps=100000,
    bf16=True,
    use_cpu=True,
    gradient_checkpointing=False,
    shuffle_dataset=False,
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


def train() -> None:
    try:
        trainer.train()
    finally:
        os._exit(1)  # the steps are never to end before the bench does


def turn(steps: int = 1, save: str = "") -> dict[str, Any]:
    """`save`: a directory for the weights; writing it is not counted."""
    if not thread.is_alive():
        thread.start()
    found.clear()
    begin = time.perf_counter()
    for _ in range(steps):
        go.put(True)
        done.get()
    seconds = time.perf_counter() - begin
    if save:
        model.save_pretrained(save)
        tokenizer.save_pretrained(save)
    return {"seconds": seconds, "steps": float(steps), **found}


thread = threading.Thread(target=train, daemon=True)
serve(turn)
os._exit(0)
