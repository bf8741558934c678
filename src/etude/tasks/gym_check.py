"""reasoning-gym's own scorers as a picklable check, made safe for what a model may write."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from etude.errors import UserError
from etude.tasks.check import UNARY, AnswerCheck
from etude.tasks.extract import peel, value
from etude.tasks.formula import endless
from etude.tasks.gym_facts import BY_TEXT, EVALUATED, HARMLESS

LONGEST = 2000  # characters of an answer that is evaluated
_LARGE_POWER = re.compile(r"(?:\^|\*\*)\s*[({\s]*[-+]?\d{4,}|\)\s*(?:\^|\*\*)\s*\(?\s*\d{3,}")
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Gym(AnswerCheck):
    """An item judged by its generator's `score_answer`.

    `name`, `params` (the generator's configuration) and `entry` (the item) rebuild the scorer, lazily and
    once per process. `partial` keeps the scorer's rewards between 0 and 1; without it only a full score
    counts, because the library's default gives "5" half a point inside "15". Two departures from the
    library: an answer it cannot read fails (where the library raises, provided that it can still score the
    gold answer), and answers are shown only to scorers that cannot be made to run them as programs.
    """

    name: str = ""
    params: tuple[tuple[str, Any], ...] = field(default=(), hash=False)
    entry: Mapping[str, Any] = field(default_factory=dict, hash=False)
    partial: bool = False

    @property
    def isolated(self) -> bool:  # type: ignore[override]
        """Whether the scorer may hang."""
        return self.name in EVALUATED

    @property
    def confined(self) -> bool:
        """Whether the scorer evaluates what the model wrote."""
        return self.name in EVALUATED

    def prepare(self) -> None:
        """Builds the scorer; done before a deadline starts."""
        scorer(self.name, self.params)

    def score(self, found: str) -> float:
        """The best score of the answer as written and without its dressing."""
        candidates = {self._like_gold(c) for c in (found, peel(found)) if c}
        scores = [self._score(c) for c in candidates]
        best = max(scores, default=0.0)
        return best if self.partial or best == 1.0 else 0.0

    def hint(self, found: str) -> str:
        """Too high or too low for numbers; how much was right where the scorer says so."""
        mine, gold = value(found), value(self.gold)
        if mine is not None and gold is not None:
            return f"{found} is too {'high' if mine > gold else 'low'}." if mine != gold else UNARY
        if self.name in BY_TEXT:
            return UNARY
        part = max(self._score(found), self._score(peel(found)))
        # Below a tenth the library only rewards that something was written.
        return f"{UNARY} About {part:.0%} of it is right." if part >= 0.1 else UNARY

    def _like_gold(self, found: str) -> str:
        """The gold answer's own spelling where both are the same number: 1,200 and 1200.0 are 1200."""
        mine, gold = value(found), value(self.gold)
        return self.gold if mine is not None and mine == gold else found

    def _score(self, text: str) -> float:
        if self.name in BY_TEXT:
            return float(" ".join(text.split()) == " ".join(self.gold.split()))
        allowed = HARMLESS.get(self.name)
        if text != self.gold and allowed is not None:
            large = len(text) > LONGEST or (
                self.name in EVALUATED and (_LARGE_POWER.search(text) or endless(text))
            )
            if large or re.fullmatch(allowed, text) is None:
                return 0.0
        score = scorer(self.name, self.params).score_answer
        try:
            return min(1.0, max(0.0, float(score(text, self.entry))))
        except _UNREADABLE:
            if float(score(self.gold, self.entry)) != 1.0:
                raise
            return 0.0  # the scorer works: it is this answer that cannot be read


@lru_cache(maxsize=256)
def _built(name: str, params: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, size=1, seed=0, **dict(pickle.loads(bytes.fromhex(params))))


def scorer(name: str, params: tuple[tuple[str, Any], ...]) -> Any:
    """The generator with this configuration, built once per process. Raises UserError."""
    try:
        return _built(name, pickle.dumps(params).hex())
    except (AssertionError, ValueError, TypeError) as error:
        raise UserError(f"task '{name}': {error}") from error
