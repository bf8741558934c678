"""Find a number from its answers "higher" and "lower"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etude.tasks.extract import extract, value
from etude.tasks.kind import FEEDBACK, LEVEL, Kind, Made
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.types import Verdict


@dataclass(frozen=True)
class NumberGuess:
    """Makes a fresh game: find `target` in 1..`highest` within `turns` guesses."""

    target: int
    highest: int
    turns: int
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> NumberGuessEnvironment:
        """A new episode; nothing in it is left to chance."""
        return NumberGuessEnvironment(self)


class NumberGuessEnvironment:
    """One game: `etude.types.Environment`. Every wrong guess is answered with higher or lower."""

    def __init__(self, game: NumberGuess) -> None:
        self._game = game
        self._tried: list[str] = []
        self._verdict: Verdict | None = None

    def observe(self) -> str:
        """How many guesses are left."""
        left = self._game.turns - len(self._tried)
        return f"You have {left} {'guess' if left == 1 else 'guesses'}. What is your guess?"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Takes the last number of the reply; a reply without one costs the guess. Raises RuntimeError
        after the end."""
        if self._verdict is not None:
            raise RuntimeError("the game is over: call task.environment() for a new one")
        found = extract(text, "last_number")
        number = value(found) if found is not None else None
        if number is None:
            said = "No number was found in your reply."
        elif number == self._game.target:
            self._verdict = Verdict(1.0, True)
            return "That is the number.", self._verdict
        else:
            said = f"The number is {'higher' if number < self._game.target else 'lower'} than {found}."
        self._tried.append(f"{found or 'nothing'}: {said}")
        if len(self._tried) >= self._game.turns:
            trace = f"Your guesses: {' '.join(self._tried)}"
            feedback = {
                "none": "",
                "unary": "You did not find the number.",
                "hint": trace,
                "full": f"{trace} It was {self._game.target}.",
            }
            self._verdict = Verdict(0.0, False, feedback[self._game.feedback])
            return "You have no guesses left.", self._verdict
        return f"{said} {self.observe()}", None

    def solve(self) -> list[str]:
        """Guesses by bisection; the last one hits."""
        low, high = 1, self._game.highest
        replies: list[str] = []
        while len(replies) < self._game.turns - 1:
            middle = (low + high) // 2
            replies.append(str(middle))
            if middle == self._game.target:
                return replies
            low, high = (middle + 1, high) if middle < self._game.target else (low, middle - 1)
        return [*replies, str(self._game.target)]


def _make(settings: dict[str, Any], seed: int) -> Made:
    highest = settings["highest"]
    turns = settings["turns"] or highest.bit_length()
    target = 1 + item_seed("target", seed) % highest
    prompt = (
        f"I think of a whole number from 1 to {highest}. Find it within {turns} guesses. "
        "After each guess I say whether the number is higher or lower. Answer with one number each turn."
    )
    return Made(prompt, NumberGuess(target, highest, turns, settings["feedback"]), [target, highest, turns])


def _refuse(s: dict[str, Any]) -> str:
    if not 2 <= s["highest"] <= 10**9:
        return f"highest={s['highest']} is out of range; it must be from 2 to 1000000000"
    return f"turns={s['turns']} is out of range; it must be 0 or more" if s["turns"] < 0 else ""


KIND = Kind(
    "Find a number from its answers higher and lower",
    (
        Param("highest", int, 10, "the number lies in 1..highest"),
        Param("turns", int, 0, "guesses allowed; 0: as many as halving needs"),
        FEEDBACK,
        LEVEL,
    ),
    ({"highest": 10}, {"highest": 30}, {"highest": 100}, {"highest": 1000}, {"highest": 10000}),
    _refuse,
    _make,
)
