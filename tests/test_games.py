"""Games: rules, scripted players, what is known of their best play, and both seats played by one policy."""

from __future__ import annotations

import asyncio
import pickle
import random

import numpy as np
import pytest

from etude.errors import UserError
from etude.evaluate.games import against, kuhn_play, mean_interval
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.seats import ILLEGALLY, RETURN, SEAT, Seats
from etude.tasks import TaskSet, load, self_test
from etude.tasks import kuhn_poker as kuhn
from etude.tasks import tic_tac_toe as ttt
from etude.tasks.game import LiveGame, Match, random_player, said, scripted
from etude.tasks.games import GameSource
from etude.testing import toys
from etude.types import Episode, Request

# ---- Kuhn poker -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1 / 3])
def test_every_equilibrium_has_the_known_value_and_cannot_be_exploited(alpha: float) -> None:
    assert kuhn.value(kuhn.equilibrium(alpha)) == pytest.approx(-1 / 18)
    assert kuhn.exploitability(kuhn.equilibrium(alpha)) == pytest.approx(0, abs=1e-12)
    assert kuhn.best_answers(kuhn.equilibrium(alpha)) == pytest.approx((-1 / 18, 1 / 18))


def test_what_bad_play_loses() -> None:
    half = dict.fromkeys(kuhn.INFORMATION, 0.5)
    assert kuhn.exploitability(half) == pytest.approx(11 / 24)
    assert kuhn.exploitability(kuhn.equilibrium(0.5)) > 0.01  # bluffs too often
    bets = dict.fromkeys(kuhn.INFORMATION, 1.0)
    assert kuhn.value(bets) == pytest.approx(0)
    # Against one who always bets: fold J (-1), call Q (0 on average) and K (+2).
    assert kuhn.best_answers(bets) == pytest.approx((1 / 3, 1 / 3))


@pytest.mark.parametrize(
    ("moves", "won"), [("PP", -1), ("PBP", -1), ("PBB", -2), ("BP", 1), ("BB", -2), ("bb", -2)]
)
def test_the_ends_of_a_game(moves: str, won: float) -> None:
    table = LiveGame(kuhn.KuhnPoker(deal=("J", "Q")))
    for move in moves:
        assert table.turn is not None
        table.act(said(move))
    assert table.turn is None
    assert table.returns == (won, -won)
    with pytest.raises(RuntimeError, match="over"):
        table.act(said("P"))


def test_a_seat_knows_its_own_card_alone() -> None:
    game = kuhn.KuhnPoker(deal=("K", "J"))
    game.act("P")
    assert game.observe(1) == "Your card: J. Moves so far: P. Your move?"
    assert "K" not in game.observe(1)


def test_an_illegal_reply_loses_and_a_long_game_is_drawn() -> None:
    table = LiveGame(kuhn.KuhnPoker())
    table.act("P")
    table.act("I do not know")
    assert table.returns == (0.5, -1.5)
    assert not table.verdict(1, 2.0).correct
    assert table.verdict(0, 2.0, "hint").correct
    assert "no legal move" in table.verdict(1, 2.0, "hint").feedback
    long = LiveGame(ttt.TicTacToe(), longest=2)
    long.act("4")
    with pytest.raises(RuntimeError, match="not over"):
        _ = long.returns
    long.act("0")
    assert long.returns == (0.0, 0.0)


# ---- tic-tac-toe ------------------------------------------------------------------------------------------------


def _played(players: tuple[str, str], seed: int) -> tuple[float, float]:
    table, rng = LiveGame(ttt.TicTacToe(seed)), np.random.default_rng(seed)
    while (seat := table.turn) is not None:
        table.act(said(scripted(table.game, players[seat])(table.game, seat, rng)))
    assert table.illegal is None
    return table.returns


def test_perfect_play() -> None:
    assert all(_played(("perfect", "perfect"), i) == (0.0, 0.0) for i in range(5))
    first = [_played(("perfect", "random"), i)[0] for i in range(30)]
    second = [_played(("random", "perfect"), i)[1] for i in range(30)]
    assert min([*first, *second]) >= 0
    assert np.mean(first) > 0.8
    assert ttt.worth(ttt.EMPTY, 0) == 0


def test_three_in_a_line() -> None:
    game = ttt.TicTacToe()
    for cell in "04152":
        assert game.act(f"<answer>{cell}</answer>")
        assert not game.act(cell)  # taken
    assert game.turn() is None
    assert game.returns() == (1.0, -1.0)


# ---- as tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["kuhn_poker", "tic_tac_toe:opponent=perfect,opening=2", "kuhn_poker:seat=1"]
)
def test_games_are_tasks(spec: str) -> None:
    tasks = load(spec)
    drawn = [tasks.draw(Request(), i, 0) for i in range(8)]
    for task in drawn:
        self_test(task)
        assert isinstance(task.environment, Match)
        assert pickle.loads(pickle.dumps(task)).key == task.key
    seats = {t.environment.seat for t in drawn}  # type: ignore[union-attr]
    assert seats == ({1} if "seat" in spec else {0, 1})


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("kuhn_poker:opponent=perfect", "opponent=perfect is none of random, first, equilibrium"),
        ("kuhn_poker:seat=2", "seat=2 is none of -1, 0, 1"),
        ("tic_tac_toe:opening=9", "opening=9 is out of range"),
    ],
)
def test_bad_settings_get_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(spec)


