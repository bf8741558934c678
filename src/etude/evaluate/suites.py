"""Named sets of problems that a number can be quoted for: fixed by the hash of their content.

A suite is five reasoning-gym generators at three difficulties, ten problems each. Its problems follow from
this file and the installed reasoning-gym; if they hash to something else than recorded here (another version
makes other problems), the suite is refused rather than quietly being another one under the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etude.errors import Refused, UserError, nearest
from etude.types import Task

if TYPE_CHECKING:
    from etude.tasks import Source

DIFFICULTIES = ("easy", "medium", "hard")
EACH = 10  # problems per generator and difficulty
TRIES = 10 * EACH  # draws until a cell is given up
PROVEN = "0.1.25"  # the version of reasoning-gym that the hashes were recorded with

Levels = tuple[int, int, int]  # the generator's curriculum level at each difficulty

SUITES: Mapping[str, Mapping[str, Levels]] = {
    "arithmetic": {
        "chain_sum": (0, 2, 5),
        "products": (0, 1, 2),
        "gcd": (0, 1, 3),
        "simple_equations": (0, 1, 3),
        "fraction_simplification": (0, 1, 2),
    },
    "algorithms": {
        "count_bits": (0, 1, 3),
        "base_conversion": (0, 1, 3),
        "count_primes": (0, 1, 3),
        "string_manipulation": (0, 1, 3),
        "isomorphic_strings": (0, 1, 2),
    },
    "logic": {
        "propositional_logic": (0, 2, 4),
        "syllogism": (0, 1, 2),
        "knights_knaves": (0, 1, 3),
        "family_relationships": (0, 4, 8),
        "aiw": (0, 4, 8),
    },
    "text": {
        "letter_counting": (0, 3, 6),
        "spell_backward": (0, 2, 4),
        "word_sorting": (0, 1, 3),
        "sentence_reordering": (0, 1, 2),
        "word_sequence_reversal": (0, 1, 2),
    },
    "games": {
        "countdown": (0, 1, 2),
        "mini_sudoku": (0, 2, 3),
        "kakurasu": (0, 1, 2),
        "futoshiki": (0, 1, 2),
        "tsumego": (0, 1, 2),
    },
}

HASHES: Mapping[str, str] = {
    "arithmetic": "1cd4f6dbef3c137354dcef21",
    "algorithms": "e58e463684c29b7ffdb3aeb2",
    "logic": "86f2ae07390ab81355027866",
    "text": "3836c48661cc7d0edd7ede09",
    "games": "e85259c10cfd680307f9b629",
}


@dataclass(frozen=True)
class Suite:
    """`tasks` in a fixed order; a task's kind is its generator, its difficulty 0, 1 or 2. `hash` names the
    whole suite's content, also where only one difficulty of it was asked for."""

    name: str  # "arithmetic", "arithmetic/easy"
    hash: str
    tasks: tuple[Task, ...]

    @property
    def title(self) -> str:
        """What to quote beside a number."""
        return f"{self.name}#{self.hash[:8]}"


def load(name: str) -> Suite:
    """The suite `name`, or one difficulty of it as `name/easy`. Raises UserError for an unknown name, and
    Refused where the problems are not those that the hash was recorded for."""
    whole, _, part = name.partition("/")
    if whole not in SUITES:
        raise UserError(f"there is no suite '{whole}'{nearest(whole, SUITES)}")
    if part and part not in DIFFICULTIES:
        raise UserError(f"suite '{whole}' has no difficulty '{part}'{nearest(part, DIFFICULTIES)}")
    tasks = build(whole)
    found = digest(tasks)
    if found != HASHES.get(whole):
        from importlib.metadata import version

        raise Refused(
            f"suite '{whole}' is not the recorded one: reasoning-gym {version('reasoning-gym')} makes problems"
            f" with hash {found[:8]} where {HASHES.get(whole, 'none')[:8]} was recorded; install"
            f" reasoning-gym {PROVEN}, or measure under another name"
        )
    wanted = [t for t in tasks if not part or t.difficulty == DIFFICULTIES.index(part)]
    return Suite(name, found, tuple(wanted))


def build(name: str) -> list[Task]:
    """The problems of the whole suite `name` as the installed generators make them: by generator, then
    difficulty; no two alike. Raises UserError where a generator runs out of different problems."""
    from etude.tasks import source
    from etude.tasks.source import item_seed

    tasks: dict[str, Task] = {}
    for generator, levels in SUITES[name].items():
        made = source(generator)
        for difficulty, level in enumerate(levels):
            fresh: dict[str, Task] = {}
            for attempt in range(TRIES):
                if len(fresh) == EACH:
                    break
                task = _one(made, generator, level, item_seed("suite", name, difficulty, attempt))
                if task is not None and task.key not in tasks:
                    fresh.setdefault(task.key, replace(task, difficulty=float(difficulty)))
            if len(fresh) < EACH:
                raise UserError(
                    f"suite '{name}': {generator} at level {level} has only {len(fresh)} problems"
                )
            tasks.update(fresh)
    return list(tasks.values())


def _one(made: Source, generator: str, level: int, seed: int) -> Task | None:
    """One problem; None where the generator gives up on this seed, as some do (countdown, tsumego)."""
    try:
        return made.draw(generator, float(level), 1, seed)[0]
    except Exception:
        return None


def digest(tasks: list[Task]) -> str:
    """The hash of the problems' content, in their order."""
    from etude.tasks.source import digest as of

    return of([task.key for task in tasks])
