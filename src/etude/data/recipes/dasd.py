"""Distribution-aligned sequence distillation: of a teacher's answers those from which the student has most to learn.

DASD (arXiv 2601.09088) and its report (D2I-ai/dasd-thinking). Every answer is cut into sentences; with p_T and p_S the geometric mean
probabilities of a sentence's tokens under teacher and student, a sentence is the teacher's where p_T > ratio p_S. Of several answers to a
question the one with the largest share of such sentences is kept (`dasd`). Low temperatures first, then high ones, which are harder to
learn; at last `dasd_mixed`, the student's own answers, of which those that were cut off are gone on with by the teacher:

    etude data make dasd -m STUDENT --teacher TEACHER -t TASKS --set dasd.temperature=0.6 --out cold
    etude data make dasd -m STUDENT --teacher TEACHER -t TASKS --out warm
    etude data make dasd_mixed -m STUDENT --teacher TEACHER -t TASKS --out mixed
    etude data mix in_order cold/data.jsonl warm/data.jsonl mixed/data.jsonl --out stages
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np

from etude.data.filters import answered, different, unrepeating
from etude.data.items import Item, of_task
from etude.data.recipe import MAKE, DataRecipe
from etude.data.workshop import Workshop, losses
from etude.errors import UserError
from etude.models.policy import Policy
from etude.recipe import Paper
from etude.rollout.probe import text_ends
from etude.settings import Setting, stage
from etude.types import Array, Task

_END = re.compile(r"[.!?](?=\s|$)\s*|\n+")
PAPER = Paper(
    "Distribution-Aligned Sequence Distillation for Superior Long-CoT Reasoning", "2601.09088", 2026
)
Right = Annotated[bool, Setting("keep right answers alone")]


def sentence_ends(text: str) -> list[int]:
    """Numbers of characters after which a sentence is over; the last is the text's length."""
    ends = [m.end() for m in _END.finditer(text)]
    return ends if ends and ends[-1] == len(text) else [*ends, len(text)]


def sentence_logp(logp: Array, ends: Array, sentences: Sequence[int]) -> Array:
    """f64[k], NaN where a sentence has no token: the mean log-probability of the tokens of each sentence. int64[n] `ends`: characters
    after each token, which belongs to the sentence that its last character is in."""
    at = np.searchsorted(np.asarray(sentences), np.maximum(ends, 1), side="left").clip(max=len(sentences) - 1)
    number = np.bincount(at, minlength=len(sentences))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.bincount(at, logp, minlength=len(sentences)) / number
    return found


def teachers_share(teacher: Array, student: Array, ratio: float) -> float:
    """The share of sentences that the teacher finds more than `ratio` times as likely a token; f64[k] mean log-probabilities."""
    known = ~(np.isnan(teacher) | np.isnan(student))
    return float(np.mean(teacher[known] - student[known] > math.log(ratio))) if known.any() else 0.0


def by_sentence(policy: Policy, items: Sequence[Item]) -> list[Array]:
    """`sentence_logp` of each item's text."""
    found, tokenizer = [], policy.renderer.tokenizer
    for item, row in zip(items, losses(policy, items), strict=True):
        tokens = tokenizer.encode(item.text)
        found.append(
            sentence_logp(-row[: len(tokens)], text_ends(tokenizer, tokens), sentence_ends(item.text))
        )
    return found


def local(shop: Workshop) -> Policy:
    """The teacher's own probabilities. UserError for a remote one."""
    generator = shop.scribe("teacher").generator
    if generator is None:
        raise UserError("dasd reads the teacher's probabilities; name a local model by --teacher")
    found: Policy = generator.sampler.policy
    return found


