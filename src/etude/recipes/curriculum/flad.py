"""EXP3-FLAD and UCB1-FLAD: other tasks are drawn by how well their gradients point to where the target's do."""

import math

import numpy as np
import torch

from etude.curriculum.align import cosine
from etude.curriculum.bandit import Exp3, Ucb1, exp3, exploration, ucb1
from etude.recipe import ByHand, Paper, Recipe
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.settings import stage

PAPER = Paper(
    "Improving Few-Shot Generalization by Exploring and Exploiting Auxiliary Data", "2302.00674", 2023
)
DEPARTURES = (
    "both gradients are taken just after the step's update instead of before it, of sum A log pi (imitation: sum log pi) in the output "
    "projection, input side excluded, of untruncated probabilities",
    "gradients are compared every fourth step, where the paper has every step (curriculum.every=1), on 2 episodes of each arm and as many "
    "of the target as of all arms, drawn alike among those that teach something (curriculum.episodes=0: all): so the price of this "
    "forward pass stays below 2% of a step",
    "a step plays several arms at once; an arm whose rewards were all equal has cosine 0; where the target's were, nothing is learnt",
    "half of the tasks are the target's; by default it is the last arm",
)


def _in_turn() -> list[float]:
    """How often each of three arms is played in seven turns of UCB1 with equal rewards."""
    plays = np.zeros(3)
    for _ in range(7):
        plays[np.argmax(ucb1(np.full(3, 0.2), plays))] += 1
    return plays.tolist()


EXP3 = Recipe(
    name="exp3_flad",
    family="curriculum",
    alone=GRPO,
    n=285,
    paper=PAPER,
    idea="One kind of task is what you care about; others may help. Another kind helps if learning it moves the weights the way that "
    "learning the target does. Kinds are drawn by how much they have helped so far, and none is ever given up.",
    equation="pi(a) = (1 - K E_t) softmax(E_{t-1} R_a) + E_t;  E_t = min(1/K, sqrt(ln K / (K t)));  R_a += cos(g_a, g_T) / pi(a)",
    departures=(
        *DEPARTURES,
        "played c times among n, an arm adds (c / n) cos / pi, which has the expectation of one play",
    ),
    stages={"curriculum": stage(Exp3)},
    claim="With distracting kinds of tasks around, related kinds get more than their even share, and the target is learnt better.",
    examples=(
        ByHand("at t = 1 uniform, whatever the sums", lambda: exp3(np.array([5.0, -5.0]), 1), [0.5, 0.5]),
        ByHand("E_8 of 2 arms", lambda: exploration(2, 8), math.sqrt(math.log(2) / 16)),
        ByHand("a single arm", lambda: exp3(np.array([-3.0]), 4), [1.0]),
        ByHand(
            "at right angles, and opposite",
            lambda: [cosine(torch.tensor([1.0, 0]), torch.tensor(v)) for v in ([0, 2.0], [-3.0, 0])],
            [0, -1],
        ),
    ),
)

UCB1 = Recipe(
    name="ucb1_flad",
    family="curriculum",
    alone=GRPO,
    n=285,
    paper=PAPER,
    idea="One kind of task is what you care about; others may help, if learning them moves the weights the way the target does. "
    "Always the kind is played that may be the best, given how well it did and how seldom it was tried.",
    equation="play argmax R_a + sqrt(2 ln t / n_a);  R_a <- (1 - beta) R_a + beta cos(g_a, g_T)",
    departures=(
        *DEPARTURES,
        "an arm is first measured while it is played, where the paper spends 1000 samples on it beforehand, and counts as 0 until then; "
        "n_a counts tasks",
    ),
    stages={"curriculum": stage(Ucb1)},
    claim="With distracting kinds of tasks around, related kinds get more than their even share, and the target is learnt better.",
    examples=(
        ByHand("equal rewards: in turn", _in_turn, [3, 2, 2]),
        ByHand(
            "two arms after e plays in all, one each but for the rest",
            lambda: ucb1(np.zeros(2), np.array([math.e - 1, 1.0]))[1],
            math.sqrt(2),
        ),
    ),
)

RECIPES = (EXP3, UCB1)
