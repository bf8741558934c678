"""Prompt-based continued pre-training: unlabelled texts, each in the wording of the task with the label that the model itself gives.

Don't Stop Pretraining? Make Prompt-based Fine-tuning Powerful Learner (Shi & Lipani, arXiv 2305.01711), and its release
(ZhengxiangShi/PowerfulPromptFT). A model is tuned on the few labelled tasks; it labels all others; the model as it was before is trained
on to predict the lines that this gives, text, wording and label; and is then tuned on the few again:

    etude train sft -m MODEL -t few.jsonl --out tuned
    etude data make pcp -m tuned -t unlabelled.jsonl --out lines
    etude train sft -m MODEL -t lines/data.jsonl --out continued
    etude train sft -m continued/model -t few.jsonl
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from etude.data.filters import answered, different
from etude.data.items import Item
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.recipe import Paper
from etude.rollout.attempts import answer_of
from etude.settings import Setting, stage
from etude.tasks.asked import asked as question
from etude.tasks.unlabelled import unlabelled

ASKED = "Write the text that comes to mind."


def pcp(
    labels: Annotated[
        str,
        Setting(
            "the model's own labels; the gold ones (an upper bound); its own, dealt out at random; none (task-adaptive pre-training)",
            choices=("own", "gold", "dealt", "none"),
        ),
    ] = "own",
    line: Annotated[
        str, Setting("a line, in which {text} and {label} stand for what they say")
    ] = "{text} {label}",
    asked: Annotated[str, Setting("the prompt of every line, the same for all")] = ASKED,
) -> Callable[[Workshop], list[Item]]:
    """A line of every task."""
    if "{text}" not in line or (labels != "none" and "{label}" not in line):
        raise UserError(f"pcp.line is '{line}'; it must hold {{text}} and {{label}}")

    def make(shop: Workshop) -> list[Item]:
        held = {
            question(task) for task in shop.held
        }  # a line says what it is about, so the question is looked for here
        tasks = [task for task in shop.drawn(shop.wanted) if question(task) not in held]
        texts = [task.prompt[-1].content for task in tasks]
        if labels in ("own", "dealt"):
            replies = shop.said([list(task.prompt) for task in tasks], "labels", greedy=True)
            given = [answer_of(unlabelled(t), r) or r.strip() for t, r in zip(tasks, replies, strict=True)]
            rights = shop.judged(list(zip(tasks, replies, strict=True)))
            shop.sieve.counts.append(("labels that are right, for information", len(tasks), sum(rights)))
        else:
            given = [task.answer or "" if labels == "gold" else "" for task in tasks]
        if labels == "dealt":
            given = [given[i] for i in shop.random("dealt").permutation(len(given))]
        items = []
        for task, text, label in zip(tasks, texts, given, strict=True):
            if label or labels == "none":
                said = line.replace("{label}", label).replace("{text}", text).rstrip()
                row = {"prompt": asked, "answer": said, "reference": said, "kind": task.kind}
                came = {"source": shop.spec, "parent": task.key, "label": label}
                items.append(
                    Item(row, {**came, "writer": shop.scribe("policy").name if labels == "own" else labels})
                )
        shop.sieve.items = items
        shop.sieve.counts.append(
            ("texts with a label" if labels != "none" else "texts", len(tasks), len(items))
        )
        return shop.sieve.through("empty ones", answered).through("the same", different).items

    return make


RECIPE = DataRecipe(
    name="pcp",
    verb=MAKE,
    build=stage(pcp),
    paper=Paper("Don't Stop Pretraining? Make Prompt-based Fine-tuning Powerful Learner", "2305.01711", 2023),
    idea="Going on with pre-training on texts of a task helps little by itself. It helps where the texts stand in the wording in which the "
    "model will be asked, with labels that the model, tuned on a few examples, gave them.",
    departures=(
        "next-token prediction of whole lines by a causal model, where the paper fills masks",
        "every line is the answer to one and the same prompt, since a chat model's texts stand in turns",
        "soft prompts, whose template is learnt, are left out",
    ),
    needs=("policy",),
)
