"""What is known of a problem after attempts at it: solutions in new words, and beginnings that were right so far."""

import pytest

from etude.fixtures.given import Letters
from etude.methods.self_training.self_sampled import Solution, grown
from etude.tasks.working import states

GOLD = "a=3+4\nb=a*2\nb-1=13"


def tokens(text: str) -> tuple[int, ...]:
    return tuple(int(t) for t in (*Letters().encode(text), 0))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=3+4\na*2=14\nb=a-9", [[7], [7, 14], [-2, 7, 14]]),
        ("a=3\na=a+1", [[3], [4]]),
        ("3+4=8", [[8]]),  # what it says, not what would be right
        ("a=2\nso\nb=1", [[2]]),  # nothing behind a line that cannot be read
        ("a=b", []),
        ("", []),
    ],
)
def test_what_lines_come_to(text: str, values: list[list[int]]) -> None:
    assert [[float(v) for v in state] for state in states(text)] == values


@pytest.mark.parametrize(
    ("attempts", "known"),
    [
        ([("x=7\nx*2-1=13", True)], ["x=7\nx*2-1=13"]),
        ([(GOLD.replace("\n", " \n"), True)], []),  # the same words
        ([("7=7\n" * 9 + "x=13", True)], []),  # too long
        ([("a=8", False)], []),
        ([("c=7\nc*2=15", False)], ["c=7\n..."]),
        (
            [("c=7\nc*2=15", False), ("c=7\nd=14\nd=9", False)],
            ["c=7\nd=14\n..."],
        ),  # in place of its own beginning
        ([("c=7\nd=14\nd=9", False), ("c=7\nc*2=15", False)], ["c=7\nd=14\n..."]),
    ],
)
def test_what_joins_a_solution(attempts: list[tuple[str, bool]], known: list[str]) -> None:
    found = grown([Solution(tokens(GOLD))], [(tokens(t), right) for t, right in attempts], Letters())
    said = [Letters().decode(s.tokens) + ("" if s.whole else "...") for s in found]
    assert said == [GOLD, *known]
