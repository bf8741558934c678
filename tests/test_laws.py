"""What holds for every recipe: the laws of a step, and the rows that it declares as its tests."""

import pytest

from etude.methods import catalogue
from etude.recipe import Row
from etude.testing.laws import LAWS, Law
from etude.testing.rows import check, missing

ROWS = [(name, row) for name, recipe in catalogue().items() for row in recipe.examples]


@pytest.mark.parametrize("name", list(catalogue()))
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Law, name: str) -> None:
    law(catalogue()[name])


@pytest.mark.parametrize(
    ("name", "row"), ROWS, ids=[f"{name}-{type(row).__name__}: {row.says}" for name, row in ROWS]
)
def test_row(name: str, row: Row) -> None:
    check(catalogue()[name], row)


def test_every_stage_of_a_method_has_a_row() -> None:
    """All that are missing at once: see `etude.testing.rows.missing`."""
    lacks = [f"{name}: {says}" for name, recipe in catalogue().items() for says in missing(recipe)]
    assert not lacks, "\n" + "\n".join(lacks)
