"""Self-specialisation: a model answers with passages in view, and learns to answer without them.

Kang et al., arXiv 2310.00160. For each question of a domain the passages of an unlabelled corpus that fit it best (BM25) stand in the
prompt while the model answers; the item keeps question and answer alone. Training on it moves what stood in the passages into the
weights (context distillation). Without passages it is self-labelling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from etude.data.filters import answered, different, nearly_different, unrepeating, without_boilerplate
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.tools.retrieval import CorpusFolder, corpus_of
from etude.types import Message, Task

AROUND = "{passages}\n\nWith what stands above, answer.\n\n{question}"


def shown(task: Task, passages: list[str]) -> list[Message]:
    """The prompt with passages before its last message; as it is without any."""
    *before, last = task.prompt
    if not passages:
        return [*before, last]
    return [*before, Message(last.role, AROUND.format(passages="\n\n".join(passages), question=last.content))]


def grounded(
    corpus: CorpusFolder = "",
    passages: Annotated[int, Setting("passages in view", low=0, high=64)] = 3,
    right: Annotated[bool, Setting("keep right answers alone, where the tasks have a check")] = False,
    near: Annotated[
        float,
        Setting("similarity at which a question is as good as another; 1: only the same", low=0.1, high=1),
    ] = 1.0,
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 0.7,
) -> Callable[[Workshop], list[Item]]:
    """Answers that were written with passages of the corpus in view, without them."""

    def make(shop: Workshop) -> list[Item]:
        known, tasks = corpus_of(corpus), shop.drawn(shop.wanted)
        found = [known.best(t.prompt[-1].content, passages) if known and passages else [] for t in tasks]
        prompts = [shown(task, some) for task, some in zip(tasks, found, strict=True)]
        texts = shop.said(prompts, "grounded", temperature=temperature)
        rights = shop.judged(list(zip(tasks, texts, strict=True))) if right else [True] * len(tasks)
        shop.sieve.items = [
            of_task(task, shop.spec)
            .but(reference=text.strip())
            .noted(writer=shop.scribe("policy").name, passages=len(some))
            for task, text, some, good in zip(tasks, texts, found, rights, strict=True)
            if good
        ]
        said = "answers that the check accepts" if right else "answers"
        shop.sieve.counts.append((said, len(tasks), len(shop.sieve.items)))
        sieve = shop.sieve.through("empty ones", answered).through("boilerplate", without_boilerplate)
        sieve.through("answers that repeat themselves", unrepeating()).through("the same", different)
        return (
            sieve.through("nearly the same questions", nearly_different(near)).items
            if near < 1
            else sieve.items
        )

    return make


RECIPE = DataRecipe(
    name="grounded",
    verb=MAKE,
    build=stage(grounded),
    paper=Paper(
        "Self-Specialization: Uncovering Latent Expertise within Large Language Models", "2310.00160", 2023
    ),
    idea="The model answers questions of a domain with fitting passages of a corpus in view. It is then trained on the answers without the "
    "passages, so that it needs them no longer.",
    departures=(
        "questions are given, not invented (for that: self_guide); passages are found by BM25",
        "whether passages stay in the prompt when training was not certain; they do not",
    ),
    needs=("answers",),
)
