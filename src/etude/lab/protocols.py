"""What the laboratory's model is taught: to work problems out, and to read and write what methods say beside them. Each
protocol is a function that lays out one example; only what the model is to say is imitated.

The sentences are those of the recipes, and shorter ones beside them. They are written down here once more on purpose: the
model that is shipped was taught with them, whatever a recipe says later (`lab.abilities` measures with what recipes say
today). A share of the lines is wrong (`SLIPS`), less after help, so that all that is asked of the model can be improved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.lab.problems import KINDS, LETTERS, ShakyHand, Worked, solve
from etude.lab.tasks import CHECK, LEVELS, WAIT, first_wrong, lab_task
from etude.lab.worlds import Lock, marked
from etude.types import Task


@dataclass(frozen=True)
class Said:
    """A turn, or (`goes_on`) the beginning of the model's turn that follows. `learnt`: imitated."""

    role: str
    text: str
    learnt: bool = False
    goes_on: bool = False


Example = list[Said]

SLIPS = {"plain": 0.1, "again": 0.1, "helped": 0.04, "shown": 0.15, "judged": 0.08, "repeated": 0.35}
"""Share of wrong lines: of a solution, of another try without help, of one with help, of attempts that are shown to be
judged; of wrong judgements; and of tries without help that are the attempt before once more."""
FEWER_SLIPS = {**SLIPS, "helped": 0.01, "judged": 0.02, "repeated": 0.6}
"""For the last lesson: what sets help apart from another try is learnt from few examples where it is plain to see."""


class Teacher:
    """One task of the taught quarter, and what is said about it, drawn by `rng`."""

    def __init__(
        self, kind: str, level: int, rng: np.random.Generator, slips: Mapping[str, float] = SLIPS
    ) -> None:
        self.rng, self.slips = rng, slips
        self.task: Task = lab_task(kind, level, int(rng.integers(1 << 40)), "hint", teaching=True)
        self.question = self.task.prompt[0].content
        self.lines: list[str] = list(self.task.meta.get("steps", ()))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def one_of(self, *texts: str) -> str:
        """One of them, the first in more than half of all cases: it is what recipes say."""
        return texts[0] if self.chance(0.5) else texts[self.rng.integers(len(texts))]

    def worked(self, slips: str, steady: int = 0) -> Worked:
        """Lines and result, the first `steady` lines right."""
        return solve(self.question, ShakyHand(self.rng, self.slips[slips], steady))

    def answer(self, slips: str, steady: int = 0) -> str:
        return marked(*self.worked(slips, steady))

    def wrong(self) -> Worked:
        """Working that ends in a wrong result."""
        share = self.slips["shown"]
        while True:
            lines, result = solve(self.question, ShakyHand(self.rng, share))
            if result != self.task.answer:
                return lines, result
            share = 0.5

    def attempt(self) -> Worked:
        """Working that is wrong, or, in a third of all cases, right."""
        return (self.lines, self.task.answer or "") if self.chance(1 / 3) else self.wrong()

    def told(self, attempt: str, *kinds: str) -> str:
        """What the task's check says of an attempt, at one of these kinds of feedback."""
        check: Any = self.task.check
        return str(replace(check, feedback=kinds[self.rng.integers(len(kinds))])(attempt).feedback)

    def judged(self, attempt: str) -> int:
        """The first wrong line, from 1 (0: none); now and then misjudged."""
        right = first_wrong(self.lines, attempt)
        return int(self.rng.integers(len(self.lines) + 1)) if self.chance(self.slips["judged"]) else right


def asked(text: str) -> Said:
    return Said("user", text)


def shown(text: str, goes_on: bool = False) -> Said:
    return Said("assistant", text, goes_on=goes_on)


def learnt(text: str) -> Said:
    return Said("assistant", text, learnt=True)


# ---- solutions ---------------------------------------------------------------------------------------------------