def dasd(
    candidates: Annotated[
        int, Setting("answers to each question, of which one is kept", low=1, high=1_000)
    ] = 4,
    temperature: Annotated[float, Setting("the teacher's temperature", low=0.01, high=10)] = 1.0,
    ratio: Annotated[
        float, Setting("how many times as likely the teacher must find a sentence, a token", low=1, high=1e6)
    ] = 1.5,
    right: Right = False,
) -> Callable[[Workshop], list[Item]]:
    """One answer of the teacher to each question."""

    def make(shop: Workshop) -> list[Item]:
        student, teacher = shop.own, local(shop)
        tasks = [task for task in shop.drawn(shop.wanted) for _ in range(candidates)]
        replies = shop.said([list(t.prompt) for t in tasks], "dasd", "teacher", temperature=temperature)
        shop.sieve.items = [written(shop, t, r, "teacher") for t, r in zip(tasks, replies, strict=True)]
        clean(shop, tasks, replies, right)
        items = shop.sieve.items
        shares = (
            [
                teachers_share(t, s, ratio)
                for t, s in zip(by_sentence(teacher, items), by_sentence(student, items), strict=True)
            ]
            if items
            else []
        )
        best: dict[str, tuple[float, Item]] = {}
        for item, share in zip(items, shares, strict=True):
            name = str(item.came["parent"])
            if name not in best or share > best[name][0]:
                best[name] = (share, item.noted(teacher_share=round(share, 4)))
        kept = [item for _, item in best.values()]
        shop.sieve.counts.append(
            ("of each question the answer with most of the teacher's sentences", len(items), len(kept))
        )
        shop.sieve.items = kept
        return kept

    return make


def dasd_mixed(
    own_temperature: Annotated[float, Setting("the student's temperature", low=0.01, high=10)] = 1.0,
    right: Right = False,
) -> Callable[[Workshop], list[Item]]:
    """The student's answers; one that reached the longest length is cut at a random token of its second half, and the teacher goes on."""

    def make(shop: Workshop) -> list[Item]:
        tasks = shop.drawn(shop.wanted)
        tried = shop.attempts(tasks, 1, temperature=own_temperature)
        whole = [(e.task, e.text) for mine in tried for e in mine if e.stop == "end"]
        begun: list[tuple[Task, str]] = []
        for episode in (e for mine in tried for e in mine if e.stop != "end"):
            tokens = shop.own.renderer.tokenizer.encode(episode.text)
            cut = int(shop.random("cut", episode.task.key).integers(len(tokens) // 2, max(len(tokens), 1)))
            begun.append((episode.task, shop.own.renderer.decode(tokens[:cut])))
        ends = shop.continued(begun, "goes on", "teacher") if begun else []
        both = [*whole, *((task, text + end) for (task, text), end in zip(begun, ends, strict=True))]
        writers = ["policy"] * len(whole) + ["both"] * len(begun)
        shop.sieve.items = [written(shop, *pair, who) for pair, who in zip(both, writers, strict=True)]
        shop.sieve.counts.append(
            (f"answers (of which the teacher ended {len(begun)})", len(tasks), len(both))
        )
        clean(shop, [task for task, _ in both], [text for _, text in both], right)
        return shop.sieve.items

    return make


def written(shop: Workshop, task: Task, text: str, who: str) -> Item:
    names = [shop.scribe(w).name for w in (("policy", "teacher") if who == "both" else (who,))]
    return of_task(task, shop.spec).but(reference=text.strip()).noted(writer=" and ".join(names))


def clean(shop: Workshop, tasks: Sequence[Task], texts: Sequence[str], right: bool) -> None:
    """The filters, on the workshop's items."""
    if right:
        good = shop.judged(list(zip(tasks, texts, strict=True)))
        chosen = [item for item, ok in zip(shop.sieve.items, good, strict=True) if ok]
        shop.sieve.through("answers that the check accepts", lambda items: chosen)
    shop.sieve.through("empty ones", answered).through("answers that repeat themselves", unrepeating())
    shop.sieve.through("the same", different)


RECIPES = (
    DataRecipe(
        name="dasd",
        verb=MAKE,
        build=stage(dasd),
        paper=PAPER,
        idea="Of several answers of a teacher the one is kept whose sentences the teacher finds much likelier than the student does: there "
        "is most to learn in it.",
        departures=(
            "how many times as likely a sentence of the teacher's must be is a guess; the report gives no threshold",
            "whether an answer was ended is not asked of the teacher's answers; a tool call cannot occur in them",
        ),
        needs=("policy", "teacher", "answers"),
    ),
    DataRecipe(
        name="dasd_mixed",
        verb=MAKE,
        build=stage(dasd_mixed),
        paper=PAPER,
        idea="The student's own answers, so that it learns in the states that it comes to; those that it did not end are ended by the teacher.",
        departures=(
            "the student writes up to run.max_tokens; the report bounds it by one and a half times the teacher's length",
        ),
        needs=("policy", "teacher", "answers"),
    ),
)
