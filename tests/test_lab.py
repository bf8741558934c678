"""The laboratory's tasks: worked examples whose steps are right, answers that cannot be guessed, worlds that are won by
whoever works things out."""

import pickle
import re
from collections import Counter

import numpy as np
import pytest

from etude.errors import UserError
from etude.lab.problems import KINDS, LETTERS, Hand, ShakyHand, read, solve
from etude.lab.tasks import LEVELS, WORLDS, Worked, lab_task, steps_right, taught, written_steps
from etude.lab.worlds import ROOMS, TAKE, marked
from etude.seeds import generator
from etude.tasks import load, self_test
from etude.types import Request


def by_hand(said: str) -> str:
    """The result of a problem by another way than its lines."""
    kind, _, rest = said.partition(" ")
    if kind == "sum":
        return str(sum(int(n) for n in rest.split("+")))
    if kind in ("sort", "reverse"):
        return "".join(sorted(rest)) if kind == "sort" else rest[::-1]
    if kind == "run":
        state = dict(zip("ABC", map(int, rest[-3:]), strict=True))
        for a, sign, b in re.findall(r"(\w)([+-])(\w)", rest):
            state[a] = (state[a] + int(f"{sign}{state[b]}")) % 10
        return "".join(str(v) for v in state.values())
    asked, _, listed = rest.partition(" in ")
    if kind == "find":
        leads = {pair[0]: pair[1] for pair in listed.split()}
        return "".join(leads[leads[letter]] for letter in asked.split())
    smaller = Counter()
    pairs = [tuple(pair) for pair in listed.split()]
    for _ in range(len(pairs)):  # a letter's place: the longest chain of smaller ones
        for a, b in pairs:
            smaller[b] = max(smaller[b], smaller[a] + 1)
    return "".join(sorted({c for pair in pairs for c in pair}, key=lambda c: smaller[c]))


@pytest.mark.parametrize("kind", list(KINDS))
def test_solutions_and_their_steps(kind):
    for level in range(5):
        for seed in range(40):
            task = lab_task(kind, level, seed)
            said = task.prompt[0].content
            assert task.answer == by_hand(said)
            assert len(task.answer) >= 3
            assert (kind, level) == read(said)[:2]
            assert task.check(task.reference).correct
            assert steps_right(task, task.reference)
            assert len(task.meta["steps"]) == KINDS[kind].sizes[level]
            assert all(task.reference.startswith(hint) for hint in task.hints)
            assert task.hints[-1].count("\n") < len(task.meta["steps"]) - 1


def test_a_line_of_each_kind_by_hand():
    worked = {
        "sum 347+285": (["7+5=12", "4+8+1=13", "3+2+1=6"], "632"),
        "sum 907+193": (["7+3=10", "0+9+1=10", "9+1+1=11"], "1100"),
        "run A+C C-B B+A from 371": (["A+C 3+1=4 471", "C-B 1-7=4 474", "B+A 7+4=1 414"], "414"),
        "find B A C in AD BF CE D4 E7 F1": (["BF1", "AD4", "CE7"], "147"),
        "sort DACBE": (list("ABCDE"), "ABCDE"),
        "reverse DACBE": (list("EBCAD"), "EBCAD"),
        "order from B in CE DA AC EF BD": (["BD", "DA", "AC", "CE", "EF"], "BDACEF"),
    }
    for said, found in worked.items():
        assert solve(said) == found
    with pytest.raises(ValueError, match="no problem"):
        solve("sum 12")


def guesses(said: str, rng) -> list[str]:
    """Answers of the right form by somebody who works nothing out."""
    kind, _, rest = said.partition(" ")
    listed = rest.partition(" in ")[2] or rest
    letters = list(dict.fromkeys(c for c in listed if c.isalpha()))
    digits = [c for c in listed if c.isdigit()]
    if kind == "order":
        begin = rest.split()[1]
        others = [c for c in letters if c != begin]
        return [begin + "".join(others), begin + "".join(rng.permutation(others))]
    if kind in ("sort", "reverse"):
        return ["".join(letters), "".join(rng.permutation(letters)), "".join(rng.permutation(letters))]
    if kind == "find":
        asked = len(rest.partition(" in ")[0].split())
        return ["".join(rng.permutation(digits)[:asked]), "".join(rng.choice(digits, asked))]
    if kind == "run":
        return ["".join(digits), "".join(rng.permutation(digits)), f"{rng.integers(1000):03d}"]
    a, b = rest.split("+")
    plain = "".join(str((int(x) + int(y)) % 10) for x, y in zip(a, b, strict=True))
    return [a, b, plain, str(rng.integers(2 * 10 ** len(a)))]