def plain(t: Teacher) -> Example:
    """A solution; some are worked twice before they answer, some take a line back."""
    lines, result = t.worked("plain")
    form = t.rng.random()
    if form < 0.25 and t.task.difficulty < 2:
        again, result = t.worked("helped")
        lines = [*lines, CHECK, *again]
    elif form < 0.32:
        wrong, at = _up_to_the_slip(t)
        right, result = t.worked("plain", steady=at)
        lines = [*wrong, WAIT, *right[at - 1 :]]
    return [asked(t.question), learnt(marked(lines, result))]


def straight(t: Teacher) -> Example:
    """A solution that is worked once."""
    return [asked(t.question), learnt(t.answer("plain"))]


def _up_to_the_slip(t: Teacher) -> tuple[list[str], int]:
    """The lines of an attempt up to its first wrong one, and that one's number."""
    wrong, result = t.wrong()
    at = first_wrong(t.lines, marked(wrong, result))
    return wrong[:at], at


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
    wrong, at = _up_to_the_slip(t)
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


# ---- second attempts in the same conversation -------------------------------------------------------------------------


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


# ---- second attempts in a prompt of their own ----------------------------------------------------------------------------


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
    wrong, at = _up_to_the_slip(t)
    said = (
        f"{t.question}\n\nOne step of a right solution:\n{t.lines[at - 1]}\n\nWrite this step again with one subtle "
        "error: change a number. Change nothing else and say nothing else."
    )
    return [asked(said), learnt(wrong[-1])]


PROTOCOLS: Mapping[str, tuple[float, Callable[[Teacher], Example]]] = {
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

PRACTISED: Mapping[str, tuple[float, Callable[[Teacher], Example]]] = {
    **PROTOCOLS,
    "plain": (0.08, plain),
    "straight": (0.22, straight),
    "hint": (0.08, hint),
    "feedback_chat": (0.08, feedback_chat),
    "feedback_prompt": (0.08, feedback_prompt),
    "critique": (0.08, critique),
    "reflect": (0.07, reflect),
    "revise": (0.06, revise),
}
"""The same for a later lesson: more of what the claims live on, and fewer solutions that are worked twice."""

HELPED: Mapping[str, tuple[float, Callable[[Teacher], Example]]] = {
    **PROTOCOLS,
    "plain": (0.04, plain),
    "straight": (0.14, straight),
    "world": (0.02, world),
    "hint": (0.1, hint),
    "retry_plain": (0.07, retry_plain),
    "feedback_chat": (0.13, feedback_chat),
    "feedback_prompt": (0.13, feedback_prompt),
    "critique": (0.12, critique),
    "reflect": (0.08, reflect),
    "advised": (0.05, advised),
    "revise": (0.08, revise),
}
"""The same for the last lesson: help of every kind, and tries without any."""

LEVEL_SHARES = (0.35, 0.3, 0.2, 0.1, 0.05)
PRACTISED_LEVELS = (0.38, 0.32, 0.2, 0.07, 0.03)
HELPED_LEVELS = (0.42, 0.34, 0.18, 0.06, 0.0)
WORLD_SHARES = (0.4, 0.3, 0.2, 0.1)
BASIC_SHARES = (0.6, 0.4)


def basics(rng: np.random.Generator, kinds: Sequence[str] = tuple(KINDS)) -> tuple[Task, Example]:
    """A solution without a slip, of one of the two lowest levels: what is learnt first."""
    kind = kinds[int(rng.integers(len(kinds)))]
    teacher = Teacher(kind, int(rng.choice(len(BASIC_SHARES), p=BASIC_SHARES)), rng)
    return teacher.task, [asked(teacher.question), learnt(teacher.task.reference or "")]


def _some(rng: np.random.Generator, least: int, most: int) -> list[str]:
    """Different letters, in any order."""
    return [LETTERS[i] for i in rng.permutation(len(LETTERS))[: rng.integers(least, most + 1)]]


def copies(rng: np.random.Generator) -> tuple[Task, Example]:
    """A word to be written again, with others before it: how to find one's place in a text. Without this, look-ups are
    not learnt in thousands of steps; with it, in hundreds."""
    task, _ = basics(rng)
    before = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=rng.integers(12)))
    word = "".join(_some(rng, 4, 13))
    return task, [asked(f"write {before} {word}"), learnt(word)]


