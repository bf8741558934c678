"""Lessons: what the laboratory's model is taught one after another, and in which shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from etude.lab.problems import KINDS, LETTERS
from etude.lab.protocols import PROTOCOLS, Dialogue, hint, plain, revise, straight, world
from etude.lab.second_attempts import advised, critique, feedback_chat, feedback_prompt, reflect, retry_plain
from etude.lab.tasks import LEVELS
from etude.lab.teacher import FEWER_SLIPS, SLIPS, Example, Teacher, asked, learnt
from etude.types import Task

PRACTISED: Mapping[str, tuple[float, Dialogue]] = {
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

HELPED: Mapping[str, tuple[float, Dialogue]] = {
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
    among: Mapping[str, tuple[float, Dialogue]] = PROTOCOLS,
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
