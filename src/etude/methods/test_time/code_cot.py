"""CodeCoT with self-examination (Huang et al., arXiv 2308.08784): a program is run on tests that its own author wrote, and repaired
by the error that comes of it.

    c_0 ~ pi( . | x);  u ~ pi( . | x, tests);   while run(c_k, u) fails:  c_{k+1} ~ pi( . | x, c_k, error)

The tests that judge the answer are never shown. What reads wrongly, raises or does not end is found for certain; a wrong idea only
where the author tests for what he did not think of when he wrote.
"""

from __future__ import annotations

import ast
import asyncio
import re
from typing import Annotated

from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import below, reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.tasks.program import code_of
from etude.tools.shipped import python
from etude.tools.tool import ToolError

REASON = "Think it through step by step, then write the program in a ```python block."
TESTS = "Do not write the program. Write tests for it in a ```python block: one assert statement a line, nothing else."
REPAIR = (
    "{question}\n\nThis program was written for it:\n```python\n{code}\n```\n\nRun on its tests it fails:\n{error}\n\n"
    "Think about what is wrong, then write the whole program again in a ```python block."
)
NO_PROGRAM = "There is no program in the answer."

Repairs = Annotated[int, Setting("times that a program which fails is written again", low=0, high=32)]
Examine = Annotated[bool, Setting("run the program on tests of its author's, and repair it; else one reply")]


def code_cot(repairs: Repairs = 3, examine: Examine = True) -> Answering:
    """The first program that passes its author's tests, or the last one."""

    async def method(session: Session) -> Draft:
        if not examine:
            return await session.draft("sample", 0)
        draft = await session.draft("program", 0, said=below(session.prompt, REASON))
        session.offer(draft)
        written = await session.say(below(session.prompt, TESTS), "tests", tag="tests", parent=draft.node)
        tests = asserts(code_of(written))
        for number in range(repairs):
            error = await asyncio.to_thread(failure, draft.text, tests)
            if not error:
                break
            facts = {"question": session.question, "code": code_of(draft.text), "error": error}
            session.note(error, draft.node, "error")
            again = reworded(session.prompt, REPAIR.format(**facts))
            draft = await session.draft("repair", number, said=again, parent=draft.node, tag="repair")
            session.offer(draft)
        return draft

    return answering(method)


def asserts(text: str) -> list[str]:
    """The lines that are assert statements, each with what it asserts as its message."""
    found = []
    for line in text.splitlines():
        try:
            (statement,) = ast.parse(line.strip()).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(statement, ast.Assert):
            statement.msg = ast.Constant(ast.unparse(statement.test))
            found.append(ast.unparse(ast.fix_missing_locations(statement)))
    return found


def failure(answer: str, tests: list[str]) -> str:
    """What the program in `answer` raises, alone or on its tests; "" where it passes. It runs in the sandbox."""
    if not re.search(r"```|\bdef ", answer):
        return NO_PROGRAM
    try:
        python("\n".join([code_of(answer), *tests, "None"]))
    except ToolError as error:
        return str(error)
    return ""


def _asked(**settings: object) -> list[object]:
    """An answer without a program, tests, two repairs without one; and how often the model was asked."""
    found = answered(RECIPE, "7", "assert f(3) == 7", "8", "7", settings={"repairs": 2, **settings})
    return [len(found.asked), found.text, sum(NO_PROGRAM in asked for asked in found.asked)]


RECIPE: Recipe = Recipe(
    name="code_cot",
    paper=Paper(
        "CodeCoT: Tackling Code Syntax Errors in CoT Reasoning for Code Generation", "2308.08784", 2023
    ),
    idea="Reasons, writes a program, and writes tests for it. The program is run on these tests; where it fails, the error goes back to "
    "the model, which writes it again. The tests that decide are never seen.",
    equation="c_0 ~ pi(. | x);  u ~ pi(. | x, tests);  while run(c_k, u) fails: c_{k+1} ~ pi(. | x, c_k, error)",
    stages={"rollout": stage(code_cot)},
    default_base=RFT,
    needs=("text",),
    defaults={"group_size": 4},
    departures=(
        "asked for without an example; the paper shows one task with its reasoning, code and tests",
        "GUESS: tests are written once, in a context of their own; three repairs at most; the last program is given where none passes",
        "of the tests single lines that assert something are kept, so that they cannot change the program",
    ),
    confidence="memory",
    claim="Programs that cannot be read or that raise are repaired more often than those with a wrong idea, since tests of one's own "
    "share one's mistakes.",
    examples=(
        ByHand(
            "nothing to run: a reply, the tests, two repairs that hear so",
            lambda: [float(x == y) for x, y in zip(_asked(), (4, "7", 2), strict=True)],
            [1, 1, 1],
        ),
        ByHand(
            "of three lines one asserts",
            lambda: [asserts("f = 1\nassert f(2) == 4\nassert (") == ["assert f(2) == 4, 'f(2) == 4'"]],
            [1],
        ),
        Reduction("not examined: one reply", "majority", {"rollout.examine": False}, {"rollout.n": 1}),
    ),
)
