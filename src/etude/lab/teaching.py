"""Examples of the protocols as signals to imitate, for any model that has a chat template."""

from __future__ import annotations

from collections.abc import Iterable

from etude import seeds
from etude.credit.imitate import imitate, tagged
from etude.lab import vocabulary
from etude.lab.lessons import LESSONS, protocols
from etude.lab.teacher import Example
from etude.rollout.demonstrate import DEMONSTRATED, answer_tokens
from etude.text.chat_template import Renderer
from etude.types import Episode, Message, Signal, Span, Task


def signals(renderer: Renderer, lesson: str, number: int, step: int, seed: int) -> list[Signal]:
    """`number` examples of a lesson for a step, all about problems that are never drawn otherwise."""
    drawn = (LESSONS[lesson](seeds.generator(seed, "teaching", step, i)) for i in range(number))
    return [laid_out(renderer, *example) for example in drawn]


def laid_out(renderer: Renderer, task: Task, said: Example) -> Signal:
    """An example as an episode of which the learnt turns are imitated."""
    spans: list[Span] = []
    before: list[Message] = []
    begun = ""
    for turn in said:
        if turn.role == "user":
            new = [Message("user", turn.text)]
            spans.append(Span("user", renderer.extend(before, new)[0] if before else renderer.prompt(new)))
            before += new
        elif turn.goes_on:
            spans.append(Span("assistant", renderer.tokenizer.encode(turn.text), tag="prefix"))
            begun = turn.text
        else:
            tag = DEMONSTRATED if turn.learnt else ""
            spans.append(Span("assistant", answer_tokens(renderer, turn.text), tag=tag))
            before.append(Message("assistant", begun + turn.text))
            begun = ""
    episode = Episode(task, tuple(spans), player=DEMONSTRATED)
    return imitate(episode, tagged(episode, DEMONSTRATED))


def words() -> list[str]:
    """What the model is to read: the recipes' words, and those of the examples."""
    own = vocabulary.words_of(_said(3000), shouted=False)
    return sorted({*vocabulary.words_of(vocabulary.default_texts().values()), *own})


def _said(number: int, seed: int = 0) -> Iterable[str]:
    for i in range(number):
        yield from (turn.text for turn in protocols(seeds.generator(seed, "teaching", "words", i))[1])