@pytest.mark.parametrize("kind", list(KINDS))
def test_chance_is_at_most_one_in_a_hundred(kind):
    """The commonest answer, and guesses in the right form, of which adding without carrying is the best."""
    rng = np.random.default_rng(0)
    for level in range(2):
        tasks = [lab_task(kind, level, seed) for seed in range(1500)]
        (_, most), *_ = Counter(t.answer for t in tasks).most_common(1)
        assert most <= 15
        rights = np.mean([[t.answer == g for g in guesses(t.prompt[0].content, rng)] for t in tasks], axis=0)
        if kind == "sum":
            rights = np.delete(rights, 2)  # working it out but for the carries is no guess
        assert rights.max() <= 0.013, (kind, level, rights)  # 1 %, and two standard errors of 1,500


def test_tasks_are_whole():
    tasks = load("lab")
    for i in range(60):
        task = tasks.draw(Request(), i, 0)
        self_test(task)
        pickle.loads(pickle.dumps(task.check))
    for kind in WORLDS:
        tasks = load(f"lab:kind={kind},feedback=hint")
        for i in range(12):
            self_test(tasks.draw(Request(), i, 0))


def test_feedback_names_the_first_wrong_line():
    lines = ("BF1", "AD4")
    check = Worked("14", feedback="hint", lines=lines)
    assert check(marked(lines, "14")).correct
    assert check("BF1\nAD5\n<answer>15</answer>").feedback == "That is not right. Line 2 is wrong."
    assert check("BF1\nAD4\n<answer>41</answer>").feedback == "That is not right."
    assert Worked("14", feedback="full", lines=lines)("x").feedback.endswith("The right answer is 14.")
    assert Worked("14", feedback="none", lines=lines)("x").feedback == ""


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1\n2\n<answer>2</answer>", ["1", "2"]),
        ("Plan: 2 lines\n1\n2\n<answer>2</answer>", ["1", "2"]),
        ("1\n3\nWait\n2\n<answer>2</answer>", ["1", "2"]),
        ("1\n3\nWait, the last step is wrong. It should be:\n2\n<answer>2</answer>", ["1", "2"]),
        (
            "4\n3\nWait, this does not lead to the answer. Let me start again.\n1\n2\n<answer>2</answer>",
            ["1", "2"],
        ),
        ("1\n3\nCheck:\n1\n2\n<answer>2</answer>", ["1", "2"]),
        ("1\n2\nCheck:\n1\n<answer>2</answer>", ["1", "2"]),
        ("1\n3\n<answer>3</answer>\nWait, line 2 is wrong.\n2\n<answer>2</answer>", ["1", "2"]),
        ("1\n2", ["1", "2"]),
        ("<answer>2</answer>", []),
    ],
)
def test_the_steps_that_stand_at_the_end(text, steps):
    assert written_steps(text) == steps


def test_slips_are_carried_on_and_steady_lines_are_right():
    said = "sum 3472+2859"
    lines, _ = solve(said)
    assert solve(said, ShakyHand(generator(0), 0.0)) == solve(said, Hand()) == solve(said)
    shaky, result = solve(said, ShakyHand(generator(0), 1.0, steady=1))
    assert shaky[0] == lines[0] == "2+9=11"
    assert shaky[1] in ("7+5+1=12", "7+5+1=14")
    assert shaky[2].startswith("4+8+1=")  # carried from the slip
    assert result == shaky[3].split("=")[1] + "".join(line[-1] for line in reversed(shaky[:3]))
    share = np.mean([solve("sort DACBE", ShakyHand(generator(i), 0.2))[1] != "ABCDE" for i in range(500)])
    assert abs(share - (1 - 0.8**5)) < 0.06


def test_levels_mix_evenly_unless_one_is_asked_for():
    tasks = load("lab:kind=reverse")
    levels = [tasks.draw(Request(), i, 0).difficulty for i in range(500)]
    assert all(60 <= levels.count(level) <= 140 for level in range(5))
    assert tasks.draw(Request(kind="reverse", difficulty=3.0), 0, 0).difficulty == 3
    assert {load("lab:level=2").draw(Request(), i, 0).difficulty for i in range(9)} == {2}
    assert {load("lab").draw(Request(), i, 0).kind for i in range(60)} == set(KINDS)


def test_the_same_seed_draws_the_same_tasks_and_other_seeds_others():
    a, b, c = (load("lab:kind=sort,level=4") for _ in range(3))
    first = [a.draw(Request(), i, 0).key for i in range(20)]
    assert first == [b.draw(Request(), i, 0).key for i in range(20)]
    assert len({c.draw(Request(), i, 1).key for i in range(20)} & set(first)) <= 1


