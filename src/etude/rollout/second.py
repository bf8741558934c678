"""Second attempts: reconsidered in the same conversation, or refined after a critique."""

from __future__ import annotations

import re
from typing import Annotated

from etude.errors import UserError
from etude.rollout.attempts import WRONG, Share, attempt, due, hint_of, note_unaided, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.writers import WRITERS, Address, Longest, Writer
from etude.settings import Setting
from etude.stages import Rollout
from etude.types import Episode, Message, Task, Verdict

CRITIQUE, REFLECTION = "critique", "reflection"
"""Tags of what is written between two attempts."""

RECONSIDER = "There might be an error above. Correct it if there is one, and write the whole answer again."

ANSWERED = "{question}\n\nAn earlier answer:\n{answer}\n\n"
CRITICISE = ANSWERED + "{feedback}\n\nSay in a few words what is wrong with it. Do not give the right answer."
CRITICISE_UNAIDED = ANSWERED + "Say in a few words whether and where it is wrong."
REFINE = ANSWERED + "About that answer: {feedback}\n\nAnswer the question anew."


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


def heard(verdict: Verdict, task: Task, hint: int = 0) -> str:
    """What an attempt is told: the feedback, or, where there is none, whether it was right; after a wrong one also
    hint number `hint` of the task (0: none)."""
    said = verdict.feedback or ("That is right." if verdict.correct else WRONG)
    helped = not verdict.correct and hint and task.hints
    return f"{said} Hint: {hint_of(task, hint)}" if helped else said


def between_tags(text: str) -> str:
    """What stands between <prompt> and </prompt>; all of it where there are no tags."""
    found = re.findall(r"<prompt>(.*?)(?:</prompt>|$)", text, re.DOTALL | re.IGNORECASE)
    return (found[-1] if found else text).strip()


# ---- stages ------------------------------------------------------------------------------------------

Ask = Annotated[str, Setting("how a critique of the first attempt, or a reflection on it, is asked for")]
Again = Annotated[str, Setting("how the second attempt is asked for")]
Hint = Annotated[
    int, Setting("which of the task's hints is shown, with the feedback, from 1, the vaguest; 0: none", low=0)
]


def reconsider(
    second: Share = 1.0,
    again: Again = RECONSIDER,
) -> Rollout:
    """An attempt, then, without a word on whether it was right, another one in the same conversation."""
    wording = worded(again, "question")

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        await attempt(conversation, task.prompt, 1)
        if due(conversation, second):
            asked = wording.format(question=task.prompt[-1].content)
            await attempt(conversation, (Message("user", asked),), 2)
        return conversation.done()

    return rollout


class Refine:
    """An attempt; where it is wrong, a critique of it (by `critic`, or the task's feedback itself), then a second
    attempt in a context of its own that shows question, first answer and critique. The critic knows the task's
    feedback where `ask` tells it ({feedback}); notes `UNAIDED` keep the prompts that show none of this help."""

    def __init__(
        self,
        critic: Annotated[
            str,
            Setting(
                "who criticises; feedback: no critic, the task's feedback stands for a critique",
                choices=("feedback", *WRITERS),
            ),
        ] = "policy",
        second: Share = 1.0,
        always: Annotated[bool, Setting("a second attempt after right answers too")] = False,
        hint: Hint = 0,
        ask: Ask = CRITICISE,
        again: Again = REFINE,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        fields = ("question", "answer", "feedback")
        self.ask, self.again = worded(ask, *fields), worded(again, *fields)
        self.critic = None if critic == "feedback" else Writer(critic, address, longest)
        self.reads = self.critic.reads if self.critic else frozenset()
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
        if self.critic:
            unaided = reworded(task.prompt, CRITICISE_UNAIDED.format(**facts))
            note_unaided(conversation, CRITIQUE, unaided)
            asked = reworded(task.prompt, self.ask.format(**facts))
            facts["feedback"] = await self.critic.write(conversation, asked, CRITIQUE)
        again = reworded(task.prompt, self.again.format(**facts))
        await attempt(conversation, again, 2, new_context=True, unaided=task.prompt)
        return conversation.done()
