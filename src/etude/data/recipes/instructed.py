"""Many tasks, one model: every data set is put behind an instruction that says which task it is.

In-BoXBART (Parmar et al., arXiv 2204.07600). Each file is a task. Its items become

    Definition: what to do       Prompt: a short command       Examples: a few inputs with outputs       Input: x

with the output as before, and all are shuffled into one training set. Tasks that ask different things about the same inputs can be told
apart by the instruction alone. Without instructions (`instructed.schema=false`) it is the multi-task baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from etude import seeds
from etude.data.items import Item
from etude.data.recipe import MIX, DataRecipe
from etude.data.recipes.stages import Mixed, shuffled
from etude.errors import UserError
from etude.recipe import Paper
from etude.settings import Setting, stage


def posed(x: str, definition: str, command: str, examples: Sequence[Item], longest: int) -> tuple[str, int]:
    """What is asked with an input x, and how many of the examples are shown: so many that it has at most `longest` words (0: no bound),
    the last left out first."""
    head = [f"Definition: {definition}"] if definition else []
    head += [f"Prompt: {command}"] if command else []
    for number in range(len(examples), -1, -1):
        shown = [
            f"Example {i}\nInput: {e.prompt}\nOutput: {e.text}" for i, e in enumerate(examples[:number], 1)
        ]
        parts = [*head, *shown]
        text = "\n\n".join([*parts, f"Input: {x}\nOutput:"]) if parts else x
        if not longest or len(text.split()) <= longest:
            return text, number
    return text, 0


def instructed(
    definitions: Annotated[tuple[str, ...], Setting("what is to be done, one text a file, joined by ;")] = (),
    commands: Annotated[tuple[str, ...], Setting("a short command, one text a file, joined by ;")] = (),
    examples: Annotated[
        int, Setting("items of each file that are shown as examples, and not trained on", low=0, high=100)
    ] = 2,
    each: Annotated[
        int, Setting("items of each file that are trained on; 0: all", low=0, high=1_000_000)
    ] = 0,
    longest: Annotated[
        int, Setting("longest question, examples included; 0: no bound", "words", low=0)
    ] = 768,
    schema: Annotated[bool, Setting("instructions stand before the inputs")] = True,
) -> Mixed:
    """All files in one stage, shuffled."""

    def mix(parts: Sequence[list[Item]], seed: int) -> Mapping[str, list[Item]]:
        for name, texts in (("definitions", definitions), ("commands", commands)):
            if texts and len(texts) != len(parts):
                raise UserError(
                    f"instructed.{name} holds {len(texts)} texts for {len(parts)} files; give one a file"
                )
        made: list[Item] = []
        for number, items in enumerate(parts):
            order = seeds.generator(seed, "mix", "instructed", number).permutation(len(items))
            shown, rest = [items[i] for i in order[:examples]], [items[i] for i in order[examples:]]
            if not rest:
                raise UserError(
                    f"file {number + 1} holds {len(items)} items, of which {examples} are shown as examples; none is left to "
                    "train on"
                )
            for item in rest[: each or None]:
                if not schema:
                    made.append(item.noted(task=number))
                    continue
                text, kept = posed(
                    item.prompt,
                    definitions[number] if definitions else "",
                    commands[number] if commands else "",
                    shown,
                    longest,
                )
                said = item.row["prompt"]
                prompt = text if isinstance(said, str) else [*said[:-1], {**said[-1], "content": text}]
                made.append(item.but(prompt=prompt).noted(task=number, examples=kept))
        return {"instructed": shuffled(made, seed, "instructed")}

    return mix


RECIPE = DataRecipe(
    name="instructed",
    verb=MIX,
    build=stage(instructed),
    paper=Paper("In-BoXBART: Get Instructions into Biomedical Multi-Task Learning", "2204.07600", 2022),
    idea="One model learns many tasks. Before every input stands what its task is: a definition, a short command and a few examples.",
    departures=(
        "built from memory of the paper; its 32 biomedical data sets are the user's own files here",
        "a causal model reads and writes, where the paper has an encoder and a decoder",
        "examples are drawn of each file, once, and are not trained on; the paper's are written by hand, some with explanations",
    ),
)