@pytest.mark.parametrize("kind", ["run", "lock"])
def test_three_parts_share_nothing(kind):
    """What was taught, training and evaluation, split by what the problems are."""
    tasks = load(f"lab:kind={kind},level=0")
    held = {t.key for t in tasks.holdout(100, 0)}
    drawn = {tasks.draw(Request(), i, 5).key for i in range(300)}
    known = [lab_task(kind, 0, i, teaching=True) for i in range(100)]
    assert all(taught(t.prompt[0].content) for t in known)
    assert not held & drawn
    assert not (held | drawn) & {t.key for t in known}


def test_a_lock_rewards_each_right_turn():
    task = load("lab:kind=lock,level=1,feedback=hint").draw(Request(), 0, 0)
    make = pickle.loads(pickle.dumps(task.environment))
    said = task.prompt[0].content
    at, by = (int(n) for n in re.search(r"at (\d+) turn (\d+)", said).groups())
    assert said.startswith("lock of 4 turns.")
    assert make.places[0] == (at + by) % 100
    assert len(make.places) == 4
    replies = make().solve()
    for wrong, reward, hint in (
        ((), 1.0, ""),
        ((1,), 0.75, "Turn 2 is wrong."),
        ((0, 3), 0.5, "Turn 1 is wrong."),
    ):
        environment = make()
        assert environment.observe() == ""
        heard = [environment.act("<answer>x</answer>" if i in wrong else r) for i, r in enumerate(replies)]
        assert [turn for turn, _ in heard[:3]] == [f"turn {b}" for b in make.by[1:]]
        assert [verdict for _, verdict in heard[:3]] == [None] * 3, "nothing tells before the end"
        verdict = heard[3][1]
        assert (verdict.reward, verdict.correct) == (reward, not wrong)
        assert verdict.feedback.endswith(hint)
        with pytest.raises(RuntimeError, match="tried"):
            environment.act("once more")


def test_a_house_rewards_the_share_of_the_way():
    task = load("lab:kind=house,level=0,feedback=hint").draw(Request(), 0, 0)
    house = task.environment
    assert len(house.way) == 5
    assert set(house.way) < set(ROOMS)
    replies = house().solve()
    walk = house()
    assert walk.observe() == f"you are in {house.way[0]}"
    heard = [walk.act(reply) for reply in replies]
    assert heard[-1][1].correct
    assert [said for said, _ in heard[:-1]] == [f"you are in {room}" for room in house.way[1:]]
    walk = house()
    for reply in replies[:2]:
        walk.act(reply)
    said, verdict = walk.act(f"<answer>{TAKE}</answer>")  # too early: costs the turn, and one may be lost
    assert (said, verdict) == (f"a wall. you are in {house.way[2]}", None)
    lost = walk.act("<answer>nowhere</answer>")[1]
    while lost is None:
        lost = walk.act("<answer>nowhere</answer>")[1]
    assert (lost.reward, lost.correct) == (2 / 6, False)
    assert lost.feedback.endswith("Turn 3 is wrong.")


@pytest.mark.parametrize("kind", list(WORLDS))
def test_worlds_are_not_won_by_luck(kind):
    rng = np.random.default_rng(0)
    won = 0
    for seed in range(400):
        environment, verdict = lab_task(kind, 0, seed).environment(), None
        while verdict is None:
            some = (
                f"{rng.integers(100):02d}"
                if kind == "lock"
                else rng.choice(["north", "east", "south", "west", TAKE])
            )
            verdict = environment.act(f"<answer>{some}</answer>")[1]
        won += verdict.correct
    assert won <= 4


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("lab:kind=sortt", "no kind 'sortt'; did you mean 'sort'"),
        ("lab:level=5", "no difficulty 5"),
        ("lab:kind=lock,level=4", "'lab: lock' has no difficulty 4"),
        ("lab:feedback=loud", "choose one of"),
        ("lab:as=x", "a single kind"),
    ],
)
def test_refusals(spec, says):
    with pytest.raises(UserError, match=says):
        load(spec)


def test_catalogue():
    assert load("lab").sources[0].describe().carries == ("reference", "hints", "feedback", "steps")
    assert "environment" in load("lab:kind=house").sources[0].describe().carries
    assert set(LEVELS) == {*KINDS, *WORLDS}
    assert set("".join(lab_task("sort", 4, i).answer for i in range(99))) == set(LETTERS)