class Nim:
    """One takes one or two of five; who takes the last wins. A game of a user's, without scripted players."""

    def __init__(self, seed: int) -> None:
        self.left, self.made = 5, 0

    def turn(self) -> int | None:
        return None if self.left <= 0 else self.made % 2

    def observe(self, seat: int) -> str:
        return f"left: {self.left}"

    def act(self, text: str) -> bool:
        if text not in ("1", "2") or int(text) > self.left:
            return False
        self.left, self.made = self.left - int(text), self.made + 1
        return True

    def returns(self) -> tuple[float, float]:
        return (1.0, -1.0) if self.made % 2 else (-1.0, 1.0)


def test_a_game_of_ones_own() -> None:
    tasks = TaskSet([GameSource("nim", Nim, "Take 1 or 2.")])
    task = tasks.draw(Request(), 0, 0)
    assert task.reference is None
    sides = _sides(["1", "2", "2"], task_set=tasks)
    assert [e.notes[RETURN] for e in sides] == [1.0, -1.0]
    with pytest.raises(UserError, match="does not tell its legal moves"):
        task.environment(0)  # type: ignore[misc]


# ---- both seats --------------------------------------------------------------------------------------------------


def _sides(
    replies: list[str], opponent: str = "self", index: int = 0, task_set: TaskSet | None = None
) -> list[Episode]:
    tasks = task_set or load("kuhn_poker")
    speaker = toys.ScriptedSampler(replies=replies)
    policy = toys.TablePolicy()
    rollouts = GroupRollout(
        tasks.draw(Request(), 0, 0),
        Request(),
        1,
        toys.generator(policy, speaker, max_tokens=64),
        toys.check_runner,
        Seats(opponent),
        lambda e: {"reward": e.notes[RETURN]},
        key=1,
    )
    return asyncio.run(rollouts.play(index))


def test_the_policy_takes_both_seats() -> None:
    sides = _sides(["P", "B", "B"])
    assert [e.notes[SEAT] for e in sides] == [0, 1]
    assert [sum(s.sampled for s in e.spans) for e in sides] == [2, 1]
    assert abs(sides[0].notes[RETURN]) == 2
    assert sides[0].notes[RETURN] == -sides[1].notes[RETURN]
    assert len({e.index for e in sides}) == 2
    assert [s.restart for s in sides[0].spans if s.role == "user"] == [False, True]  # a turn, a sequence


def test_an_illegal_reply_is_charged_to_its_seat() -> None:
    sides = _sides(["P", "hm"])
    assert [e.notes[RETURN] for e in sides] == [0.5, -1.5]
    assert [e.notes[ILLEGALLY] for e in sides] == [False, True]
    alone = _sides(["hm"])
    assert [e.notes[SEAT] for e in alone] == [0]  # who never moved has nothing to learn


def test_a_fixed_opponent_takes_the_other_seat() -> None:
    for index in (0, 1):
        (side,) = _sides(["B", "B"], "first", index)  # the first legal move is P
        assert side.notes[SEAT] == index
        assert sum(s.sampled for s in side.spans) == 1
    (failed,) = _sides(["B"], "nobody")
    assert failed.failure is not None


def test_scores() -> None:
    assert mean_interval([1.0, -1.0, 1.0, -1.0])[0] == 0
    # t(0.975, 3) = 3.182446, s = 2/sqrt(3), over 2
    assert mean_interval([1.0, -1.0, 1.0, -1.0])[2] == pytest.approx(3.182446 * 2 / 3**0.5 / 2, rel=1e-6)
    policy = toys.TablePolicy()
    tasks = load("kuhn_poker").holdout(6, 0)
    bets = toys.generator(policy, toys.ScriptedSampler(replies=["B"] * 40), max_tokens=64)
    found = asyncio.run(against("first", bets, toys.check_runner, tasks))
    assert (found.games, found.won.mean, found.illegal) == (12, 1.0, 0.0)
    assert found.seats == (1.0, 1.0)  # whoever bets against one who always passes wins a chip
    with pytest.raises(UserError, match="no game"):
        asyncio.run(against("first", bets, toys.check_runner, [toys.task()]))
    asked = toys.generator(policy, toys.ScriptedSampler(replies=["B", "hm"] * 12), max_tokens=64)
    play = asyncio.run(kuhn_play(asked, toys.check_runner, tasks[0], samples=2))
    assert set(play.strategy.values()) == {1.0}
    assert play.illegal == 0.5
    assert play.exploitability == pytest.approx(1 / 3)


# ---- textarena ----------------------------------------------------------------------------------------------------


def test_games_of_textarena_do_not_disturb_each_other() -> None:
    pytest.importorskip("textarena")
    task = load("textarena:env=KuhnPoker-v0-short").draw(Request(), 0, 0)
    assert isinstance(task.environment, Match)
    self_test(task)

    def play(steps: int, beside: LiveGame | None) -> tuple[float, float] | None:
        table, rng = LiveGame(task.environment.game()), np.random.default_rng(0)  # type: ignore[union-attr]
        while table.turn is not None:
            table.act(said(random_player(table.game, table.turn, rng)))
            if beside is not None and beside.turn is not None:
                beside.act(said(random_player(beside.game, beside.turn, np.random.default_rng(1))))
        return table.returns

    alone = play(0, None)
    shared = random.getstate()
    assert play(0, LiveGame(task.environment.game())) == alone
    assert random.getstate() == shared
    for env, sentence in (
        ("TicTacTo-v0", "did you mean 'TicTacToe-v0'"),
        ("ThreePlayerTicTacToe-v0", "cannot be played by one or two here"),
    ):
        with pytest.raises(UserError, match=sentence):
            load(f"textarena:env={env}")
