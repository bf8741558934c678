"""One whole attempt at a task, of several in one episode: an answer and its verdict, or an environment played to its
end.

Each part of an episode carries its name in the tags of its spans ("attempt 1", "critique", "reflection",
"attempt 2"), by which credit says what of it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude import seeds
from etude.rollout import turns
from etude.rollout.conversation import Conversation
from etude.rollout.full import FULL
from etude.settings import Setting
from etude.tasks.extract import extract
from etude.types import Environment, Episode, Message, Task, Verdict

WRONG = "That is not right."
AGAIN = f"{WRONG} Try again."

ANSWERS = "answers"
"""Note: what each attempt answered, as its checker reads it; None where nothing was found."""

UNAIDED = "plain"
"""Note: {tag: tokens of the prompt that shows none of the help which the part `tag` had}."""

Share = Annotated[float, Setting("share of the attempts due for a second one that get it", low=0, high=1)]


def attempt_tag(number: int) -> str:
    """The tag of attempt `number`, counted from 1."""
    return f"attempt {number}"


async def attempt(
    conversation: Conversation,
    said: Sequence[Message],
    number: int,
    *,
    new_context: bool = False,
    unaided: Sequence[Message] | None = None,
    tag: str = "",
) -> tuple[Verdict, str]:
    """Attempt `number` at the conversation's task after `said`: the verdict and the policy's words. `new_context`:
    nothing that was said before is in view. `unaided`: what the policy would have been asked without help; its
    tokens are noted (`UNAIDED`), so that credit can lay the attempt behind it. Notes `ANSWERS`."""
    environment = conversation.environment()
    try:
        return await _attempt(
            conversation, environment, said, tag or attempt_tag(number), new_context, unaided
        )
    finally:
        if environment is not None:
            await turns.close(environment)


async def _attempt(
    conversation: Conversation,
    environment: Environment | None,
    said: Sequence[Message],
    name: str,
    new_context: bool,
    unaided: Sequence[Message] | None,
) -> tuple[Verdict, str]:
    replies: list[str] = []
    if environment is not None:
        opening = await turns.observe(environment)
        said, unaided = below(said, opening), None if unaided is None else below(unaided, opening)
    if unaided is not None:
        note_unaided(conversation, name, unaided)
    (conversation.new_context if new_context else conversation.user)(said)
    while True:
        replies.append(await conversation.reply(name))
        if environment is None:
            verdict: Verdict | None = await conversation.check(replies[-1])
        elif conversation.full:
            verdict = Verdict(
                0.0, False, f"Cut off: {conversation.notes[FULL]} tokens are the longest conversation."
            )
        else:
            observation, verdict = await turns.act(environment, replies[-1])
        if verdict is None:
            conversation.user(observation)
            continue
        if environment is not None:
            conversation.verdict(verdict)
        text = "\n".join(replies)
        answers = conversation.notes.get(ANSWERS, ())
        conversation.notes[ANSWERS] = [*answers, answer_of(conversation.task, text)]
        return verdict, text


def note_unaided(conversation: Conversation, tag: str, messages: Sequence[Message]) -> None:
    """Notes the tokens of the prompt behind which the part `tag` is to be learnt without help."""
    tokens = conversation.prompt(messages).tolist()
    conversation.notes[UNAIDED] = {**conversation.notes.get(UNAIDED, {}), tag: tokens}


def answer_of(task: Task, text: str) -> str | None:
    """What an attempt answered, as far as two answers can be told apart; None where there is none."""
    rule = getattr(task.check, "extract", None)
    read = getattr(task.check, "read", None)
    if read is not None:
        found = read(text)
    else:
        found = extract(text, rule) if isinstance(rule, str) and task.environment is None else text
    return " ".join((found or "").split()).casefold() or None


def due(conversation: Conversation, share: float) -> bool:
    """Whether a second attempt is among the `share` that is made: a keyed draw."""
    return seeds.key(conversation.key, "second") / 2**63 < share


def below(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """`text`, if there is any, joins the last message: two user turns in a row break many templates."""
    if not text:
        return tuple(messages)
    *before, last = messages
    return (*before, Message(last.role, f"{last.content}\n\n{text}" if last.content else text))


def joined(text: str, messages: Sequence[Message]) -> tuple[Message, ...]:
    """`text` as the user's words, before those of the last of `messages`."""
    return (Message("user", "\n\n".join([text, *(m.content for m in messages[-1:])])),)


def reworded(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The prompt with `text` in place of its last message."""
    return (*messages[:-1], Message(messages[-1].role, text))


def hint_of(task: Task, level: int) -> str:
    """Hint `level` of the task, from 1, the vaguest; its last where it has fewer."""
    return task.hints[min(level, len(task.hints)) - 1]


def hinted(task: Task, level: int) -> tuple[Message, ...]:
    """The prompt with hint `level` (`hint_of`) below its question."""
    return below(task.prompt, f"Hint: {hint_of(task, level)}")


def notes_of(episode: Episode, name: str) -> list[Any]:
    """A list among the notes; empty where there is none."""
    return list(episode.notes.get(name, ()))
