"""DRAFT: the documentation of tools is rewritten by a model that tries them; nothing is trained.

From Exploration to Mastery: Enabling LLMs to Master Tools via Self-Driven Interactions (arXiv 2410.08197; released code: `DRAFT.py`).
For each tool an explorer makes up a request and a call, unlike the earlier ones; an analyst says what the documentation should say in view of
what came of it; a writer writes it anew and advises what to try next. It ends where two versions hardly differ. The new documentation is
read in the place of the old one: `--set run.tool_docs=FILE`.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

from etude.data.filters import answered
from etude.data.items import Item
from etude.data.recipe import MAKE, DataRecipe
from etude.data.trials import Trials, described, one_line
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.event_loop import run as run_coroutine
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.tools.tool import Tool

TRIES = 3  # to find a request that is not like the earlier ones

EXPLORE = (
    "Here is the documentation of a tool.\n\n{tool}\n\nMake up a request of a user that it helps to fulfil, to see how it behaves. Write the request on "
    "the first line, and the call for it below: {form}"
)
EXPLORED = "\n\nRequests so far:\n{requests}\n\nAdvice: {advice}\n\nTry something that they do not show."
TOO_LIKE = "\n\nThe request '{request}' is too like the earlier ones; make up another."
ANALYSE = (
    "Here is the documentation of a tool.\n\n{tool}\n\nA call of it:\n{call}\nWhat came of it:\n{result}\n\nWhat should the documentation say that it does not, "
    "and what of it is wrong? Answer in short sentences."
)
WRITE = (
    "Here is the documentation of a tool.\n\n{tool}\n\nA call of it:\n{call}\nWhat came of it:\n{result}\n\nWhat should be changed:\n{suggestions}\n\nWrite the "
    "description anew, in one paragraph after 'Description:', and on the last line after 'Next:' what to try next."
)
HISTORY = "\n\nEarlier descriptions:\n{history}"


@dataclass
class Draft:
    """The documentation of a tool in the making."""

    tool: Tool
    versions: list[str]
    requests: list[str] = field(default_factory=list)
    advice: str = "none"
    failed: int = 0  # calls that failed
    change: float = 0.0  # likeness of the last two versions

    @property
    def now(self) -> Tool:
        return replace(self.tool, description=self.versions[-1])

    @property
    def history(self) -> str:
        return HISTORY.format(history="\n".join(self.versions)) if len(self.versions) > 1 else ""


def draft(
    rounds: Annotated[int, Setting("times that a tool is tried at most", low=0, high=100)] = 5,
    like: Annotated[
        float, Setting("likeness at which a request is one that was tried", low=0, high=1.01)
    ] = 0.9,
    settled: Annotated[
        float, Setting("likeness of two versions above which the tool is done", low=0, high=1.01)
    ] = 0.75,
    who: Annotated[
        str, Setting("who explores, analyses and writes", choices=("policy", "teacher"))
    ] = "policy",
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 0.2,
) -> Callable[[Workshop], list[Item]]:
    """A row for each tool: its name and its new description."""

    def make(shop: Workshop) -> list[Item]:
        writer = Trials(shop, who, {"temperature": temperature})
        tools = list(writer.tools("names").values())

        async def everything() -> list[Draft]:
            return list(await asyncio.gather(*(mastered(writer, t, rounds, like, settled) for t in tools)))

        made = run_coroutine(everything())
        shop.sieve.items = [
            Item(
                {
                    "prompt": described(d.tool),
                    "answer": d.versions[-1],
                    "kind": d.tool.name,
                    "tool": d.tool.name,
                },
                {
                    "source": d.tool.name,
                    "writer": shop.scribe(who).name,
                    "rounds": len(d.versions) - 1,
                    "failed_calls": d.failed,
                    "likeness": d.change,
                },
            )
            for d in made
        ]
        changed = sum(d.versions[-1] != d.tool.description for d in made)
        shop.sieve.counts.append(("tools, of which so many have other documentation now", len(made), changed))
        return shop.sieve.through("empty ones", answered).items

    return make


async def mastered(writer: Trials, tool: Tool, rounds: int, like: float, settled: float) -> Draft:
    """The documentation after the last round."""
    work = Draft(tool, [tool.description])
    for number in range(rounds):
        call, result = await _explored(writer, work, number, like)
        facts = {"tool": described(work.now), "call": call, "result": result}
        name = ("draft", tool.name, number)
        suggestions = await writer.say([], ANALYSE.format(**facts) + work.history, *name, "analyst")
        asked = WRITE.format(**facts, suggestions=suggestions.strip() or "nothing") + work.history
        text, work.advice = read_version(await writer.say([], asked, *name, "writer"))
        work.versions.append(text or work.versions[-1])
        work.change = likeness(*work.versions[-2:])
        if work.change > settled:
            break
    return work


async def _explored(writer: Trials, work: Draft, number: int, like: float) -> tuple[str, str]:
    """A call that was tried, and what came of it."""
    name, offer = ("draft", work.tool.name, number), writer.told(work.now)
    asked = EXPLORE.format(tool=described(work.now), form=offer.syntax.tell(offer.tools))
    if work.requests:
        asked += EXPLORED.format(requests="\n".join(work.requests), advice=work.advice)
    for attempt in range(TRIES if work.requests else 1):
        text = await writer.say([], asked, *name, "explorer", attempt, ends=offer.ends)
        request = one_line(text)
        if all(cosine(request, before) < like for before in work.requests):
            break
        asked += TOO_LIKE.format(request=request)
    work.requests.append(request)
    heard = await writer.call(writer.session(*name), offer, text)
    if heard is None:
        work.failed += 1
        return text.strip() or "nothing", "Error: no call could be read"
    work.failed += heard[2]
    call = offer.calls(text)[0]
    return (offer.write("", [call]) if not hasattr(call, "why") else text.strip()), heard[1]


def read_version(text: str) -> tuple[str, str]:
    """What stands behind "Description:", in one line, "" where nothing does, and behind "Next:"."""
    before, _, advice = text.partition("Next:")
    _, found, description = before.rpartition("Description:")
    return " ".join(description.split()) if found else "", one_line(advice) or "none"


def words(text: str) -> list[str]:
    return text.lower().split()


def cosine(one: str, other: str) -> float:
    """Of the counts of words of two texts."""
    a, b = Counter(words(one)), Counter(words(other))
    length = math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(n * b[word] for word, n in a.items()) / length if length else 0.0


def likeness(before: str, after: str) -> float:
    """(BLEU + cosine) / 2, BLEU smoothed by method 4 of Chen and Cherry. UserError without NLTK."""
    try:
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    except ImportError:
        raise UserError("draft compares versions with NLTK; pip install 'etude[data]'") from None
    if not words(before) or not words(after):
        return float(words(before) == words(after))
    bleu = sentence_bleu([words(before)], words(after), smoothing_function=SmoothingFunction().method4)
    return (float(bleu) + cosine(before, after)) / 2


RECIPE = DataRecipe(
    name="draft",
    verb=MAKE,
    build=stage(draft),
    paper=Paper(
        "From Exploration to Mastery: Enabling LLMs to Master Tools via Self-Driven Interactions",
        "2410.08197",
        2024,
    ),
    idea="A model tries a tool, compares what came of it with what the documentation promised, and writes the documentation anew, until it "
    "hardly changes. Any model reads the new one; no weights are changed.",
    departures=(
        "likeness of texts is the cosine of their word counts, where the release asks for embeddings of a remote model",
        "the tool-level summary that the release writes at last has no place here, since every tool is one function",
        "prompts of this package's own; a call that cannot be read is what came of it, and a version without its mark leaves the old one",
    ),
    needs=("tools",),
)
