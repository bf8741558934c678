"""The text environments: rules, ends, feedback and that all of them can be won."""

import pickle

import pytest

from etude.errors import UserError
from etude.tasks import load, self_test
from etude.tasks.environments import EnvironmentSource
from etude.tasks.frozen_lake import FrozenLake, draw_map
from etude.tasks.number_guess import NumberGuess
from etude.types import Request

OPEN = FrozenLake(("SF", "HG"), None, 4, "full")


def test_walk():
    walk = OPEN()
    assert walk.observe() == "P F\nH G"
    said, verdict = walk.act("I will go RIGHT now")
    assert (said, verdict) == ("S P\nH G", None)
    said, verdict = walk.act("down")
    assert said == "You reached the goal."
    assert (verdict.reward, verdict.correct, verdict.feedback) == (1.0, True, "")
    with pytest.raises(RuntimeError, match="over"):
        walk.act("down")


def test_the_ways_to_lose():
    said, verdict = OPEN().act("down")
    assert said == "You fell into a hole."
    assert verdict.feedback == (
        "You fell into a hole. Your walk: turn 1: down to row 2, column 1. A way that works: right, down."
    )
    walk = OPEN()
    for _ in range(3):
        said, verdict = walk.act("upward and onward")  # "upward" is not the word up
        assert said.startswith("No move was found")
        assert verdict is None
    said, verdict = walk.act("left")
    assert said == "You have no turns left."
    assert not verdict.correct
    assert "turn 1: no move was understood" in verdict.feedback


@pytest.mark.parametrize(
    ("feedback", "has"), [("none", ""), ("unary", "did not reach"), ("hint", "Your walk")]
)
def test_feedback(feedback, has):
    _, verdict = FrozenLake(OPEN.rows, None, 4, feedback)().act("down")
    assert has in verdict.feedback
    assert ("A way that works" in verdict.feedback) is False
    assert (verdict.feedback == "") == (feedback == "none")


def test_moves_agree_with_gymnasium():
    from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

    rows = draw_map(5, 0.2, 3)
    env, walk, lake = FrozenLakeEnv(desc=list(rows), is_slippery=False), None, FrozenLake(rows, None, 100)
    env.reset(seed=0)
    walk, columns = lake(), 5
    for move in lake.solve():
        cell, reward, over, _, _ = env.step(["left", "down", "right", "up"].index(move))
        said, verdict = walk.act(move)
        if not over:
            assert said.replace("\n", " ").split().index("P") == cell
    assert reward == 1
    assert verdict.correct
    assert columns == len(rows)


def test_slipping_follows_gymnasiums_chances():
    rows = ("SFF", "FFF", "FFG")
    cells = [FrozenLake(rows, slips, 9).move(4, 2, 0) for slips in range(600)]  # right from the middle
    for cell in (5, 1, 7):
        assert 150 < cells.count(cell) < 250
    assert cells == [FrozenLake(rows, slips, 9).move(4, 2, 0) for slips in range(600)]


def test_every_map_can_be_won():
    for seed in range(30):
        rows = draw_map(6, 0.6, seed)
        assert rows[0][0] == "S"
        assert rows[-1][-1] == "G"
        assert FrozenLake(rows, None, 24).solve() is not None


@pytest.mark.parametrize(
    "spec",
    ["frozen_lake", "frozen_lake:slippery=true,level=1", "number_guess", "number_guess:turns=2,highest=50"],
)
def test_environments_pass_their_self_test(spec):
    tasks = load(spec)
    for i in range(5):
        task = tasks.draw(Request(), i, 0)
        self_test(task)
        again = pickle.loads(pickle.dumps(task))
        assert again.key == task.key
        environment = again.environment()
        for reply in task.reference.split("\n"):
            _, verdict = environment.act(reply)
        assert verdict.correct
        with pytest.raises(RuntimeError, match="judged by its environment"):
            task.check("up")


def test_the_key_is_the_content():
    tasks = load("number_guess:highest=3")
    drawn = [tasks.draw(Request(), i, 0) for i in range(30)]
    assert len({t.key for t in drawn}) == 3
    assert len({(t.key, t.environment.target) for t in drawn}) == 3
    lake = EnvironmentSource("frozen_lake").draw("frozen_lake", 2.0, 2, 0)
    assert lake[0].key != lake[1].key
    assert [len(t.environment.rows) for t in lake] == [5, 5]


def test_levels_that_are_alike_are_named_once():
    assert EnvironmentSource("frozen_lake").levels("frozen_lake") == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert EnvironmentSource("frozen_lake", {"size": 4}).levels("frozen_lake") == (0.0,)


def test_guessing():
    game = NumberGuess(7, 10, 3, "full")()
    assert "3 guesses" in game.observe()
    assert game.act("5")[0].startswith("The number is higher than 5.")
    assert game.act("hm")[0].startswith("No number was found")
    said, verdict = game.act("between 5 and 9")
    assert said == "You have no guesses left."
    assert verdict.feedback.endswith("The number is lower than 9. It was 7.")
    with pytest.raises(RuntimeError, match="over"):
        game.act("7")
    assert NumberGuess(7, 10, 4)().solve() == ["5", "8", "6", "7"]
    assert NumberGuess(7, 10, 2)().solve() == ["5", "7"]
    assert NumberGuess(8, 10, 4)().solve() == ["5", "8"]
    assert NumberGuess(7, 10, 2, "none")().act("1")[1] is None


def test_self_test_finds_an_environment_that_cannot_be_won(monkeypatch):
    task = load("frozen_lake").draw(Request(), 0, 0)
    monkeypatch.setattr("etude.tasks.frozen_lake.FrozenLakeEnvironment.solve", lambda self: ["left"])
    with pytest.raises(UserError, match="own solution does not win"):
        self_test(task)
