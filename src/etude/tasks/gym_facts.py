"""What etude had to find out about single reasoning-gym generators (version 0.1.25), by running all 106.

Each table names generators and why they need care. Found by `tests/test_tasks_gym.py -m long`.
"""

from __future__ import annotations

EXCLUDED = {
    "boxnet": "it gives no answer to test its checker with, and none is stored in the task",
    "rush_hour": "it gives no answer to test its checker with, and none is stored in the task",
    "composite": "it mixes other generators; name several sources separated by commas instead",
}
"""Generators that cannot be used, and the reason."""

UNSTABLE = ("codeio", "knight_swap", "polynomial_multiplication", "word_ladder")
"""Generators whose items depend on Python's string hashing: the same only under a fixed PYTHONHASHSEED."""

REBUILT = ("acre", "gsm_symbolic", "list_functions", "survo")
"""Generators that read their seed when they are built, so that they are built anew for every item."""

GOLD_IN_METADATA = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
"""Generators whose answer is None because many are right, and the metadata that holds one of them."""

SLOW_LEVELS = {"sokoban": (0.0,), "jugs": (2.0, 3.0)}
"""Curriculum levels that are not offered because one item takes from seconds to for ever (2 cores)."""

ONLY = {"rubiks_cube": ("cube_size", 3, "only then does it store an answer to test its checker with")}
"""Generators that can be used with one value of a parameter only, and the reason."""

BY_TEXT = {
    "game_of_life_halting": "its scorer takes every non-empty answer for True",
    "binary_matrix": "its scorer evaluates the answer as Python",
    "spiral_matrix": "its scorer evaluates the answer as Python",
    "string_insertion": "its scorer evaluates the answer as Python",
}
"""Generators with one right answer whose scorer cannot be trusted with a model's words: compared as text."""

_WORDS = (
    r"(?:(?:[A-Za-z]|sin|cos|tan|cot|sec|csc|a?sinh?|a?cosh?|a?tanh?|exp|log|ln|sqrt|pi|Abs)(?![A-Za-z])"
    r"|[\d\s+\-*/^(),]|\.(?=\d))*"
)

HARMLESS = {
    "n_queens": r"[_Q\s]*",
    "countdown": r"(?:[\d\s+\-/()]|\*(?!\*))*",
    "puzzle24": r"(?:[\d\s+\-/()]|\*(?!\*))*",
    "simple_integration": _WORDS,
    "intermediate_integration": _WORDS,
    "polynomial_multiplication": _WORDS,
    "complex_arithmetic": r"[\d\s+\-.ij()]*",  # "nan" would score 1
}
"""Generators whose scorer evaluates the answer: the pattern that an answer must match to be shown to it."""

EVALUATED = (
    "countdown",
    "puzzle24",
    "simple_integration",
    "intermediate_integration",
    "polynomial_multiplication",
    "n_queens",
)
"""Generators whose scorer evaluates the answer, most of them by a computer algebra system, which can hang: judged in the
sandbox, in a process of its own."""

NO_TEXT_FORM = ("seed", "size")
"""Parameters of every generator that etude sets itself."""
