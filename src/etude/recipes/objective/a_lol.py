"""A-LoL: offline policy gradient that keeps only what is better than expected."""

import torch

from etude.credit.baseline import above_value
from etude.objective.off_policy import clipped_weights, offline
from etude.recipe import ByHand, Companion, Paper, Recipe
from etude.rollout.beside import by_the_start
from etude.settings import stage

TWICE, SAME = torch.tensor([1.2, 1.2]).log(), torch.zeros(2, dtype=torch.int64)  # two tokens of one answer
RECIPE = Recipe(
    name="a_lol",
    family="objective",
    n=54,
    paper=Paper(
        "Improving Language Models with Advantage-based Offline Policy Gradients", "2305.14718", 2023
    ),
    idea="The starting model is asked how good an answer it expects of itself; only answers that are better are learned from. "
    "A whole answer is one action, weighed by how much better it is and by how much likelier it has become. "
    "No new answers of the trained policy are needed.",
    equation="L = - mean_i sg[clip(pi(y_i)/pi_ref(y_i), 1-e, 1+e)] max(0, R_i - V(x_i)) log pi(y_i)",
    departures=(
        "the data are attempts of the starting policy, written as training goes: a set made beforehand, read once",
        "V learns online from those attempts, after judging them, instead of from a validation set beforehand",
    ),
    stages={"gather": stage(by_the_start), "credit": stage(above_value), "objective": stage(offline)},
    companions={"critic": Companion("copy", lr=0.0, heads={"value": 1})},
    claim="On a noisy set of solutions, keeping A > 0 beats imitating all of them, in fewer steps.",
    examples=(
        ByHand("of an answer", lambda: clipped_weights(TWICE, SAME, "answer", 0.9), [1.44, 1.44]),
        ByHand("clipped at 1.3", lambda: clipped_weights(TWICE, SAME, "answer", 0.3), [1.3, 1.3]),
        ByHand("of tokens", lambda: clipped_weights(TWICE, SAME, "token", 0.3), [1.2, 1.2]),
    ),
)
