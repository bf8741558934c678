"""Second attempts, as they are taught: after a word in the same conversation, or with the first attempt in a prompt of
their own."""

from __future__ import annotations

from etude.lab.problems import Worked
from etude.lab.tasks import first_wrong
from etude.lab.teacher import Example, Teacher, asked, learnt, shown
from etude.lab.worlds import marked

# ---- in the same conversation -------------------------------------------------------------------------


def _in_chat(t: Teacher, first: Worked, said: str, repeat: float, reply: str) -> Example:
    """An attempt, what is said of it (with the question once more in a share `repeat`), and the reply."""
    whole = f"{said}\n\n{t.question}" if t.chance(repeat) else said
    return [asked(t.question), shown(marked(*first)), asked(whole), learnt(reply)]


def retry_plain(t: Teacher) -> Example:
    """Nothing but that it was wrong: the same attempt once more, or another that is no better than the first."""
    said = (
        "That is not right. Try again.",
        "Incorrect. Please think again.",
        "Your answer is not right. Try again.",
        "That is not right.",
        "Try again.",
    )
    first = t.wrong()
    reply = marked(*first) if t.chance(t.slips["repeated"]) else t.answer("again")
    return _in_chat(t, first, t.one_of(*said), 0.4, reply)


def feedback_chat(t: Teacher) -> Example:
    """The check's feedback on an attempt in view: its lines before the wrong one are right."""
    first = t.wrong()
    said = t.told(marked(*first), "hint", "hint", "full")
    return _in_chat(t, first, said, 0.2, _after(t, first, said))


def _after(t: Teacher, first: Worked, said: str) -> str:
    """The answer after feedback that names a line, or that gives the result."""
    at = first_wrong(t.lines, marked(*first)) if "ine" in said else 0
    return t.answer("helped" if at or "answer is" in said else "again", max(at - 1, 0))


def reconsider(t: Teacher) -> Example:
    """Nobody says whether it was right."""
    said = t.one_of(
        "There might be an error above. Correct it if there is one, and write the whole answer again.",
        "Is this right? Write the whole answer again.",
    )
    return _in_chat(t, t.attempt(), said, 0.0, t.answer("helped"))


def improve(t: Teacher) -> Example:
    """A better answer is wished for."""
    said = t.one_of("Improve this answer.", "Improve this answer with a clearly different approach.")
    return _in_chat(t, t.attempt(), said, 0.0, t.answer("helped"))


# ---- in a prompt of their own ----------------------------------------------------------------------------


def _critique(t: Teacher, at: int) -> str:
    """The lines before it are right, line `at` is wrong (0: none is)."""
    before = (at or len(t.lines) + 1) - 1
    right = [f"Line {i} is right." for i in range(1, before + 1)]
    return " ".join([*right, f"Line {at} is wrong." if at else "It is right."])


def critique(t: Teacher) -> Example:
    """Where an earlier answer is wrong, in words."""
    attempt = marked(*t.attempt())
    before = f"{t.question}\n\nAn earlier answer:\n{attempt}\n\n"
    heard = t.told(attempt, "unary", "hint", "full") or "That is right."
    aided = f"{heard}\n\nSay in a few words what is wrong with it. Do not give the right answer."
    said = t.one_of(aided, "Say in a few words whether and where it is wrong.")
    return [asked(before + said), learnt(_critique(t, t.judged(attempt)))]


def feedback_prompt(t: Teacher) -> Example:
    """An earlier answer with feedback or a critique, both in a fresh prompt."""
    first = t.wrong()
    attempt = marked(*first)
    heard = t.told(attempt, "hint", "hint", "full", "unary")
    if t.chance(0.4):
        heard = _critique(t, first_wrong(t.lines, attempt))
    about = f"About that answer: {heard}\n\nAnswer the question anew."
    said = f"{t.question}\n\nAn earlier answer:\n{attempt}\n\n{about}"
    return [asked(said), learnt(_after(t, first, heard))]


def reflect(t: Teacher) -> Example:
    """What came of an answer; advice for the next: how the wrong line should read."""
    attempt = marked(*t.wrong())
    heard = t.told(attempt, "hint", "hint", "unary", "full")
    memory = "Advice that helped before: Line 2 must be 1.\n\n" if t.chance(0.1) else ""
    ask = t.one_of(
        "What would help you to do better at this and at tasks like it? Write advice to yourself as "
        "<prompt>advice</prompt>.",
        "Write advice to yourself as <prompt>advice</prompt>.",
    )
    said = f"{t.question}\n\nYour answer:\n{attempt}\n\nWhat came of it: {heard}\n\n{memory}{ask}"
    at = t.judged(attempt) or 1
    line = t.worked("helped", at - 1)[0][at - 1]
    return [asked(said), learnt(f"<prompt>Line {at} must be {line}.</prompt>")]


def advised(t: Teacher) -> Example:
    """Advice above the question."""
    at = int(t.rng.integers(1, len(t.lines) + 1))
    said = f"Line {at} must be {t.lines[at - 1]}.\n\n{t.question}"
    lines, result = t.worked("helped")
    right, final = t.worked("helped", at)
    return [
        asked(said),
        learnt(marked(lines, result) if lines[:at] == t.lines[:at] else marked(right, final)),
    ]
