"""Rewards that judge an answer piece by piece."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from etude.errors import UserError
from etude.fixtures.examples import example_episode
from etude.reward.combined import PARTIAL, Combined
from etude.reward.parts import Part, parse, pieces, read
from etude.types import Episode

TEXT = "One, two. Three is 3.5!\n\nFour"


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("answer", [TEXT]),
        ("line", ["One, two. Three is 3.5!", "Four"]),
        ("sentence", ["One, two.", "Three is 3.5!", "Four"]),
        ("clause", ["One,", "two.", "Three is 3.5!", "Four"]),
    ],
)
def test_where_pieces_end(by: str, expected: list[str]) -> None:
    found = pieces(TEXT, by)
    assert [text for text, _ in found] == expected
    assert [end for _, end in found] == sorted({end for _, end in found})
    assert found[-1][1] == len(TEXT)
    assert all(TEXT[:end].rstrip().endswith(text) for text, end in found)
    assert pieces("", by) == pieces(" \n", by) == []


def scored(*parts: Part) -> Any:
    episode = replace(example_episode(0.0), text=TEXT)
    return asyncio.run(Combined(parts)(episode))


def letters(episode: Episode) -> float:
    return float(sum(c.isalpha() for c in episode.text))


def part(text: str) -> Part:
    (found,) = read([replace(parse(f"check,{text}"), score=letters, user=True)])
    return found


def by(piece: str, **options: Any) -> Part:
    plain = part("name=letters")
    return replace(plain, options=replace(plain.options, by=piece, **options))


def test_values_of_pieces_are_added_and_kept() -> None:
    scores = scored(by("sentence", weight=0.5, high=6.0))
    assert scores["letters"] == 6 + 7 + 4
    assert scores["reward"] == 0.5 * (6 + 6 + 4)  # each is clipped
    assert scores.notes[PARTIAL] == [[9, 3.0], [23, 3.0], [29, 2.0]]


def test_a_second_opinion_leaves_no_rewards() -> None:
    scores = scored(by("sentence", weight=0.0), part("name=other"))
    assert scores["watched/letters"] == scores["other"] == scores["reward"] == 17
    assert PARTIAL not in scores.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./mine.py:fn,by=word", "there is no piece 'word'"),
        ("check,by=line", "goes with what judges one text"),
        ("judge:policy,how=pairwise,by=line", "goes with what judges one text"),
        ("judge:policy,by=line,transform=normalise", "goes with whole answers"),
    ],
)
def test_what_has_no_pieces_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(text)