def lookups(rng: np.random.Generator) -> tuple[Task, Example]:
    """Many look-ups at once, to learn what `find`, `order` and `run` are made of; these themselves; and copies."""
    form = rng.random()
    if form < 0.2:
        return copies(rng)
    task, example = basics(rng, ("find", "order", "run"))
    if form < 0.6:
        first = _some(rng, 3, 10)
        pairs = [
            letter + LETTERS[i]
            for letter, i in zip(first, rng.integers(len(LETTERS), size=len(first)), strict=True)
        ]
        wanted = [pairs[i] for i in rng.permutation(len(pairs))]
        question = f"write {' '.join(pair[0] for pair in wanted)} in {' '.join(pairs)}"
        example = [asked(question), learnt("\n".join(wanted))]
    return task, example


def drills(rng: np.random.Generator) -> tuple[Task, Example]:
    """Half of them single lines of sums and programs, the facts that these are made of; the others whole problems of the
    kinds that take longest to learn, without a slip."""
    task, example = basics(rng, ("sum", "run", "sort", "sort"))
    if rng.random() < 0.5:
        return task, example
    asks, lines = [], []
    modulo = bool(rng.integers(2))
    for _ in range(int(rng.integers(4, 11))):
        a, b, carried = (int(n) for n in rng.integers((10, 10, 2)))
        if modulo:
            sign = "+-"[carried]
            asks.append(f"{a}{sign}{b}")
            lines.append(f"{a}{sign}{b}={(a + (b if sign == '+' else -b)) % 10}")
        else:
            asks.append(f"{a}+{b}+1" if carried else f"{a}+{b}")
            lines.append(f"{asks[-1]}={a + b + carried}")
    return task, [asked(f"{'run' if modulo else 'sum'} {' '.join(asks)}"), learnt("\n".join(lines))]


def protocols(
    rng: np.random.Generator,
    among: Mapping[str, tuple[float, Callable[[Teacher], Example]]] = PROTOCOLS,
    level_shares: Sequence[float] = LEVEL_SHARES,
    slips: Mapping[str, float] = SLIPS,
) -> tuple[Task, Example]:
    """An example of one of the protocols, with the task that it is about."""
    names = list(among)
    shares = np.array([share for share, _ in among.values()])
    name = names[rng.choice(len(names), p=shares / shares.sum())]
    worlds = name == "world"
    kinds = [k for k in LEVELS if (k not in KINDS) == worlds]
    kind = kinds[int(rng.integers(len(kinds)))]
    level = int(rng.choice(len(LEVELS[kind]), p=WORLD_SHARES if worlds else level_shares))
    teacher = Teacher(kind, level, rng, slips)
    return teacher.task, among[name][1](teacher)


def practice(rng: np.random.Generator) -> tuple[Task, Example]:
    """An example of what is practised; one in six is still a drill."""
    return drills(rng) if rng.random() < 1 / 6 else protocols(rng, PRACTISED, PRACTISED_LEVELS)


def helped(rng: np.random.Generator) -> tuple[Task, Example]:
    """An example of help, with hardly a slip behind it."""
    return protocols(rng, HELPED, HELPED_LEVELS, FEWER_SLIPS)


LESSONS: Mapping[str, Callable[[np.random.Generator], tuple[Task, Example]]] = {
    "copies": copies,
    "basics": basics,
    "lookups": lookups,
    "protocols": protocols,
    "drills": drills,
    "practice": practice,
    "helped": helped,
}
"""What can be taught for a while: {name: how an example is drawn}."""
