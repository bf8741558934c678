"""The mutation run makes the changes that it promises, puts them where callers see them, and notices."""

import ast
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import mutants

    return mutants


def test_changes(mutants) -> None:
    code = """
def f(a: int = 3, scale: Annotated[float, Setting("x", low=0)] = 1.0):
    if a < 0:
        raise ValueError(f"{a + 1}")
    return -k3(a, b) + torch.minimum(a, b).clamp(1 - low, 1 + high)
def row(): return -f(1)
RECIPE = Recipe(n=3, stages={"objective": stage(f)}, examples=(ByHand("x", lambda: 1 + row(), 2),))
"""
    made = {str(m).removeprefix("f: ") for m in mutants.mutants(ast.parse(code))}
    whole = "-k3(a, b) + torch.minimum(a, b).clamp(1 - low, 1 + high)"
    assert {
        "a < 0 -> a > 0",
        "0 -> 1",
        "-k3(a, b) -> k3(a, b)",
        "k3(a, b) -> k3(b, a)",
        "torch.minimum(a, b) -> torch.maximum(a, b)",
        f"{whole} -> -k3(a, b)",
        f"{whole} -> torch.minimum(a, b).clamp(1 - low, 1 + high)",
        "torch.minimum(a, b).clamp(1 - low, 1 + high) -> torch.minimum(a, b).clamp(1 - high, 1 + low)",
    } <= made
    assert not [m for m in made if "3 ->" in m or m.startswith(("a + 1", "module", "row"))]


@pytest.mark.parametrize("planted", [True, False])
def test_a_planted_mistake_is_caught(mutants, planted: bool) -> None:
    """In a fork, through the rows of a recipe that holds the changed function already; nothing fails without one."""
    from etude.methods import catalogue
    from etude.testing.rows import check

    path = mutants.SOURCE / "objective" / "terms.py"
    tree = ast.parse(path.read_text())
    mutant = next(m for m in mutants.mutants(tree) if m.where == "surrogate" and "torch.maximum" in str(m))
    recipe = catalogue()["grpo"]

    def work() -> str:
        if planted:
            mutants.put_in_place("etude.objective.terms", mutant, tree)
        for row in recipe.examples:
            try:
                check(recipe, row)
            except AssertionError as error:
                return str(error)
        return "fine"

    said = mutants.in_a_fork(work, 60)
    assert "by hand" in said if planted else said == "fine"
