"""Program, input, output: three ways to hide one of them, and how a model proposes new ones (Absolute Zero, arXiv 2505.03335).

deduction: program and input, what comes out? abduction: program and output, which input gives it? Any does. induction: some
pairs of input and output, which program? Judged on pairs that were not shown. The answer of each is checked by running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from etude.errors import UserError, nearest
from etude.seeds import generator
from etude.tasks.check import UNARY
from etude.tasks.extract import extract
from etude.tasks.game import said
from etude.tasks.languages import LANGUAGES, Language, same
from etude.tasks.source import Info, check_level, digest, item_seed
from etude.tasks.spec import Param, typed
from etude.types import Message, Task, Verdict

MODES = ("deduction", "abduction", "induction")
PROPOSE = "propose_"
KINDS = (*MODES, *(PROPOSE + mode for mode in MODES))
LEVELS = (0.0, 1.0, 2.0, 3.0)  # one operation more than the level's number
TRIPLE = "triple"
"""Task meta: the `Triple` that is to be solved."""

BAR = "|"
"""What stands between a program and its input, and between inputs, in what a proposer writes."""

Pair = tuple[str, str]  # an input and the output that belongs to it

DEDUCE = "Program: {program}\nInput: {given}\nWhat is the output? Answer as <answer>output</answer>."
ABDUCE = "Program: {program}\nOutput: {output}\nWhich input gives it? Answer as <answer>input</answer>."
INDUCE = "{pairs}\nWhich program makes these outputs of these inputs? Answer as <answer>program</answer>."
POSE = (
    "Write a program and an input for it, unlike these:\n{known}\nAnswer as <answer>program"
    + BAR
    + "input</answer>."
)
ILLUSTRATE = (
    "Program: {program}\nWrite {number} different inputs for it. Answer as <answer>input"
    + BAR
    + "input</answer>."
)


@dataclass(frozen=True)
class Triple:
    """A program with one input and its output (deduction, abduction), or several (induction)."""

    mode: str
    program: str
    pairs: tuple[Pair, ...]

    @property
    def shown(self) -> tuple[Pair, ...]:
        """The pairs that a solver of an induction sees: the first half."""
        return self.pairs[: max(1, len(self.pairs) // 2)]

    @property
    def hidden(self) -> tuple[Pair, ...]:
        return self.pairs[len(self.shown) :] or self.pairs


@dataclass(frozen=True)
class Solved:
    """Judges an answer to a triple by running it. `extract`, `runs_programs`: as for other checks."""

    language: Language
    triple: Triple
    extract: ClassVar[str] = "tag"

    @property
    def runs_programs(self) -> bool:
        return self.language.runs_programs

    @property
    def blocking(self) -> bool:
        return self.language.runs_programs

    def __call__(self, answer: str) -> Verdict:
        found = extract(answer, self.extract)
        right = found is not None and self._right(found)
        return Verdict(float(right), right, "" if right else UNARY)

    def _right(self, found: str) -> bool:
        output = self.triple.pairs[0][1]
        if self.triple.mode == "deduction":
            return same(found, output)
        if self.triple.mode == "abduction":
            return same(self.language.run(self.triple.program, found), output)
        return all(same(self.language.run(found, i), o) for i, o in self.triple.hidden)


@dataclass(frozen=True)
class Posed:
    """Judges a proposal: right where it runs, twice with the same output. `program`: the one that inputs are to be written
    for (induction)."""

    language: Language
    mode: str
    program: str = ""
    number: int = 10
    extract: ClassVar[str] = "tag"

    @property
    def runs_programs(self) -> bool:
        return self.language.runs_programs

    @property
    def blocking(self) -> bool:
        return self.language.runs_programs

    def __call__(self, answer: str) -> Verdict:
        valid = self.read(answer, triple=True) is not None
        return Verdict(float(valid), valid, "" if valid else "That does not run.")

    def read(self, answer: str, triple: bool = False) -> Any:
        """The text of a proposal, None where there is none; with `triple`, the `Triple` that it makes, None where it does
        not run."""
        found = extract(answer, self.extract)
        if found is None or BAR not in found:
            return None
        return self._triple(found) if triple else found

    def _triple(self, found: str) -> Triple | None:
        if self.mode == "induction":
            program, given = (
                self.program,
                list(dict.fromkeys(i.strip() for i in found.split(BAR)))[: self.number],
            )
            if len(given) < 2:
                return None
        else:
            program, _, one = found.rpartition(BAR)
            program, given = program.strip(), [one.strip()]
        pairs = [(i, self.language.run(program, i)) for i in given]
        known = [(i, o) for i, o in pairs if o is not None]
        return Triple(self.mode, program, tuple(known)) if len(known) == len(pairs) and program else None


def task_of(language: Language, triple: Triple) -> Task:
    """The task of solving a triple, which stands in its meta. Its difficulty: the operations in the program."""
    given, output = triple.pairs[0]
    shown = "\n".join(f"{i} -> {o}" for i, o in triple.shown)
    text = {
        "deduction": DEDUCE.format(program=triple.program, given=given),
        "abduction": ABDUCE.format(program=triple.program, output=output),
        "induction": INDUCE.format(pairs=shown),
    }[triple.mode]
    answer = {"deduction": output, "abduction": given, "induction": triple.program}[triple.mode]
    return Task(
        (Message("user", text),),
        Solved(language, triple),
        kind=triple.mode,
        difficulty=float(language.size(triple.program)),
        answer=answer,
        reference=said(answer),
        meta={"source": "triples", TRIPLE: triple},
    )


def proposal(
    language: Language, mode: str, known: Sequence[Triple], program: str = "", number: int = 10
) -> Task:
    """The task of proposing a triple of this mode unlike those that are `known`; of an induction, inputs for `program`."""
    if mode == "induction":
        text = ILLUSTRATE.format(program=program, number=number)
    else:
        text = POSE.format(known="\n".join(f"{t.program}{BAR}{t.pairs[0][0]}" for t in known))
    return Task(
        (Message("user", text),),
        Posed(language, mode, program, number),
        kind=PROPOSE + mode,
        meta={"source": "triples"},
    )


# ---- the source ---------------------------------------------------------------------------------------------------

PARAMS = (
    Param("language", str, "arithmetic", f"what programs are written in: {' or '.join(LANGUAGES)}"),
    Param(
        "kind",
        str,
        "all",
        f"which kinds, joined by +: {', '.join(MODES)} (all of these), or {PROPOSE}... of each",
    ),
    Param("level", int | None, None, "0 to 3, operations in the program less one; none: all evenly"),
)


class TripleSource:
    """Triples drawn at random (`etude.tasks.source.Source`). Raises UserError for settings that do not exist."""

    def __init__(self, name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> None:
        own = {p.name: p.default for p in PARAMS} | typed("task 'triples'", given or {}, PARAMS)
        if own["language"] not in LANGUAGES:
            raise UserError(
                f"task 'triples': no language '{own['language']}'{nearest(own['language'], LANGUAGES)}"
            )
        chosen = list(MODES) if own["kind"] == "all" else own["kind"].split("+")
        for kind in chosen:
            if kind not in KINDS:
                raise UserError(f"task 'triples' has no kind '{kind}'{nearest(kind, KINDS)}")
        if called and len(chosen) > 1:
            raise UserError(
                "task 'triples': as=NAME needs a single kind, as in triples:kind=deduction,as=NAME"
            )
        self.name, self.language = called or name, LANGUAGES[own["language"]]
        self._kinds = {called or kind: kind for kind in chosen}
        self.kinds = tuple(self._kinds)
        self._level = None if own["level"] is None else check_level(self.name, float(own["level"]), LEVELS)

    def levels(self, kind: str) -> tuple[float, ...]:
        return LEVELS if self._level is None else (self._level,)

    def draw(self, kind: str, difficulty: float | None, n: int, seed: int) -> list[Task]:
        levels = self.levels(kind)
        level = self._level if difficulty is None else check_level(kind, difficulty, levels)
        tasks = []
        for i in range(n):
            own = item_seed("triple", self.language.name, kind, seed, i)
            here = level if level is not None else levels[own % len(levels)]
            task = self._task(self._kinds[kind], int(here) + 1, own)
            tasks.append(replace(task, kind=kind, difficulty=here))
        return tasks

    def _task(self, kind: str, size: int, seed: int) -> Task:
        rng, mode = generator(seed, "triple"), kind.removeprefix(PROPOSE)
        if kind in MODES:
            return task_of(self.language, self._triple(rng, mode, size))
        known = [self._triple(rng, "deduction", 1) for _ in range(2)]
        new = self._triple(rng, mode, size)
        task = proposal(self.language, mode, known, new.program, 4)
        written = [i for i, _ in new.pairs[:4]] if mode == "induction" else [new.program, new.pairs[0][0]]
        return replace(task, reference=said(BAR.join(written)), answer=BAR.join(written))

    def _triple(self, rng: Any, mode: str, size: int) -> Triple:
        program, inputs = self.language.draw(rng, size)
        known = inputs if mode == "induction" else inputs[:1]
        pairs = [(i, self.language.run(program, i)) for i in known]
        return Triple(mode, program, tuple((i, o) for i, o in pairs if o is not None))

    def describe(self) -> Info:
        return Info(
            self.name,
            "generator",
            "A program, its input or its output is missing; judged by running it (recipe absolute_zero)",
            PARAMS,
            dict.fromkeys(MODES, LEVELS),
            ("reference", "feedback"),
        )

    def fingerprint(self) -> str:
        return digest(["triples 1", self.language.name, self._kinds, self._level])
