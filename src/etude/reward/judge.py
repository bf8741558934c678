"""Judges: a language model that says how good an answer is.

`judge:WHO[,how=...][,rubric=FILE.toml][,cache=FILE.jsonl]`, WHO being policy, frozen, a model or http://HOST/v1#MODEL.

    how=score      a number from 0 to 10, divided by 10 (the default without a rubric)
    how=rubric     which criteria are met: sum of the points of those over the sum of the positive points; of rubric=FILE, or of
                   the task's own column `rubric`
    how=reference  a number as for `score`, with the task's reference or answer in view
    how=pairwise   the share of the group's other answers that it beats; each two are compared in both orders
    how=listwise   (K - rank) / (K - 1) among the K answers of the group, a mean over two orders

Both orders are asked because judges favour a place: an answer that wins in one place only has drawn.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import UserError, nearest
from etude.files import writing
from etude.reward.asking import Asked, JudgeError, asked
from etude.reward.scores import Scores
from etude.types import Episode, Message, Task

HOW = ("score", "rubric", "reference", "pairwise", "listwise")
TOP = 10  # of the scale
TOKENS = 256  # of a judgement
KEPT = 600  # characters of a judgement that are kept with the episode

_SCORE = re.compile(r"score\s*[:=]?\s*\**\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_BEST = re.compile(r"(?:better|best|winner|answer)\s*[:=]\s*\**\s*(?:answer\s+)?([AB]|tie)\b", re.IGNORECASE)
_ORDER = re.compile(r"(?:order|ranking)\s*[:=]\s*\**\s*([A-Z](?:\s*[>,]\s*[A-Z])*)", re.IGNORECASE)
_MET = re.compile(r"^\W*(\d+)\W+(yes|no)\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Criterion:
    """What an answer should do (positive points) or should not do (negative)."""

    says: str
    points: float = 1.0


@dataclass
class Judge:
    """Asks `who`, remembers what was said, and reads it. A judgement that cannot be had or read raises JudgeError."""

    who: Asked
    how: str = "score"
    rubric: tuple[Criterion, ...] = ()
    cache: Path | None = None
    _known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise UserError(f"how is '{self.how}'{nearest(self.how, HOW)}")
        if self.cache is not None and self.cache.exists():
            for line in self.cache.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = entry["said"]

    # ---- what the run needs ------------------------------------------------------------------------------

    @property
    def reads(self) -> frozenset[str]:
        return getattr(self.who, "reads", frozenset())

    @property
    def policies(self) -> list[Any]:
        return getattr(self.who, "policies", [])

    def load(self, **settings: Any) -> None:
        if hasattr(self.who, "load"):
            self.who.load(**settings)

    def bind(self, generators: Mapping[str, Any]) -> None:
        if hasattr(self.who, "bind"):
            self.who.bind(generators)

    @property
    def of_groups(self) -> bool:
        """Whether answers are judged against each other."""
        return self.how in ("pairwise", "listwise")

    async def score_episode(self, episode: Episode) -> Scores:
        """Of the last reply to the task's prompt."""
        value, said = await self.judged(episode.task, episode.text)
        return Scores({"reward": value}, {"judgement": said[:KEPT]})

    async def score_group(self, episodes: Sequence[Episode]) -> list[Scores]:
        """Of answers to one task, against each other. One alone is worth 1/2."""
        texts = [e.text for e in episodes]
        rank = self.tournament if self.how == "pairwise" else self.listed
        values, said = await rank(episodes[0].task, texts)
        return [Scores({"reward": v}, {"judgement": s[:KEPT]}) for v, s in zip(values, said, strict=True)]

    # ---- judgements --------------------------------------------------------------------------------------

    async def judged(self, task: Task, answer: str) -> tuple[float, str]:
        """A number in [0, 1] (a rubric with negative points may give less than 0), and what the judge said."""
        if self.how == "rubric":
            return await self._by_rubric(task, answer)
        lines = [f"Question:\n{_question(task)}", f"Answer:\n{answer}"]
        if self.how == "reference":
            gold = task.reference or task.answer
            if not gold:
                raise JudgeError("how=reference needs tasks with a reference or an answer")
            lines.insert(1, f"A correct answer, for comparison:\n{gold}")
        said = await self._ask(SCORE, "\n\n".join(lines))
        found = _SCORE.findall(said)
        if not found or not 0 <= float(found[-1]) <= TOP:
            raise JudgeError(f"the judge gave no score from 0 to {TOP}: '{said[-120:]}'")
        return float(found[-1]) / TOP, said

    async def _by_rubric(self, task: Task, answer: str) -> tuple[float, str]:
        criteria = self.rubric or criteria_of(task.meta.get("rubric"), "the task's rubric")
        if not criteria:
            raise JudgeError("how=rubric needs rubric=FILE.toml, or tasks with a column 'rubric'")
        listed = "\n".join(f"{i}. {c.says}" for i, c in enumerate(criteria, 1))
        said = await self._ask(
            RUBRIC, f"Question:\n{_question(task)}\n\nAnswer:\n{answer}\n\nStatements:\n{listed}"
        )
        met = {int(n): word.lower() == "yes" for n, word in _MET.findall(said)}
        if set(met) != set(range(1, len(criteria) + 1)):
            raise JudgeError(f"the judge did not answer all of {len(criteria)} criteria: '{said[-120:]}'")
        return share_of_points(criteria, [met[i] for i in range(1, len(criteria) + 1)]), said

    async def compare(self, task: Task, first: str, second: str) -> tuple[float, str]:
        """1 where `first` is better in both orders, 0 where `second` is, 1/2 where they disagree or tie."""
        there, back = await asyncio.gather(
            self._one_order(task, first, second), self._one_order(task, second, first)
        )
        return (there[0] + 1 - back[0]) / 2, f"{there[1]}\n---\n{back[1]}"

    async def _one_order(self, task: Task, a: str, b: str) -> tuple[float, str]:
        """1 where answer A is better, 0 where B is, 1/2 for a tie."""
        lines = [f"Question:\n{_question(task)}", f"Answer A:\n{a}", f"Answer B:\n{b}"]
        if task.reference:
            lines.insert(1, f"A correct answer, for comparison:\n{task.reference}")
        said = await self._ask(PAIR, "\n\n".join(lines))
        found = _BEST.findall(said)
        if not found:
            raise JudgeError(f"the judge named no better answer: '{said[-120:]}'")
        return {"A": 1.0, "B": 0.0, "TIE": 0.5}[found[-1].upper()], said

    async def tournament(self, task: Task, answers: Sequence[str]) -> tuple[list[float], list[str]]:
        """Of each answer the share of the others that it beats."""
        n = len(answers)
        pairs = [(i, j) for i in range(n) for j in range(i)]
        found = await asyncio.gather(*(self.compare(task, answers[i], answers[j]) for i, j in pairs))
        won, said = [0.0] * n, [""] * n
        for (i, j), (share, words) in zip(pairs, found, strict=True):
            won[i], won[j] = won[i] + share, won[j] + 1 - share
            said[i], said[j] = said[i] or words, said[j] or words
        return [w / (n - 1) for w in won] if n > 1 else [0.5] * n, said

    async def listed(self, task: Task, answers: Sequence[str]) -> tuple[list[float], list[str]]:
        """Of each answer its place in one list of all, from 1 (first) to 0, a mean over two orders of showing them."""
        n = len(answers)
        if n < 2:
            return [0.5] * n, [""] * n
        if n > 26:
            raise JudgeError(f"a list of {n} answers is too long to be ranked; lower run.group_size to 26")
        orders = [list(range(n)), list(range(n))[::-1]]
        found = await asyncio.gather(*(self._order(task, [answers[i] for i in order]) for order in orders))
        worth = [0.0] * n
        for order, (ranked, _) in zip(orders, found, strict=True):
            for place, shown in enumerate(ranked):
                worth[order[shown]] += (n - 1 - place) / (n - 1) / 2
        return worth, [found[0][1]] * n

    async def _order(self, task: Task, answers: Sequence[str]) -> tuple[list[int], str]:
        shown = "\n\n".join(f"Answer {chr(65 + i)}:\n{a}" for i, a in enumerate(answers))
        said = await self._ask(LIST, f"Question:\n{_question(task)}\n\n{shown}")
        found = _ORDER.findall(said)
        ranked = [ord(c.upper()) - 65 for c in re.findall("[A-Za-z]", found[-1])] if found else []
        if sorted(ranked) != list(range(len(answers))):
            raise JudgeError(f"the judge did not rank all {len(answers)} answers: '{said[-120:]}'")
        return ranked, said

    async def _ask(self, how: str, what: str) -> str:
        """What the judge says, or said before of the very same words."""
        messages = [Message("user", f"{what}\n\n{how}")]
        key = hashlib.blake2b(f"{self.who.name}\0{messages[0].content}".encode(), digest_size=16).hexdigest()
        if self.who.name and key in self._known:
            return self._known[key]
        said = await self.who.reply(messages, TOKENS)
        if self.who.name:
            self._known[key] = said
            if self.cache is not None:
                with writing(self.cache), self.cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "said": said}) + "\n")
        return said


