"""What environments say when an attempt fails, how much of it, and that none of it leaks the answer unasked."""

import pickle
from dataclasses import replace

import pytest

from etude.errors import UserError
from etude.tasks import load, sandbox, self_test
from etude.tasks.arithmetic import evaluate, wrong_step
from etude.tasks.check import Number
from etude.tasks.constraints import Meets
from etude.tasks.environments import KINDS, EnvironmentSource
from etude.tasks.frozen_lake import FrozenLake
from etude.tasks.isolate import Pool
from etude.tasks.program import Program
from etude.tasks.sokoban import Sokoban
from etude.tasks.sums import Calculator, RunningTotal
from etude.types import Request

OWN = ("sokoban_world", "calculator", "running_total", "constraints", "program")


@pytest.mark.parametrize("name", OWN)
def test_every_level_passes_its_self_test(name: str) -> None:
    for level in EnvironmentSource(name).levels(name):
        for task in EnvironmentSource(name).draw(name, level, 2, 3):
            self_test(task)
            assert pickle.loads(pickle.dumps(task)).key == task.key
            assert task.meta["feedback"] == "unary"


@pytest.mark.parametrize("name", OWN)
def test_seeds_share_nothing_and_repeat_themselves(name: str) -> None:
    def keys(seed: int) -> list[str]:
        return [t.key for t in EnvironmentSource(name).draw(name, 3.0, 4, seed)]

    assert keys(0) == keys(0)
    assert not set(keys(0)) & set(keys(1))


@pytest.mark.parametrize("name", [*OWN, "frozen_lake", "number_guess"])
def test_degrees_of_feedback(name: str) -> None:
    """none says nothing, unary the same for every failure, hint more than unary, full the answer."""
    said = {}
    for degree in ("none", "unary", "hint", "full"):
        task = EnvironmentSource(name, {"feedback": degree}).draw(name, 1.0, 1, 5)[0]
        if task.environment is None:
            verdict = task.check("1000003" if name == "constraints" else "def f(xs): return 1000003")
        else:
            environment, verdict = task.environment(), None
            while verdict is None:
                _, verdict = environment.act("nothing")
        assert not verdict.correct
        said[degree] = verdict.feedback
    assert said["none"] == ""
    assert len(set(said.values())) == 4, said
    assert len(said["hint"]) > len(said["unary"])
    gold = (task.answer or task.reference).split("\n")[-1].removeprefix("ANSWER ").strip()
    assert gold in said["full"]
    assert gold not in said["unary"]


def test_the_working_is_read_line_by_line() -> None:
    assert wrong_step("12 + 5 = 17\n17 * 3 = 41\nso 41") == "Line 2 is wrong: 17 * 3 is not 41."
    assert wrong_step("1 + 1 = 2, then 2 + 2 = 5") == "Line 1 is wrong: 2 + 2 is not 5."
    assert wrong_step("2 + 3 = 5 + 4 = 9") == "", "a chain says nothing false that can be read with certainty"
    assert wrong_step("x + 3 = 5 and f(2) = 7 and 10 / 4 = 2.5") == ""
    assert wrong_step("(2 + 3) * 4 = 21") == "Line 1 is wrong: (2 + 3) * 4 is not 21."
    assert wrong_step("1" * 5000 + " = 2") == ""
    assert evaluate("2 ** 9 ** 9") is evaluate("1 / 0") is evaluate("__import__('os')") is None


def test_exact_answers_hear_of_the_wrong_step() -> None:
    hint = Number("51", feedback="hint")("12 + 5 = 17\n17 * 3 = 41\n41").feedback
    assert hint == "41 is too low. Line 2 is wrong: 17 * 3 is not 41."
    assert "51" not in hint
    assert "Line" not in Number("51", feedback="unary")("17 * 3 = 41").feedback


def test_constraints_name_the_first_that_is_violated() -> None:
    check = Meets("35", feedback="hint", rules=(("above", 30), ("below", 40), ("divisible", 5)))
    assert check("35").correct
    assert check("It is 36.").feedback == "That is not right. 36 is not divisible by 5."
    assert check("20").feedback == "That is not right. 20 is not greater than 30."
    assert check("32.5").feedback.endswith("is not a whole number.")
    assert not check("-35").correct


CASES = ((([1, 2],), 3), (([],), 0))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(xs): return max(xs)", "f([1, 2]) returned 2; it should return 3."),
        ("def f(xs): return 3", "f([]) returned 3; it should return 0."),
        ("def f(xs):\n  return xs[", "Line 2 of the program cannot be read"),
        ("def g(xs): return 3", "The program defines no function f."),
        ("def f(xs): return 6 // len(xs)", "f([]) raised ZeroDivisionError"),
        ("def f(xs): exit()", "f([1, 2]) raised SystemExit"),
        ("raise KeyError('a')", "The program cannot be loaded: raised KeyError"),
        ("def f(xs):\n  xs.append(1); return sum(xs)", "f([1, 2]) returned 4; it should return 3."),
        ("def f(xs): return float(sum(xs))", "f([1, 2]) returned 3.0; it should return 3."),
    ],
)
def test_programs_hear_of_the_failing_case(code: str, said: str) -> None:
    assert Program("f", CASES, feedback="hint")(f"Here:\n```python\n{code}\n```").feedback.startswith(said)


