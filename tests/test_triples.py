"""Programs, inputs and outputs as tasks, what a proposer writes, and the buffer that keeps it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from etude.assembly import build
from etude.curriculum.written import Written, WrittenTasks
from etude.errors import UserError
from etude.fixtures.curricula import ExampleContext
from etude.fixtures.given import Letters
from etude.methods import find
from etude.methods.self_play.absolute_zero import PROPOSED
from etude.rollout.basic import single
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import GroupRollout
from etude.tasks import confinement, load, self_test
from etude.tasks.languages import Arithmetic, Python, same
from etude.tasks.triples import Triple, proposal, task_of
from etude.testing import toys
from etude.types import Message, Request, SamplingParams, Task

needs_sandbox = pytest.mark.skipif(not confinement.protection(), reason="nothing keeps programs in here")


@pytest.mark.parametrize(
    ("program", "given", "output"),
    [
        ("X*2+3", "4", "11"),
        ("(X-1)*X", " -3 ", "12"),
        ("7", "1", "7"),
        ("X/2", "4", None),  # no division
        ("X**9", "4", None),
        ("X*999999999", "9", None),  # too large
        ("__import__('os')", "1", None),
        ("X", "1.5", None),
        ("X+", "1", None),
    ],
)
def test_arithmetic_is_read_not_executed(program: str, given: str, output: str | None) -> None:
    assert Arithmetic().run(program, given) == output


@needs_sandbox
def test_python_runs_in_the_sandbox() -> None:
    python = Python()
    assert python.run("def f(x):\n    return sorted(x)", "[3, 1]") == "[1, 3]"
    assert python.run("def f(a, b):\n    return a + b", "'x', 'y'") == "'xy'"
    assert (
        python.run("import random\ndef f(x):\n    return random.random()", "1") is None
    )  # not twice the same
    assert python.run("def f(x):\n    return open('/etc/passwd').read()", "1") is None
    assert python.run("def f(x):\n    return f", "1") is None  # nothing that can be compared
    assert python.run("def g(x):\n    return x", "1") is None
    assert python.run("def f(x):\n    return x", "x") is None


def test_values_are_the_same_as_literals() -> None:
    assert same("[1, 2]", "[1,2]")
    assert not same("1", "True")
    assert not same("1", "1.0")
    assert same("a b", " a b ")
    assert not same(None, "1")


@pytest.mark.parametrize(
    "kind", ["deduction", "abduction", "induction", "propose_deduction", "propose_induction"]
)
def test_drawn_tasks_accept_their_solution(kind: str) -> None:
    tasks = load(f"triples:kind={kind}")
    for i in range(6):
        task = tasks.draw(Request(), i, 0)
        assert task.check(task.reference or "").correct
        if not kind.startswith("propose"):
            self_test(task)


def test_any_input_that_works_solves_an_abduction_and_any_program_an_induction() -> None:
    square = task_of(Arithmetic(), Triple("abduction", "X*X", (("3", "9"),)))
    assert square.check("<answer>-3</answer>").correct
    assert not square.check("<answer>4</answer>").correct
    pairs = tuple((str(i), str(2 * i)) for i in range(4))
    double = task_of(Arithmetic(), Triple("induction", "X*2", pairs))
    assert "3 -> 6" not in double.prompt[0].content  # the second half is hidden
    assert double.check("<answer>X+X</answer>").correct
    assert not double.check("<answer>X</answer>").correct


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<answer>X+1|2</answer>", "X+1"),
        ("<answer>X/0|2</answer>", None),
        ("<answer>X+1</answer>", None),
        ("X+1|2", None),
    ],
)
def test_what_a_proposal_is(text: str, program: str | None) -> None:
    check = proposal(Arithmetic(), "deduction", []).check
    found = check.read(text, triple=True)  # type: ignore[attr-defined]
    assert (found.program if found else None) == program
    assert check(text).correct == (program is not None)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("triples:language=pyton", "no language 'pyton'; did you mean 'python'?"),
        ("triples:kind=deductoin", "no kind 'deductoin'; did you mean 'deduction'?"),
        ("triples:level=9", "no difficulty 9"),
    ],
)
def test_bad_settings_get_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        load(spec)


# ---- a proposal is tried out ---------------------------------------------------------------------------------------


def trying(replies: list[str], samples: int) -> tuple[Any, Any, toys.ScriptedSampler]:
    """Proposals and attempts at them, scripted: what plays them, the stages, and who says `replies`."""
    _, stages = build(find("absolute_zero"), {"group_rollout.probes": 4})
    letters: Any = Letters()  # every sign is a token; the toys' own tokenizer has no bar
    policy: Any = SimpleNamespace(tokenizer=letters, renderer=letters)
    speaker = toys.ScriptedSampler(policy, replies=replies)
    rollouts = GroupRollout(
        proposal(Arithmetic(), "deduction", []),
        Request(),
        samples,
        Generator(speaker, letters, SamplingParams(max_tokens=64)),
        toys.check_runner,
        single(),
        stages["reward"],
        key=1,
    )
    return rollouts, stages, speaker


def test_a_proposal_is_worth_what_the_solver_makes_of_it() -> None:
    tries = ["<answer>3</answer>", "<answer>4</answer>", "<answer>4</answer>", "<answer>4</answer>"]
    rollouts, stages, speaker = trying(["<answer>X+1|2</answer>", *tries], 1)
    (episode,) = asyncio.run(stages["group_rollout"](rollouts))
    assert episode.notes[PROPOSED]["rate"] == 0.25
    assert episode.scores["reward"] == 0.75
    rollouts.admits = lambda task: False  # held out: no task, and nothing is earned
    speaker.replies = ["<answer>X+1|2</answer>", *tries]
    (episode,) = asyncio.run(stages["group_rollout"](rollouts))
    assert PROPOSED not in episode.notes
    assert episode.scores["reward"] == -0.5


def test_attempts_at_two_proposals_are_drawn_apart() -> None:
    rollouts, stages, _ = trying(
        ["<answer>X+1|2</answer>", "<answer>X+2|2</answer>", *["<answer>3</answer>"] * 8], 2
    )
    play, seen = rollouts.play, []

    async def noted(index: int, *more: Any) -> Any:
        seen.append(index)
        return await play(index, *more)

    rollouts.play = noted
    asyncio.run(stages["group_rollout"](rollouts))
    assert len(seen) == len(set(seen)) == 2 + 8


# ---- the buffer ----------------------------------------------------------------------------------------------------


def _asks(text: str) -> Written:
    return Written(Task((Message("user", text),), toys.coin, kind="a"))


class _Held:
    def held(self, task: Task) -> bool:
        return "secret" in task.prompt[0].content


def test_no_written_task_comes_twice_nor_one_that_is_held_out() -> None:
    kept, context = WrittenTasks(most=2), ExampleContext(tasks=_Held())
    assert [kept.add(_asks(t), context) for t in ("one", "one", "secret", "two", "three")] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert [w.task.prompt[0].content for w in kept] == ["two", "three"]
    assert kept.report()["refused/the same"] == kept.report()["refused/held out"] == 1


def test_near_repeats_are_refused_and_the_state_is_whole() -> None:
    context = ExampleContext()
    words = "a train leaves the town at noon and goes north at forty miles an hour how far is it by five"
    near, exact = WrittenTasks(near=0.7), WrittenTasks()
    for kept, wanted in ((near, [True, False, True]), (exact, [True, True, True])):
        added = [
            kept.add(_asks(t), context)
            for t in (words, f"{words} thirty", "what is the sum of two and three")
        ]
        assert added == wanted
    again = WrittenTasks(near=0.7)
    again.load_state_dict(near.state_dict())
    assert not again.add(_asks(f"{words} thirty"), context)
    assert len(again.sample(5, np.random.default_rng(0))) == 2
