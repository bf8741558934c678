"""PUDF: item response theory says which tasks the model is able to learn from."""

import numpy as np

from etude.curriculum.ability import Ability, ability, raised, rasch
from etude.recipe import ByHand, Paper, Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage


def _mirrored() -> list[float]:
    """Two items, answered right 3 and 1 times in 4 by one taker: theta = 0 and b = -x, x by symmetry."""
    (theta,), b = rasch(np.array([[3.0, 1.0]]), np.array([[4.0, 4.0]]))
    return [theta, b[0] + b[1]]


RECIPE = Recipe(
    name="pudf",
    family="curriculum",
    alone=GRPO,
    n=16,
    paper=Paper("A Psychology-based Unified Dynamic Framework for Curriculum Learning", "2408.05326", 2024),
    idea="Psychologists measure the difficulty of test items and the ability of those who take the test on one scale. "
    "Here the items are kinds of tasks at their levels, and the policy takes the test while it trains. "
    "It trains on what is no harder than it is able to do, and the bound rises with its ability.",
    equation="P(right) = sigmoid(theta - b_c);  theta = argmax log N(theta; 0, 1) + log P(answers);  draw {c: b_c <= cap}, "
    "cap = theta if theta > best so far, else cap + 0.1",
    departures=(
        "the artificial crowd that fits the difficulties is the policy itself in its first looks (curriculum.crowd x curriculum.every "
        "steps, all arms drawn evenly), where the paper fine-tunes several models beforehand; then they are kept fixed, as in the paper",
        "items are arms rather than tasks, since a generated task is rarely drawn twice; an arm's answers are binomial",
        "the Rasch model is fitted by its posterior's maximum (SciPy, L-BFGS), where the paper has variational inference (py-irt)",
        "guess: difficulties have the prior N(0, 3^2); the paper's is vaguer",
        "the probe set is the attempts of the last look, on open arms; one look is one epoch",
        "it reads attempts: where a run only imitates demonstrations it stays uniform",
    ),
    stages={"curriculum": stage(Ability)},
    claim="On sums of rising length a target accuracy is reached with fewer examples than in random order.",
    examples=(
        ByHand(
            "one right answer on an item of b = 0.5: theta = 1 - sigmoid(theta - b)",
            lambda: ability(np.array([0.5]), np.ones(1), np.ones(1)),
            0.5,
        ),
        ByHand("half right on b = 0", lambda: ability(np.zeros(1), np.ones(1), 2 * np.ones(1)), 0.0),
        ByHand("mirrored items: ability 0, difficulties opposite", _mirrored, [0.0, 0.0]),
        ByHand("progress raises the cap", lambda: raised(0.7, 0.5, 0.6, 0.1), [0.6, 0.6]),
        ByHand("no progress raises it a little", lambda: raised(0.7, 0.5, 0.4, 0.1), [0.8, 0.5]),
    ),
)
