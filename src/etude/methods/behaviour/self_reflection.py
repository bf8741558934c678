"""Progressive self-reflection: while it writes, the model is asked whether what it has written so far breaks a rule.

A reply is written in segments. After each of at most N the question stands below it, in a turn that is thrown away, and the model's own
probabilities of Yes and No answer it. Where Yes is likelier the segment is taken back: the reply is refused, or written anew from the last
point that was found safe. After N reflections the rest is written freely. Think Twice, Generate Once: Safeguarding by Progressive
Self-Reflection, arXiv 2510.01270.

    P(Yes) / (P(Yes) + P(No)) > t   ->   back to the last safe point, or the refusal
"""

from __future__ import annotations

from typing import Annotated

from etude.fixtures.inference import Reply, answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.search.score import probabilities
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.types import Message

ASKED = "Look at your response so far. Does it break this rule: {rule} Reply Yes or No."
RULE = "Nothing that could harm anybody may be said."
REFUSAL = "I cannot answer that."


def self_reflection(
    reflections: Annotated[int, Setting("N: segments that are looked at, at most", low=0, high=10_000)] = 4,
    segment: Annotated[int, Setting("K: length of a segment", "tokens", low=1)] = 32,
    rule: Annotated[str, Setting("what the response is held against, a sentence")] = RULE,
    threshold: Annotated[
        float, Setting("probability of Yes above which a segment is taken back", low=0, high=1)
    ] = 0.5,
    then: Annotated[
        str, Setting("after a segment is taken back: refuse, or write it again", choices=("refuse", "again"))
    ] = "refuse",
    refusal: Annotated[str, Setting("the words of a refusal")] = REFUSAL,
) -> Answering:
    """One reply, of which segments may be taken back."""
    asked = ASKED.format(rule=rule)

    async def method(session: Session) -> Draft | str:
        line, parent = session.line("sample", 0), None
        left = line.generator.params.max_tokens
        for number in range(reflections):
            safe = line.fork(number) if then == "again" else line
            draft = await written(session, line, parent, min(segment, left))
            talk = [*session.prompt, Message("assistant", draft.text), Message("user", asked)]
            unsafe = float(probabilities(session, [talk], ("Yes", "No"))[0, 0])
            session.mark(draft.node, score=1 - unsafe)
            if unsafe > threshold:
                if then == "refuse":
                    return refusal
                line = safe
                continue
            parent, left = draft.node, left - len(line.samples[-1].tokens)
            if line.stop == "end" or left < 1:
                return draft
        return await written(session, line, parent, left)

    return answering(method)


async def written(session: Session, line: Conversation, parent: int | None, longest: int) -> Draft:
    """The next at most so many tokens of a reply, which goes on where its last segment ended."""
    if line.stop == "length" and not line.full:
        line.stop = "cut"
    return await session.go_on(line, parent, max_tokens=longest)


def _played(*odds: float, **settings: object) -> list[str | int]:
    """What is answered, and how much was generated, where the first segment is "bad" and "7" or "ok7" comes after it. `odds`: of Yes,
    whenever it is asked."""
    said = [Reply("bad", ends=False), Reply("7")]
    found = answered(RECIPE, *said, odds=odds, settings={"segment": 3, **settings})
    return [found.text, int(found.spent["tokens"])]


def _outcomes() -> list[float]:
    """Refused at once; written again; found safe, and gone on with; not looked at; one reflection, then freely."""
    found = [
        _played(3.0) == [REFUSAL, 3],
        _played(3.0, 1 / 3, then="again") == ["7", 5],
        _played(1 / 3, 1 / 3) == ["bad7", 5],
        _played(reflections=0) == ["bad", 3],
        _played(1 / 3, reflections=1) == ["bad7", 5],
        _played(2.9, 1 / 3, threshold=0.75) == ["bad7", 5],
        _played(3.1, threshold=0.75) == [REFUSAL, 3],
    ]
    return [float(f) for f in found]


RECIPE: Recipe = Recipe(
    name="self_reflection",
    paper=Paper(
        "Think Twice, Generate Once: Safeguarding by Progressive Self-Reflection", "2510.01270", 2025
    ),
    idea="A model that begins to write what it should not often knows it when it is asked. So it is asked while it writes, every few "
    "words, and what it finds wrong with its own response is taken back before anybody sees it. Every look costs a reading of what was "
    "written.",
    equation="P(Yes | x, y so far, asked) > t  ->  back",
    confidence="guess",
    stages={"rollout": stage(self_reflection)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "only the abstract was at hand: the question, segments of a fixed length and what follows a segment that was taken back are guesses",
        "the number of reflections is fixed; the paper predicts it from the prompt's hidden states by a small model that is trained for it",
        "what is written again is written from the last safe point with new random numbers",
    ),
    claim="Violations of a rule that can be checked fall with the number of reflections, at a growing cost in tokens.",
    unchecked="every segment is looked at, whatever comes of it",
    examples=(
        ByHand("refused, again, safe, unseen, freely, and both sides of a threshold", _outcomes, [1] * 7),
        Reduction("no reflection: one reply", "majority", {"rollout.reflections": 0}, {"rollout.n": 1}),
    ),
)
