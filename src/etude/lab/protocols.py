"""What the laboratory's model is taught: to work problems out, and to read and write what methods say beside them. Each
protocol is a function that lays out one example; only what the model is to say is imitated.

The sentences are those of the recipes, and shorter ones beside them. They are written down here once more on purpose: the
model that is shipped was taught with them, whatever a recipe says later (`lab.abilities` measures with what recipes say
today)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etude.lab.problems import ShakyHand, solve
from etude.lab.second_attempts import (
    advised,
    critique,
    feedback_chat,
    feedback_prompt,
    improve,
    reconsider,
    reflect,
    retry_plain,
)
from etude.lab.tasks import CHECK, WAIT
from etude.lab.teacher import Example, Teacher, asked, learnt, shown
from etude.lab.worlds import Lock, marked

Dialogue = Callable[[Teacher], Example]


# ---- solutions ---------------------------------------------------------------------------------------------------


def plain(t: Teacher) -> Example:
    """A solution; some are worked twice before they answer, some take a line back."""
    lines, result = t.worked("plain")
    form = t.rng.random()
    if form < 0.25 and t.task.difficulty < 2:
        again, result = t.worked("helped")
        lines = [*lines, CHECK, *again]
    elif form < 0.32:
        wrong, at = t.up_to_the_slip()
        right, result = t.worked("plain", steady=at)
        lines = [*wrong, WAIT, *right[at - 1 :]]
    return [asked(t.question), learnt(marked(lines, result))]


def straight(t: Teacher) -> Example:
    """A solution that is worked once."""
    return [asked(t.question), learnt(t.answer("plain"))]


def world(t: Teacher) -> Example:
    """An environment, turn by turn, with a slip now and then."""
    make: Any = t.task.environment
    environment = make()
    said, example = t.question, []
    if opening := environment.observe():
        said = f"{said}\n\n{opening}"
    hand = ShakyHand(t.rng, t.slips["plain"] / 3)
    replies = environment.solve(hand) if isinstance(make, Lock) else None
    for turn in range(20):
        reply = replies[turn] if replies else environment.reply(environment.room, hand)
        example += [asked(said), learnt(reply)]
        said, verdict = environment.act(reply)
        if verdict is not None:
            break
    return example


def check(t: Teacher) -> Example:
    """Lines of an attempt, under which a check was begun."""
    begun = "\n".join([*t.attempt()[0], CHECK, ""])
    return [asked(t.question), shown(begun, goes_on=True), learnt(t.answer("helped"))]


def wait(t: Teacher) -> Example:
    """A wrong line, and a sentence, or the one word, that takes it back, or all of them."""
    wrong, at = t.up_to_the_slip()
    mend, restart = (
        "Wait, the last step is wrong. It should be:",
        "Wait, this does not lead to the answer. Let me start again.",
    )
    said = t.one_of(WAIT, mend, restart)
    steady, first = (0, 0) if said == restart else (at - 1, at - 1)
    lines, result = t.worked("helped", steady)
    begun = "\n".join([*wrong, said, ""])
    return [asked(t.question), shown(begun, goes_on=True), learnt(marked(lines[first:], result))]


def hint(t: Teacher) -> Example:
    """The first lines of the solution below the question."""
    given = t.task.hints[t.rng.integers(len(t.task.hints))]
    return [asked(f"{t.question}\n\nHint: {given}"), learnt(t.answer("helped", given.count("\n") + 1))]


def plan(t: Teacher) -> Example:
    """How many lines it will take, then the lines."""
    ask = t.one_of(PLAN, "Plan first, then answer.")
    number = len(t.lines) + (int(t.rng.integers(-1, 2)) if t.chance(t.slips["judged"]) else 0)
    return [asked(f"{t.question}\n\n{ask}"), learnt(f"Plan: {number} lines\n{t.answer('plain')}")]


PLAN = "Make a plan first."
TOOL = "You may use a tool: write <tool>problem</tool> and read its result."


def tool(t: Teacher) -> Example:
    """The problem given to a tool, and its result read."""
    copied = t.question if not t.chance(t.slips["helped"]) else Teacher(t.task.kind, 0, t.rng).question
    result = solve(copied)[1]
    return [
        asked(f"{t.question}\n\n{TOOL}"),
        learnt(f"<tool>{copied}</tool>"),
        asked(f"Result: {result}"),
        learnt(f"<answer>{result}</answer>"),
    ]


# ---- what else is asked about an answer --------------------------------------------------------------------------------


def revise(t: Teacher) -> Example:
    """A response for the better, or for the worse."""
    better = t.chance(0.5)
    how = (
        "more helpful, correct, coherent and concise"
        if better
        else "less helpful, incorrect, incoherent and verbose"
    )
    response = marked(*t.attempt())
    said = f"Revise the response so that it is {how}.\n\nQuestion: {t.question}\n\nResponse: {response}"
    return [asked(said), learnt(t.answer("helped") if better else marked(*t.wrong()))]


def write(t: Teacher) -> Example:
    """Another problem of the same kind."""
    said = t.one_of("Write another problem of this kind. Write nothing else.", "Write another problem.")
    other = Teacher(t.task.kind, int(t.task.difficulty), t.rng).question
    return [asked(f"{t.question}\n\n{said}"), learnt(other)]


def guide(t: Teacher) -> Example:
    """A student's answer, continued in the student's voice."""
    first = t.attempt()
    attempt = marked(*first)
    style = t.one_of(
        "Doubt it: 'Wait, that cannot be, because ...'",
        "Confirm what holds: 'Yes, this fits, since ...'",
        "Criticise it step by step: 'Let me check. The first step ...'",
        "Ask and answer yourself: 'What if I try it another way? ...'",
    )
    said = (
        f"{t.question}\n\nA student's answer:\n{attempt}\n\nGo on in the student's own voice. {style} "
        "Say whether the answer is right and why, then lead on to the right answer."
    )
    at = t.judged(attempt)
    if not at:
        return [asked(said), learnt(f"Yes, this fits.\n<answer>{first[1]}</answer>")]
    lines, result = t.worked("helped", at - 1)
    return [asked(said), learnt(f"Wait, line {at} is wrong.\n{marked(lines[at - 1 :], result)}")]


def correction(t: Teacher) -> Example:
    """The first wrong step of an attempt, and what should stand there, with a right solution in view."""
    wrong, result = t.wrong()
    steps = "\n".join(f"{i}: {line}" for i, line in enumerate(marked(wrong, result).splitlines(), 1))
    said = (
        f"{t.question}\n\nA solution that is right:\n{t.task.reference}\n\nAn attempt that failed, step by step:\n"
        f"{steps}\n\nCheck it step by step. Name the first wrong step and write the one step that should stand in its "
        "place, without giving the final answer away, as 'NUMBER: STEP'."
    )
    at = t.judged(marked(wrong, result)) or 1
    return [asked(said), learnt(f"{at}: {t.lines[at - 1]}")]


def edit(t: Teacher) -> Example:
    """A step written again with a subtle error."""
    wrong, at = t.up_to_the_slip()
    said = (
        f"{t.question}\n\nOne step of a right solution:\n{t.lines[at - 1]}\n\nWrite this step again with one subtle "
        "error: change a number. Change nothing else and say nothing else."
    )
    return [asked(said), learnt(wrong[-1])]


PROTOCOLS: Mapping[str, tuple[float, Dialogue]] = {
    "plain": (0.30, plain),
    "world": (0.05, world),
    "check": (0.03, check),
    "wait": (0.04, wait),
    "hint": (0.06, hint),
    "plan": (0.03, plan),
    "tool": (0.03, tool),
    "retry_plain": (0.05, retry_plain),
    "feedback_chat": (0.06, feedback_chat),
    "reconsider": (0.05, reconsider),
    "improve": (0.04, improve),
    "critique": (0.06, critique),
    "feedback_prompt": (0.05, feedback_prompt),
    "reflect": (0.05, reflect),
    "advised": (0.03, advised),
    "revise": (0.04, revise),
    "write": (0.03, write),
    "guide": (0.02, guide),
    "correction": (0.01, correction),
    "edit": (0.01, edit),
}
"""{name: (its share of the examples, up to a factor; how one is laid out)}."""
