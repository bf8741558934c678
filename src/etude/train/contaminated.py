"""`etude eval MODEL --tasks FILE --contamination`: does the model know the questions that it is examined with?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from etude.evaluate.completion import Completed, completed
from etude.evaluate.intervals import Interval, clustered
from etude.evaluate.run import attempt
from etude.event_loop import run as run_coroutine
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.tasks.check import judged
from etude.tasks.isolate import Pool
from etude.train.measure import Exam, checked_settings, fitting, run_defaults, speaking
from etude.train.settings import run_settings
from etude.types import Message, Task

SHARES = (0.8, 0.6, 0.4)


@dataclass(frozen=True)
class Probe:
    """What was found where the first `share` of each question was shown. `answered`: right answers to the question that was cut
    off there; None where nothing is checked."""

    share: float
    rouge: Interval
    exact: Interval
    answered: Interval | None
    questions: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "share": self.share,
            "questions": self.questions,
            "rouge": vars(self.rouge),
            "exact": vars(self.exact),
            "answered": self.answered and vars(self.answered),
        }


def probe(
    generator: Generator, tasks: Sequence[Task], pool: Pool, shares: Sequence[float] = SHARES
) -> list[Probe]:
    """The probe at each share, and greedy answers to the questions cut off there."""
    found = []
    for share in shares:
        rows = completed(generator, tasks, share)
        rights = answered(generator, rows, share, pool)
        rouge, exact = clustered([r.rouge for r in rows]), clustered([float(r.exact) for r in rows])
        found.append(Probe(share, rouge, exact, clustered(rights) if rights else None, len(rows)))
    return found


def answered(generator: Generator, rows: Sequence[Completed], share: float, pool: Pool) -> list[float]:
    """1.0 or 0.0 for every question with a check: whether its first words alone are answered with the gold answer."""
    asked = [_cut_off(r.task, share, generator) for r in rows if judged(r.task)]
    if not asked:
        return []
    greedy = replace(generator, params=replace(generator.params, greedy=True))
    groups = run_coroutine(attempt(greedy, checks_in(pool, generator.sampler, {}), asked, 1, 0))
    return [float(e.correct) for g in groups for e in g.episodes]


def _cut_off(task: Task, share: float, generator: Generator) -> Task:
    *before, last = task.prompt
    encode, decode = generator.renderer.tokenizer.encode, generator.renderer.decode
    words = encode(last.content)
    return replace(task, prompt=(*before, Message(last.role, decode(words[: round(share * len(words))]))))


def probe_model(where: str, exam: Exam, shares: Sequence[float] = SHARES) -> list[Probe]:
    """The probe of a model by name, directory or run on the problems of `exam`."""
    checked_settings(exam.changes)
    settings = run_settings(run_defaults(where), exam.changes)
    theirs = [part for task in exam.problems for part in (task.check, task.environment) if part]
    with Pool(seconds=settings.check_seconds, known=theirs) as pool:
        speaker = speaking(where, settings, exam.changes, [])
        return probe(
            speaker.generator, fitting(exam.problems, speaker.policy, settings.context), pool, shares
        )


def screen(name: str, found: Sequence[Probe]) -> str:
    """The probe as text."""
    rows = [("shown", "ROUGE-L", "continued exactly", "answered from it", "questions")]
    for p in found:
        answer = _said(p.answered) if p.answered else "not checked"
        rows.append((f"{p.share:.0%}", _said(p.rouge), _said(p.exact), answer, str(p.questions)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    told = (
        "How the model goes on after the first part of each question, greedily, against what was written there; and right "
        "answers to the part alone. Questions that the model cannot know (made anew, of the same kind) show what is chance."
    )
    return "\n".join([name, *lines, "", told])


def _said(found: Interval) -> str:
    return f"{100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def facts(name: str, found: Sequence[Probe]) -> Mapping[str, Any]:
    return {"name": name, "probes": [p.to_dict() for p in found]}
