"""Settings with which a method that answers by many replies is tried quickly, each of its parts used."""

from __future__ import annotations

from etude.assembly import build, resolved_stages
from etude.recipe import Recipe
from etude.search.session import Answering
from etude.settings import parameters

FEW: dict[str, int] = {
    **dict.fromkeys(
        ("n", "width", "branch", "depth", "simulations", "paths", "drafts", "rounds", "questions"), 2
    ),
    **dict.fromkeys(("candidates", "pieces", "follow_ups", "repairs"), 2),
    **dict.fromkeys(("turn_tokens", "step_tokens", "summary_tokens"), 2),
    "turns": 1,
    "look": 1,
    "tries": 2,
    "most": 6,
}


def few(recipe: Recipe) -> dict[str, int]:
    """Those of `FEW` that the recipe's way of answering has, by stage.setting; none where answers are single replies."""
    recipe, stages = build(recipe)
    if not isinstance(stages["rollout"], Answering):
        return {}
    known = parameters(resolved_stages(recipe)["rollout"].factory)
    return {f"rollout.{name}": value for name, value in FEW.items() if name in known}
