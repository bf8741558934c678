"""HDS-QA: questions that need several searches at once, and one after them.

Ko et al., arXiv 2508.19113. Of a simple question whose answer is known the thing that it is about is named; a corpus tells several things about that
thing, each in a passage of its own. The question is asked anew without its name: whoever answers has to find it by all of these things (searches that
do not depend on each other), and then what the question asks about it (a search that does). Questions that the model answers without looking
anything up are left out.

    etude data make hybrid_hops -m MODEL -t QUESTIONS --set hybrid_hops.corpus=FOLDER -n 200 --out hops
    etude train hybrid_deep_searcher -m MODEL -t hops/data.jsonl --tools search:FOLDER
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

from etude.data.filters import different
from etude.data.items import Item, messages, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.tools.retrieval import CorpusFolder, corpus_of
from etude.types import Message, Task

ENTITY = "Question: {question}\n\nWhich one person, place or thing is this question about? Copy its name from the question, and nothing else."
ATTRIBUTE = (
    "{passage}\n\nSay in a few words one thing that this tells about {entity}, to go on after 'the one that'. Do not name it: write nothing of its name. "
    "Where it tells nothing, reply 'nothing'."
)
NOTHING = "nothing"


def described(attributes: Sequence[str]) -> str:
    """The thing, by what is known of it."""
    *most, last = attributes
    return f"the one that {', that '.join(most)} and that {last}"


def names(text: str, entity: str) -> bool:
    """Whether a text holds a word of the name that begins with a capital, or all of a name without one."""
    parts = [w for w in re.findall(r"\w+", entity) if w[0].isupper()] or [entity]
    return any(re.search(rf"\b{re.escape(part)}\b", text, re.IGNORECASE) for part in parts)


def hybrid_hops(
    corpus: CorpusFolder = "",
    attributes: Annotated[int, Setting("things by which the entity must be found", low=2, high=8)] = 3,
    passages: Annotated[int, Setting("passages about it that are read", low=2, high=64)] = 8,
    known_to: Annotated[
        int,
        Setting(
            "answers of the model without a search; a question that one of them solves is left out",
            low=0,
            high=64,
        ),
    ] = 4,
    writer: Annotated[str, Setting("who names and describes", choices=("policy", "teacher"))] = "policy",
) -> Callable[[Workshop], list[Item]]:
    """Questions about something that is told by what is known of it."""
    texts = corpus_of(corpus)

    def make(shop: Workshop) -> list[Item]:
        if texts is None:
            raise UserError("hybrid_hops needs texts: --set hybrid_hops.corpus=FOLDER of .txt files")
        tasks = shop.drawn(shop.wanted)
        asked = [[Message("user", ENTITY.format(question=t.prompt[-1].content))] for t in tasks]
        entities = [_clean(text) for text in shop.said(asked, "entity", writer, greedy=True)]
        about = [(t, e) for t, e in zip(tasks, entities, strict=True) if e and e in t.prompt[-1].content]
        shop.sieve.counts.append(("a name that stands in the question", len(tasks), len(about)))
        found = [(t, e, p) for t, e in about for p in texts.best(e, passages) if names(p, e)]
        prompts = [[Message("user", ATTRIBUTE.format(passage=p, entity=e))] for _, e, p in found]
        said = [_clean(text) for text in shop.said(prompts, "attribute", writer, greedy=True)]
        things = [(t, e, _different(t, e, found, said)) for t, e in about]
        enough = [(t, _item(shop, t, e, told)) for t, e, told in things if len(told) == attributes]
        shop.sieve.counts.append((f"{attributes} things known of it", len(things), len(enough)))
        kept = _unknown(shop, enough) if known_to else enough
        shop.sieve.items = [item for _, item in kept]
        return shop.sieve.through("the same", different).items

    def _different(
        task: Task, entity: str, found: Sequence[tuple[Task, str, str]], said: Sequence[str]
    ) -> list[str]:
        """What passages tell of an entity, each thing once, without its name and without the answer."""
        mine = [a for (t, e, _), a in zip(found, said, strict=True) if t is task and e == entity]
        fit = [a for a in mine if a and a.lower() != NOTHING and not names(a, entity)]
        return [a for a in dict.fromkeys(fit) if not names(a, task.answer or "")][:attributes]

    def _item(shop: Workshop, task: Task, entity: str, things: Sequence[str]) -> Item:
        *before, last = task.prompt
        asked = replace(last, content=last.content.replace(entity, described(things), 1))
        item = of_task(replace(task, prompt=(*before, asked), reference=None), shop.spec)
        return item.noted(writer=shop.scribe(writer).name, entity=entity, parent=task.key)

    def _unknown(shop: Workshop, made: Sequence[tuple[Task, Item]]) -> list[tuple[Task, Item]]:
        """Those that the model never answers right without a search."""
        tried = shop.attempts([replace(t, prompt=tuple(messages(i))) for t, i in made], known_to)
        kept = [
            pair for pair, episodes in zip(made, tried, strict=True) if not any(e.correct for e in episodes)
        ]
        shop.sieve.counts.append(("not solved without a search", len(made), len(kept)))
        return kept

    return make


def _clean(text: str) -> str:
    """The first line, without quotes and a full stop."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0].strip("\"'`*. ") if lines else ""


RECIPE = DataRecipe(
    name="hybrid_hops",
    verb=MAKE,
    build=stage(hybrid_hops),
    paper=Paper(
        "Hybrid Deep Searcher: Integrating Parallel and Sequential Search Reasoning", "2508.19113", 2025
    ),
    idea="A question names what it is about, so one search is enough. Where it tells several things about it instead, each of which stands somewhere else, these are searched for at "
    "once, and what was asked comes after.",
    departures=(
        "things known of an entity come from passages of a corpus that name it, each read by itself; in the paper from documents that a web search finds for related questions",
        "the name is replaced by a rule, in the paper the question is written anew by a model",
        "kept where the model never answers without a search; the paper asks that both parts need one",
        "GUESS: three things, eight passages, four answers",
    ),
    needs=("answers",),
)
