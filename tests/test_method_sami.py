"""Principles from a file."""

from pathlib import Path

import pytest

from etude.errors import UserError
from etude.methods.preference.sami import read_principles


def test_lines_are_pairs(tmp_path: Path) -> None:
    file = tmp_path / "principles.txt"
    file.write_text("# of form\nBe brief. | Be long.\n\nSay it first. | Say it last.\n")
    assert read_principles(str(file)) == (("Be brief.", "Be long."), ("Say it first.", "Say it last."))


@pytest.mark.parametrize(
    ("text", "said"),
    [("Be brief.\n", "line 1: write a principle"), ("# nothing\n", "hold no line"), ("a |\n", "line 1")],
)
def test_others_are_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "principles.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_principles(str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_principles(str(tmp_path / "none.txt"))
