"""SELF-GUIDE: a model writes its own training set from a handful of demonstrations.

Zhao et al., arXiv 2407.12874. The model invents inputs, few-shot, from the demonstrations and the inputs that it invented before; it
answers them by in-context learning with the demonstrations; what is noise, or of unusual length (mean +- 2 std of the demonstrations),
is thrown away. For classification a label is drawn first and an input of that label asked for, so that labels are balanced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from etude.data.filters import (
    answered,
    different,
    held_out,
    nearly_different,
    usual_length,
    where,
    without_boilerplate,
)
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.types import Message

MARK = "Input:"


def self_guide(
    shown: Annotated[int, Setting("demonstrations in a prompt", low=1, high=64)] = 4,
    instruction: Annotated[str, Setting("what the task is, in words; empty: the demonstrations say it")] = "",
    labels: Annotated[
        bool, Setting("the answers are labels: one is drawn, and an input of it asked for")
    ] = False,
    temperature: Annotated[float, Setting("sampling temperature of inputs", low=0.01, high=10)] = 1.0,
    reach: Annotated[
        float, Setting("standard deviations from the demonstrations' mean length", low=0.1, high=100)
    ] = 2.0,
    near: Annotated[
        float,
        Setting("similarity at which an input is as good as another; 1: only the same", low=0.1, high=1),
    ] = 0.8,
) -> Callable[[Workshop], list[Item]]:
    """New (input, output) pairs in the manner of the tasks, which are the demonstrations."""

    def make(shop: Workshop) -> list[Item]:
        demonstrations = [of_task(t, shop.spec) for t in shop.drawn(10_000)]
        if len(demonstrations) < 2:
            raise UserError("self_guide needs two demonstrations at least, as rows of the task file")
        rng = shop.random("self_guide")
        drawn: list[tuple[str, str]] = []  # input, label
        rounds = 0
        while len(drawn) < shop.wanted and rounds < 4:
            prompts, asked = [], []
            for _ in range(shop.wanted - len(drawn)):
                some = [demonstrations[i] for i in rng.permutation(len(demonstrations))[:shown]]
                known = [i.prompt for i in some] + [text for text, _ in drawn[-shown:]]
                label = ""
                if labels:
                    kinds = sorted({i.text for i in demonstrations})
                    label = kinds[rng.integers(len(kinds))]
                    known = [i.prompt for i in demonstrations if i.text == label][:shown]
                prompts.append([Message("user", _ask_input(instruction, known, label))])
                asked.append(label)
            replies = shop.said(prompts, f"inputs {rounds}", temperature=temperature, stop=("\n\n",))
            found = [(_read_input(text), label) for text, label in zip(replies, asked, strict=True)]
            drawn += [(text, label) for text, label in found if text]
            rounds += 1
        few = demonstrations[:shown]
        answers = shop.said(
            [_with_demonstrations(instruction, few, text) for text, _ in drawn], "outputs", greedy=True
        )
        items = [
            Item(
                {"prompt": text, "answer": answer.strip(), "kind": demonstrations[0].row["kind"]},
                {
                    "source": shop.spec,
                    "writer": shop.scribe("policy").name,
                    **({"label": label} if label else {}),
                },
            )
            for (text, label), answer in zip(drawn, answers, strict=True)
        ]
        shop.sieve.items = items
        known_labels = {i.text for i in demonstrations}
        sieve = shop.sieve.through("empty ones", answered).through("boilerplate", without_boilerplate)
        sieve.through("demonstrations once more", held_out(demonstrations))
        if labels:
            sieve.through("answers that are no label", where(lambda i: i.text in known_labels))
        sieve.through(
            "inputs of unusual length",
            usual_length([i.prompt for i in demonstrations], lambda i: i.prompt, reach),
        )
        sieve.through(
            "outputs of unusual length",
            usual_length([i.text for i in demonstrations], lambda i: i.text, reach),
        )
        return (
            sieve.through("the same", different)
            .through("nearly the same inputs", nearly_different(near))
            .items
        )

    return make


def _ask_input(instruction: str, known: list[str], label: str) -> str:
    listed = "\n".join(f"{MARK} {' '.join(text.split())}" for text in known)
    of = f' whose answer is "{label}"' if label else ""
    return f"{instruction}\n\nHere are inputs{of}.\n{listed}\n\nWrite one more input{of} that is different.".strip()


def _read_input(text: str) -> str:
    """The first line that holds an input, without its mark."""
    for line in text.splitlines():
        said = line.strip().removeprefix(MARK).strip().strip('"')
        if said:
            return said
    return ""


def _with_demonstrations(instruction: str, shown: list[Item], text: str) -> list[Message]:
    said: list[Message] = [Message("system", instruction)] if instruction else []
    for item in shown:
        said += [Message("user", item.prompt), Message("assistant", item.text)]
    return [*said, Message("user", text)]


RECIPE = DataRecipe(
    name="self_guide",
    verb=MAKE,
    build=stage(self_guide),
    paper=Paper(
        "SELF-GUIDE: Better Task-Specific Instruction Following via Self-Synthetic Finetuning",
        "2407.12874",
        2024,
    ),
    idea="From a few demonstrations the model invents inputs, answers them with the demonstrations in view, and is trained on what "
    "passes the filters, without the demonstrations.",
    departures=(
        "the wording of prompts is this package's own; the paper tunes numbers and filters by random search on development tasks",
        "nearly equal inputs are thrown away by MinHash, which the paper does not say",
    ),
)
