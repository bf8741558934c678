"""Find a number that meets several conditions at once. A wrong answer hears of the first that it violates."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etude.tasks.check import UNARY, AnswerCheck
from etude.tasks.extract import value
from etude.tasks.kind import FEEDBACK, LEVEL, Kind, Made, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param


def digit_sum(n: int) -> int:
    return sum(map(int, str(n)))


RULES: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    "above": ("greater than {}", lambda n, k: n > k),
    "below": ("less than {}", lambda n, k: n < k),
    "divisible": ("divisible by {}", lambda n, k: n % k == 0),
    "remainder": ("one more than a multiple of {}", lambda n, k: n % k == 1),
    "digits": ("a number whose digits add up to {}", lambda n, k: digit_sum(n) == k),
    "ends": ("a number that ends in {}", lambda n, k: n % 10 == k),
    "not_ends": ("a number that does not end in {}", lambda n, k: n % 10 != k),
}

Rule = tuple[str, int]


@dataclass(frozen=True)
class Meets(AnswerCheck):
    """The answer is a whole number that meets every rule (a name of `RULES` and its number)."""

    extract: str = "last_number"
    rules: tuple[Rule, ...] = ()

    def score(self, found: str) -> float:
        """1 where no rule is violated."""
        return float(not self.violated(found))

    def violated(self, found: str) -> str:
        """The words of the first rule that the answer violates, or ""."""
        number = value(found)
        if number is None or number.denominator != 1 or number < 0:
            return "a whole number"
        return next((words(r) for r in self.rules if not RULES[r[0]][1](int(number), r[1])), "")

    def hint(self, found: str) -> str:
        """Names the first rule that is violated."""
        return f"{UNARY} {found} is not {self.violated(found)}."


def words(rule: Rule) -> str:
    """The rule as it reads after "is"."""
    return RULES[rule[0]][0].format(rule[1])


def solutions(rules: tuple[Rule, ...], highest: int) -> list[int]:
    """All numbers up to `highest` that meet every rule, rising."""
    return [n for n in range(1, highest + 1) if all(RULES[name][1](n, k) for name, k in rules)]


def _make(s: dict[str, Any], seed: int) -> Made:
    highest = s["highest"]
    for attempt in range(100):
        draw = random.Random(item_seed("rules", seed, attempt))
        low = draw.randrange(highest // 2)
        high = low + draw.randint(max(4, highest // 8), max(5, highest // 2))
        more = draw.sample(["divisible", "remainder", "digits", "ends", "not_ends"], s["rules"] - 2)
        number = {"digits": (2, 12), "ends": (0, 9), "not_ends": (0, 9)}
        others = tuple((name, draw.randint(*number.get(name, (2, 7)))) for name in more)
        rules: tuple[Rule, ...] = (("above", low), ("below", min(high, highest + 1)), *others)
        found = solutions(rules, highest)
        needed = all(len(solutions(tuple(r for r in rules if r != o), highest)) > len(found) for o in others)
        if found and needed:
            listed = "\n".join(f"- {words(r)}" for r in rules)
            prompt = f"Find a whole number that is\n{listed}\nAnswer with just the number."
            gold = str(found[0])
            return Made(prompt, check=Meets(gold, feedback=s["feedback"], rules=rules), answer=gold)
    raise ValueError(f"no set of {s['rules']} conditions up to {highest} was found")


KIND = Kind(
    "Find a number that meets several conditions",
    (
        Param("rules", int, 3, "conditions, 2 to 6"),
        Param("highest", int, 60, "the number lies in 1..highest, 20 to 10000"),
        FEEDBACK,
        LEVEL,
    ),
    (
        {"rules": 2, "highest": 30},
        {"rules": 3, "highest": 60},
        {"rules": 4, "highest": 100},
        {"rules": 4, "highest": 500},
        {"rules": 5, "highest": 1000},
    ),
    lambda s: out_of_range(s, rules=(2, 6), highest=(20, 10000)),
    _make,
    "generator",
)
