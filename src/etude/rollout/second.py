"""Second attempts: reconsidered in the same conversation, refined after a critique, or made on the strength of a
reflection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from etude.errors import UserError
from etude.rollout.attempts import WRONG, Share, attempt, due, keep_plain, nth, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.speakers import Address, Longest, Speaker, Who
from etude.settings import Setting
from etude.types import Episode, Group, Message, Task, Verdict

CRITIQUE, REFLECTION = "critique", "reflection"

RECONSIDER = "There might be an error above. Correct it if there is one, and write the whole answer again."

BEFORE = "{question}\n\nAn earlier answer:\n{answer}\n\n"
JUDGE = BEFORE + "{feedback}\n\nSay in a few words what is wrong with it. Do not give the right answer."
JUDGE_PLAIN = BEFORE + "Say in a few words whether and where it is wrong."
REFINE = BEFORE + "About that answer: {feedback}\n\nAnswer the question anew."
REFLECT = (
    "{question}\n\nYour answer:\n{answer}\n\nWhat came of it: {feedback}\n\n"
    "{memory}What would help you to do better at this and at tasks like it? Write advice to yourself as "
    "<prompt>advice</prompt>."
)
ADVISED = "{advice}\n\n{question}"
REMEMBERED = "Advice that helped before: {}\n\n"


def worded(text: str, *fields: str) -> str:
    """`text`, in which {field} stands for one of `fields` and \\n, as a command line has it, for a line break.
    Raises UserError for any other field."""
    text = text.replace("\\n", "\n")
    try:
        text.format(**dict.fromkeys(fields, ""))
    except (KeyError, ValueError, IndexError) as error:
        known = ", ".join(f"{{{f}}}" for f in fields)
        raise UserError(f"the wording '{text}' cannot be used ({error}); its fields are {known}") from None
    return text


def reconsider(
    second: Share = 1.0,
    told: Annotated[str, Setting("what the first attempt hears, right or wrong")] = RECONSIDER,
):
    """An attempt, then, without a word on whether it was right, another one in the same conversation."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        await attempt(conversation, task.prompt, 1)
        if due(conversation, second):
            await attempt(conversation, (Message("user", told),), 2)
        return conversation.done()

    return rollout


Always = Annotated[bool, Setting("a second attempt after right answers too")]
Hint = Annotated[
    int, Setting("which of the task's hints joins the feedback, from 1, the vaguest; 0: none", low=0)
]


class Refine:
    """An attempt; where it is wrong, a critique of it (by `critic`, or the task's feedback itself), then a second
    attempt in a conversation of its own that shows question, first answer and critique. The critic knows the
    task's feedback; notes `plain` keep the prompts that show none of this help."""

    def __init__(
        self,
        critic: Annotated[
            str,
            Setting(
                "who criticises; feedback: nobody, the task's feedback stands for a critique",
                choices=("feedback", "policy", "start", "teacher", "remote"),
            ),
        ] = "policy",
        second: Share = 1.0,
        always: Always = False,
        hint: Hint = 0,
        ask: Annotated[str, Setting("how a critique is asked for")] = JUDGE,
        again: Annotated[str, Setting("how the second attempt is asked for")] = REFINE,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        fields = ("question", "answer", "feedback")
        self.ask, self.again = worded(ask, *fields), worded(again, *fields)
        self.speaker = None if critic == "feedback" else Speaker(critic, address, longest)
        self.reads = self.speaker.reads if self.speaker else frozenset()
        self.second, self.always, self.hint = second, always, hint

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        verdict, answer = await attempt(conversation, task.prompt, 1)
        if (verdict.correct and not self.always) or not due(conversation, self.second):
            return conversation.done()
        facts = {
            "question": task.prompt[-1].content,
            "answer": answer,
            "feedback": heard(verdict, task, self.hint),
        }
        if self.speaker:
            keep_plain(conversation, CRITIQUE, reworded(task.prompt, JUDGE_PLAIN.format(**facts)))
            asked = reworded(task.prompt, self.ask.format(**facts))
            facts["feedback"] = await self.speaker.say(conversation, asked, CRITIQUE)
        again = reworded(task.prompt, self.again.format(**facts))
        await attempt(conversation, again, 2, new_context=True, plain=task.prompt)
        return conversation.done()


class Reflect:
    """An attempt; where its reward is below `threshold`, a reflection on it in the light of the feedback, then a
    second attempt at the same task with the reflection above the question. The last reflection that led to a
    right second attempt is remembered across episodes, from one step to the next, and shown to the next one who
    reflects. Notes: `reflection` (the advice itself)."""

    def __init__(
        self,
        speaker: Who = "policy",
        second: Share = 1.0,
        threshold: Annotated[float, Setting("reward below which the policy reflects", low=0, high=1)] = 1.0,
        remember: Annotated[bool, Setting("show the last advice that helped")] = True,
        hint: Hint = 0,
        ask: Annotated[str, Setting("how a reflection is asked for")] = REFLECT,
        again: Annotated[str, Setting("how the second attempt is asked for")] = ADVISED,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.ask = worded(ask, "question", "answer", "feedback", "memory")
        self.again = worded(again, "question", "advice")
        self.speaker = Speaker(speaker, address, longest)
        self.reads = self.speaker.reads
        self.second, self.threshold, self.remember, self.hint = second, threshold, remember, hint
        self.memory = ""

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        verdict, answer = await attempt(conversation, task.prompt, 1)
        if verdict.reward >= self.threshold or not due(conversation, self.second):
            return conversation.done()
        question = task.prompt[-1].content
        memory = REMEMBERED.format(self.memory) if self.remember and self.memory else ""
        feedback = heard(verdict, task, self.hint)
        asked = self.ask.format(question=question, answer=answer, feedback=feedback, memory=memory)
        said = await self.speaker.say(conversation, reworded(task.prompt, asked), REFLECTION)
        advice = between_tags(said)
        again = reworded(task.prompt, self.again.format(advice=advice, question=question))
        await attempt(conversation, again, 2, new_context=True, plain=task.prompt)
        return conversation.done(reflection=advice)

    def observe(self, groups: Sequence[Group], signals: Sequence[Any]) -> None:
        """Remembers the last advice that helped."""
        for episode in (e for g in groups for e in g.episodes):
            if "reflection" in episode.notes and episode.correct:
                self.memory = episode.notes["reflection"]

    def report(self) -> dict[str, float]:
        """Whether anything is remembered."""
        return {"remembers": float(bool(self.memory))}

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory = state["memory"]


def heard(verdict: Verdict, task: Task, hint: int = 0) -> str:
    """What an attempt is told: the feedback, or, where there is none, whether it was right; after a wrong one also
    hint number `hint` of the task, or its last where it has fewer."""
    said = verdict.feedback or ("That is right." if verdict.correct else WRONG)
    told = not verdict.correct and hint and task.hints
    return f"{said} Hint: {task.hints[min(hint, len(task.hints)) - 1]}" if told else said


def between_tags(text: str) -> str:
    """What stands between <prompt> and </prompt>; all of it where there are no tags."""
    found = re.findall(r"<prompt>(.*?)(?:</prompt>|$)", text, re.DOTALL | re.IGNORECASE)
    return (found[-1] if found else text).strip()


__all__ = ["CRITIQUE", "REFLECTION", "Refine", "Reflect", "between_tags", "heard", "nth", "reconsider"]
