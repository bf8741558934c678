"""How a task's question is put to a model: a text around it, a system message, worked examples before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etude.errors import UserError
from etude.types import Message

QUESTION = "{question}"


@dataclass(frozen=True)
class Framing:
    """`prompt`: the text in which `{question}` stands for the question. `system`: said first in every conversation, in the
    place of a task's own. `examples`: questions and answers shown before the question.
    `thinking`: on or off, for templates that know both; None leaves it to the template."""

    prompt: str = ""
    system: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    thinking: bool | None = None

    def __post_init__(self) -> None:
        if self.prompt and QUESTION not in self.prompt:
            raise UserError(
                f"the prompt '{self.prompt:.60}' must hold {QUESTION}, where the task's question goes"
            )

    def around(self, question: str) -> str:
        """The question in its text."""
        return self.prompt.replace(QUESTION, question) if self.prompt else question

    def framed(self, messages: Sequence[Message], asks: int, plain: bool) -> list[Message]:
        """The conversation as the model is given it. `asks`: so many messages at its beginning are a task's question, which
        examples and text go around. `plain`: the model has no chat template, so examples are text before the question."""
        question, rest = list(messages[:asks]), list(messages[asks:])
        if question:
            question = self._asked(question, plain)
        said = [*question, *rest]
        if self.system:
            said = [
                Message("system", self.system),
                *(said[1:] if said and said[0].role == "system" else said),
            ]
        return said

    def _asked(self, question: list[Message], plain: bool) -> list[Message]:
        *before, last = question
        text = self.around(last.content)
        if not plain:
            shown = [
                m
                for q, a in self.examples
                for m in (Message("user", self.around(q)), Message("assistant", a))
            ]
            system = before[:1] if before and before[0].role == "system" else []
            return [*system, *shown, *before[len(system) :], Message(last.role, text)]
        shown_text = "".join(f"{_joined(self.around(q), a)}\n\n" for q, a in self.examples)
        return [*before, Message(last.role, shown_text + text)]


def _joined(question: str, answer: str) -> str:
    return f"{question}{'' if question[-1:].isspace() else ' '}{answer}"


BARE = Framing()