SCORE = (
    f"How good is the answer? Judge what it says, not how long it is. Give one short reason, then a last line 'Score: N', N from 0 "
    f"(wrong, off the question) to {TOP} (could not be better)."
)
RUBRIC = "For each statement, in order, write one line 'NUMBER: yes' or 'NUMBER: no': is it true of the answer? Write nothing else."
PAIR = (
    "Which answer is better? Judge what it says, not how long it is nor where it stands. Give one short reason, then a last line "
    "'Better: A', 'Better: B' or 'Better: tie'."
)
LIST = "Order the answers from best to worst. Judge what they say, not how long they are. Last line: 'Order: ' and the letters, as in B > A > C."


def _question(task: Task) -> str:
    return "\n".join(m.content if m.role == "user" else f"[{m.role}] {m.content}" for m in task.prompt)


def share_of_points(criteria: Sequence[Criterion], met: Sequence[bool]) -> float:
    """sum_j p_j [c_j met] / sum of the positive p_j; not clipped (arXiv 2508.16949)."""
    return sum(c.points for c, m in zip(criteria, met, strict=True) if m) / sum(
        c.points for c in criteria if c.points > 0
    )


def criteria_of(given: Any, where: str) -> tuple[Criterion, ...]:
    """Criteria from a list of texts, or of objects with `criterion` and `points`. Raises UserError."""
    if given is None:
        return ()
    if not isinstance(given, list | tuple):
        raise UserError(f"{where} must be a list of criteria")
    found = []
    for one in given:
        says = one if isinstance(one, str) else one.get("criterion") if isinstance(one, Mapping) else None
        points = 1.0 if isinstance(one, str) else one.get("points", 1.0) if isinstance(one, Mapping) else None
        if (
            not isinstance(says, str)
            or not says.strip()
            or isinstance(points, bool)
            or not isinstance(points, int | float)
        ):
            raise UserError(
                f"{where}: each criterion must have 'criterion', text, and may have 'points', a number"
            )
        found.append(Criterion(says.strip(), float(points)))
    if not any(c.points > 0 for c in found):
        raise UserError(f"{where}: at least one criterion must have points above 0")
    return tuple(found)


def rubric_in(path: str) -> tuple[Criterion, ...]:
    """The `[[criterion]]` tables of a TOML file. Raises UserError."""
    try:
        with open(path, "rb") as file:
            held = tomllib.load(file)
    except OSError as error:
        raise UserError(f"the rubric '{path}' cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the rubric '{path}' is not TOML: {error}") from None
    tables = held.get("criterion")
    if not tables:
        raise UserError(f"the rubric '{path}' holds no [[criterion]] with criterion = \"...\" and points = 1")
    return criteria_of(tables, f"the rubric '{path}'")


def made(place: str, options: Mapping[str, str]) -> Judge:
    """The judge that `--reward judge:PLACE,option=value` names."""
    own = {name: value for name, value in options.items() if name in ("how", "rubric", "cache")}
    who = asked(place, {name: value for name, value in options.items() if name not in own})
    rubric = rubric_in(own["rubric"]) if "rubric" in own else ()
    how = own.get("how", "rubric" if rubric else "score")
    if rubric and how != "rubric":
        raise UserError(f"rubric goes with how=rubric, not how={how}")
    return Judge(who, how, rubric, Path(own["cache"]) if "cache" in own else None)
