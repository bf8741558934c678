"""Speculative thinking (Yang et al., arXiv 2504.12329): a small model writes, and a large one takes over for a few sentences
where the small one hesitates.

The small model writes up to the end of a paragraph, then drafts d more tokens. Where the draft agrees with itself ("yes", "so
the answer is") or doubts ("wait", "alternatively") the large model writes those d tokens from the same place instead, and
n_1 more where it says that it checks something. What neither agrees nor doubts is left to the small model.
"""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.conversation import Conversation
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage

POSITIVE = ("yes", "final answer", "confident", "therefore the answer")
NEGATIVE = ("wait", "alternatively", "hold on", "another")
VERIFY = ("verify", "think again", "recap", "check")

Drafted = Annotated[
    int, Setting("d, tokens drafted after a paragraph, and written instead by run.teacher", "tokens", low=1)
]
Verified = Annotated[
    int, Setting("n_1, more tokens of run.teacher where it checks something", "tokens", low=0)
]
Paragraph = Annotated[str, Setting("text that ends a paragraph")]
Turns = Annotated[int, Setting("paragraphs looked at", low=1)]


def speculative_thinking(
    drafted: Drafted = 20, verified: Verified = 125, paragraph: Paragraph = "\n\n", turns: Turns = 16
) -> Answering:
    """One answer, written by the policy and, where it hesitates, by run.teacher."""

    async def method(session: Session) -> Draft:
        small, large = session.generator(), session.generator("teacher")
        line, parent = session.line("sample", 0), None
        for turn in range(turns):
            said = await session.go_on(line, parent, "small", until=paragraph)
            session.offer(said)
            if line.stop != "cut":
                return said
            draft = await session.go_on(line.fork(turn), said.node, "draft", max_tokens=drafted)
            words = draft.text[len(said.text) :]
            if label(words) == 0:
                line, parent = _open(line), said.node  # the draft is dropped, the small model goes on
                continue
            line.generator = large
            taken = await session.go_on(line, said.node, "large", max_tokens=drafted)
            if _has(taken.text[len(said.text) :], VERIFY) and verified and line.stop == "length":
                taken = await session.go_on(_open(line), taken.node, "large, checking", max_tokens=verified)
            line.generator, parent = small, taken.node
            if session.offer(taken).whole:
                return taken
            line = _open(line)
        return await session.go_on(line, parent, "small")

    return answering(method, reads=["teacher"])


def _open(line: Conversation) -> Conversation:
    line.stop = "cut"
    return line


def label(text: str) -> int:
    """+1 where the words agree more than they doubt or check, -1 where they doubt or check at least as much, 0 where they
    do neither."""
    positive, doubting = _count(text, POSITIVE), _count(text, (*NEGATIVE, *VERIFY))
    if not positive and not doubting:
        return 0
    return 1 if positive > doubting else -1


def _count(text: str, words: tuple[str, ...]) -> int:
    low = text.casefold()
    return sum(low.count(word) for word in words)


def _has(text: str, words: tuple[str, ...]) -> bool:
    return _count(text, words) > 0


TAKEN = "one\n\nit i so 7"


def _taken_over() -> list[object]:
    """A paragraph, a draft that doubts, the large model's words in its place, and the small model to the end."""
    found = answered(
        RECIPE, "one\n\nwait", " so 7", teacher=["it is"], settings={"drafted": 4}, max_tokens=1000
    )
    return [found.text, [s.tag for s in found.episode.spans if s.sampled], sorted(found.spent["models"])]


RECIPE: Recipe = Recipe(
    name="speculative_thinking",
    paper=Paper(
        "Speculative Thinking: Enhancing Small-Model Reasoning with Large Model Guidance at Inference Time",
        "2504.12329",
        2025,
    ),
    idea="A small model thinks, and where it begins to hesitate or to agree with itself a larger one writes the next few words. "
    "Most tokens are the small model's, the turns that decide are the large one's. The two continue one text.",
    equation="label(draft) = sign(#agree - #doubt - #check); label != 0: y_{t:t+d} ~ pi_large( . | x, y_<t)",
    stages={"rollout": stage(speculative_thinking)},
    default_base=RFT,
    needs=("text", "teacher"),
    defaults={"group_size": 1},
    departures=(
        "the words that agree, doubt and check are few and ours in part; the release has longer lists",
        "no sentence is put in after many doubts (n_3 of the release), and no beginning by the large model for small models that do not reason",
    ),
    claim="More accurate than the small model alone, with few tokens of the large one.",
    examples=(
        ByHand(
            "the large model's words in place of a draft that doubts",
            lambda: [
                float(x == y)
                for x, y in zip(
                    _taken_over(), (TAKEN, ["small", "large", "small"], ["policy", "teacher"]), strict=True
                )
            ],
            [1, 1, 1],
        ),
        ByHand(
            "agrees, doubts, both, checks, neither",
            lambda: [
                label(t) for t in ("Yes, the final answer", "Wait.", "Yes, wait", "let me check", "3+4")
            ],
            [1, -1, -1, -1, 0],
        ),
    ),
)
