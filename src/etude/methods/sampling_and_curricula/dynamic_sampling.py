"""Dynamic sampling, DAPO's filter by itself: groups whose outcomes do not differ are replaced by others.

DAPO: An Open-Source LLM Reinforcement Learning System at Scale, arXiv 2503.14476. The filter is shared
(`curriculum.filter.mixed_verdicts`); the loop draws again where it refuses.
"""

from __future__ import annotations

from etude.curriculum.filter import mixed_verdicts
from etude.fixtures.curricula import ExampleContext, built
from etude.fixtures.examples import example_group
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.settings import stage


def _kept(*outcomes: list[float]) -> list[float]:
    """Which of the groups with these rewards are trained on."""
    groups = [example_group(rewards) for rewards in outcomes]
    kept = built(RECIPE, "filter")(groups, ExampleContext())
    return [any(group is other for other in kept) for group in groups]


RECIPE = Recipe(
    name="dynamic_sampling",
    default_base=GRPO,
    paper=Paper("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "2503.14476", 2025),
    published_lr=1e-6,
    idea="A group whose attempts all succeed or all fail has no group-relative signal. "
    "Such groups are thrown away and others drawn, until the batch is full or the over-sampling budget is spent. "
    "Nothing is chosen beforehand: what is thrown away was paid for.",
    equation="train on {g : 0 < #right(g) < G}",
    departures=(
        "over-sampling ends at run.oversample times the batch, and a short batch is trained as it is",
    ),
    stages={"filter": stage(mixed_verdicts)},
    claim="A given accuracy is reached in fewer steps than with uniform sampling.",
    manipulation=(Manipulated("a group in twenty is drawn anew", "signal", at_most=0.95),),
    examples=(
        ByHand(
            "mixed; all right; all wrong; a single attempt; mixed by a little",
            lambda: _kept([0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0], [1.0, 1.0, 0.9]),
            [1, 0, 0, 0, 1],
        ),
        Reduction("where all groups differ: GRPO", "grpo"),
    ),
)