def test_a_program_that_never_ends_is_wrong_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = sandbox.Sandbox(sandbox.Limits(seconds=0.1), ahead=1)
    monkeypatch.setattr(sandbox, "shared", lambda: quick)
    endless = "def f(xs):\n  while True:\n    try: pass\n    except Exception: pass"
    assert "took longer" in Program("f", CASES, feedback="hint")(endless).feedback
    with Pool(1) as pool:
        assert pool.run(Program("f", CASES), "def f(xs): return sum(xs)").correct


def test_programs_from_a_file(tmp_path) -> None:
    import json

    row = {"prompt": "add", "answer": "def f(a, b): return a + b", "check": "program", "function": "f"}
    file = tmp_path / "programs.jsonl"
    lines = [{**row, "prompt": f"add {i}", "cases": [[[1, i], 1 + i]]} for i in range(4)]
    file.write_text("\n".join(map(json.dumps, lines)))
    task = load(f"{file}:feedback=hint").draw(Request(), 0, 0)
    self_test(task)
    assert task.check("def f(a, b): return 0").feedback.startswith("f(1, ")
    for wrong, match in (
        ({"cases": []}, "needs 'cases'"),
        ({"cases": [[1, 2]]}, "needs 'cases'"),
        ({"cases": [[[1, 2], 3]], "function": "2f"}, "needs 'function'"),
    ):
        file.write_text(json.dumps({**row, **wrong}))
        with pytest.raises(UserError, match=match):
            load(str(file))


def test_slips_differ_between_attempts() -> None:
    """Two attempts at one lake meet other ice; the same luck meets the same."""
    task = load("frozen_lake:slippery=true,size=4").draw(Request(), 0, 0)

    def cells(seed: int) -> list[int]:
        return [task.environment(seed)._lake.move(0, 2, turn) for turn in range(12)]

    assert cells(1) == cells(1)
    assert cells(1) != cells(2)
    walk, verdict = replace(task.environment, feedback="full")(3), None
    while verdict is None:
        _, verdict = walk.act("hm")
    assert "A way that works without a slip: " in verdict.feedback
    still = FrozenLake(("SF", "HG"), None, 4)
    assert still(1)._lake == still(2)._lake


def test_sokoban() -> None:
    corridor = frozenset((0, c) for c in range(4))
    room = Sokoban(4, corridor, frozenset({(0, 3)}), frozenset({(0, 1)}), (0, 0), 5, "hint")
    game = room()
    assert game.observe().split("\n")[1] == "# P B _ G #"
    assert game.act("left")[0].startswith("Something is in the way.")
    said, verdict = game.act("right")
    assert (said.split("\n")[1], verdict) == ("# _ P B G #", None)
    assert game.act("right")[1].correct
    assert room.solve() == ["right", "right"]
    two = replace(room, boxes=frozenset({(0, 1), (0, 2)}), goals=frozenset({(0, 2), (0, 3)}))
    assert two.step((0, 0), two.boxes, "right") == ((0, 0), two.boxes), "one box at a time"
    lost = room()
    for word in ("left", "hm", "right", "left"):
        _, verdict = lost.act(word)
        assert verdict is None
    _, verdict = lost.act("up")
    assert verdict.feedback == (
        "1 of 1 goals without a box. Your moves: left (blocked), no move was understood, right (pushed), left, "
        "up (blocked)."
    )


def test_calculator_and_running_total() -> None:
    game = Calculator("3 + 4 * 5", 4, "hint")()
    assert game.solve() == ["CALC 4 * 5", "CALC 3 + 20", "ANSWER 23"]
    assert game.act("calc: 4 * 5")[0].startswith("4 * 5 = 20\nYou have 3 replies left.")
    _, verdict = game.act("ANSWER 35")
    assert verdict.feedback == "35 is too high. Your calls: 4 * 5 = 20."
    total = RunningTotal(7, (("+", 5), ("*", 2)), "hint")()
    assert total.observe() == "Start with 7. Add 5. What is the number now?"
    assert total.act("11") == ("Multiply by 2. What is the number now?", None)
    assert total.act("24")[1].feedback == "Step 1 is wrong: the number was not 11 then."
    assert RunningTotal(7, (("+", 5), ("*", 2)))().solve() == ["12", "24"]


@pytest.mark.parametrize(
    ("name", "given", "match"),
    [
        ("sokoban_world", {"size": "9"}, "size=9 is out of range; it must be from 3 to 8"),
        ("calculator", {"turns": "1", "operations": "2"}, "turns=1 is too few for 2 operations"),
        ("constraints", {"rules": "7"}, "rules=7 is out of range"),
        ("program", {"steps": "0"}, "steps=0 is out of range"),
        ("running_total", {"feedback": "loud"}, "choose one of none, unary, hint, full"),
    ],
)
def test_bad_settings_are_one_sentence(name: str, given: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        EnvironmentSource(name, given)
    assert name in KINDS
