"""The stage rooms hold only what several methods share."""

from pathlib import Path

from etude.testing import vocabulary


def test_rooms_hold_what_methods_share() -> None:
    found = vocabulary.measure()
    assert found.total > 50
    assert found.share <= vocabulary.LIMIT, f"\n{found}"
    assert not found.unused, f"\n{found}"


def test_uses_are_counted_through_other_definitions(tmp_path: Path) -> None:
    files = {
        "credit/a.py": "def shared(): return helper()\ndef helper(): return LIMIT\nLIMIT = 1\ndef dead(): ...\n",
        "objective/b.py": "from etude.credit import a\ndef one(): return a.shared()\n\nclass Two: ...\n",
        "methods/x/m.py": "from etude.objective.b import one, Two\nRECIPE = one, Two\n",
        "methods/x/n.py": "from etude.credit.a import shared as s\nRECIPE = s\n",
        "train/loop.py": "def f():\n    from etude.objective.b import Two\n    return Two\n",
        "testing/t.py": "from etude.objective.b import one\none()\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = vocabulary.measure(tmp_path)
    assert found.total == 6
    assert found.single == {"objective.b.one": "x.m"}
    assert found.unused == ["credit.a.dead"]
    assert "1 of 6 definitions serve one method only: 16.7%" in str(found)
