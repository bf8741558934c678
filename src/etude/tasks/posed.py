"""Written problems (a model's, say) made into tasks: answered by running them, or by a majority of answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from etude.tasks.answer import Answer
from etude.tasks.arithmetic import evaluate
from etude.tasks.check import Exact, Number
from etude.tasks.extract import value
from etude.types import Check, Message, Task

_EXPRESSION = re.compile(r"[-(]*\d[\d\s.+\-*/×÷()]*[\d)]")


def worked_out(example: Task, text: str) -> Task | None:
    """The problem in `text`, of the same form as `example`, with its answer computed: by the example's checker where
    that can (`posed(task, text)`), else as written arithmetic. None where nothing can be run, and for the example
    itself."""
    posed = getattr(example.check, "posed", None)
    task: Task | None = posed(example, text) if posed else arithmetic(example, text)
    return None if task is None or task.key == example.key else _marked(task)


def arithmetic(example: Task, text: str) -> Task | None:
    """The example with the longest expression of `text` in place of its own. None unless the example's answer is
    what its own expression gives, so that this is known to be the way to work it out, and for a broken number."""
    question = example.prompt[-1].content
    mine, new = expression(question), expression(text)
    if mine is None or new is None or value(example.answer or "") != mine[1] or new[1].denominator != 1:
        return None
    gold = str(new[1])
    check = _like(example.check, gold) or Number(gold, *_manner(example.check))
    return _another(example, question.replace(mine[0], new[0], 1), gold, check)


def expression(text: str) -> tuple[str, Fraction] | None:
    """The longest arithmetic expression in a text that holds an operation, and its value."""
    found = [m.strip() for m in _EXPRESSION.findall(text)]
    known = [(e, evaluate(e)) for e in found if re.search(r"[\d)]\s*[-+*/×÷]", e)]
    whole = [(e, v) for e, v in known if v is not None]
    return max(whole, key=lambda pair: len(pair[0]), default=None)


def by_majority(example: Task, text: str, answers: Sequence[str | None], least: int) -> Task | None:
    """The problem `text` with the answer that most of `answers` give, if at least `least` do; None otherwise."""
    (top, count), *_ = Counter(a for a in answers if a is not None).most_common(1) or [("", 0)]
    if count < least or not text.strip():
        return None
    task = _another(
        example, text.strip(), top, _like(example.check, top) or Exact(top, *_manner(example.check))
    )
    return None if task.key == example.key else _marked(task)


def with_answer(example: Task, text: str) -> Task | None:
    """The problem in a text: with its answer worked out where it can be, else with the one that the text gives after "Answer:".
    None where there is neither."""
    found = worked_out(example, text)
    if found is not None:
        return found
    problem, marked, answer = text.rpartition("Answer:")
    problem = problem.partition("Problem:")[2] if "Problem:" in problem else problem
    answer = answer.strip().split("\n")[0].strip()
    return by_majority(example, problem, [answer], 1) if marked and problem.strip() and answer else None


def _another(example: Task, question: str, gold: str, check: Check) -> Task:
    prompt = (*example.prompt[:-1], Message(example.prompt[-1].role, question))
    meta = {k: v for k, v in example.meta.items() if k not in ("steps", "environment_key")}
    return replace(example, prompt=prompt, check=check, answer=gold, reference=None, hints=(), meta=meta)


def _marked(task: Task) -> Task:
    return replace(task, meta={**task.meta, "written": True})


def _like(check: Check, gold: str) -> Check | None:
    """The check that looks at the gold to know how it is compared, for another gold; None for other checks."""
    return replace(check, gold=gold) if isinstance(check, Answer) else None


def _manner(check: Check) -> tuple[str, str]:
    """Where a checker looks for the answer, and what it says of a wrong one."""
    return str(getattr(check, "extract", "line")), str(getattr(check, "feedback", "unary"))
