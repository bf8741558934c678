"""ExIt: earlier answers become tasks of their own, and improving on them is what is rewarded."""

import numpy as np

from etude.credit.diversity import distances, diverse
from etude.curriculum.starts import Starts, chances, spread
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.reward.attempts import gain, improvement
from etude.settings import stage

PAPER = Paper("Bootstrapping Task Spaces for Self-Improvement", "2509.04575", 2025)

DEPARTURES = (
    "GUESS: kappa = 4 (not given)",
    "guess: a group adds one of its answers, drawn among those that can still be improved (quality below 1)",
    "only answers in words: the prefix of a conversation of several turns is not made a start state",
    "16 start states are enough to begin with, where the paper waits for 128, the tasks of one of its steps",
    "the run's reward is the gain; the score `quality` is the answer's own",
)

EXIT = Recipe(
    name="exit",
    family="curriculum",
    n=49,
    paper=PAPER,
    idea="An answer that was given is a place from which to go on. Half of all tasks show the policy an earlier answer and ask for "
    "a better one, and the reward is what was gained. Answers from which attempts differ most come back most often, so the "
    "policy makes itself a growing space of tasks.",
    equation="P(start i) ~ exp(kappa S_i), S = 4 var of the group's qualities;  r = max(0, G(y) - G(y_old)) / (1 - G(y_old))",
    departures=(
        *DEPARTURES,
        "alone it is trained as GRPO; `topr+exit` and the like take credit and loss from the other",
    ),
    stages={"curriculum": stage(Starts), "reward": stage(improvement)},
    alone=GRPO,
    needs=("text",),
    claim="Trained on single steps, accuracy after four chained improvements exceeds the first answer's by more than under GRPO.",
    examples=(
        ByHand(
            "from a half to 1; from three quarters to a half; from a half to three quarters; from 1 to 1",
            lambda: [gain(1, 0.5), gain(0.5, 0.75), gain(0.75, 0.5), gain(1, 1)],
            [1, 0, 0.5, 0],
        ),
        ByHand(
            "half of a group right, a quarter, all",
            lambda: [spread(np.array(q)) for q in ([1, 0], [1, 0, 0, 0], [1, 1])],
            [1, 0.75, 0],
        ),
        ByHand("scores 1 and 0, kappa = ln 3", lambda: chances([1.0, 0.0], np.log(3)), [0.75, 0.25]),
        Reduction("no start states: GRPO", "grpo", {"curriculum.share": 0.0}),
    ),
)

DIVERSE = Recipe(
    name="exit_diverse",
    base=GRPO,
    family="curriculum",
    n=49,
    paper=PAPER,
    idea="ExIt, and among the answers of a group the ones unlike the others count for more. "
    "So the space of start states does not narrow to one way of answering. What is unlike is told by the policy's hidden states.",
    equation="A_i = d_i (r_i - mean r) / (std r + 1e-4);  d_i = |e_i - mean e| / (max_j |e_j - mean e| - min_j |e_j - mean e|)",
    departures=(
        *DEPARTURES,
        "GUESS: e is the policy's own last hidden state averaged over the answer; d = 1 where all are equally far",
    ),
    stages={"curriculum": stage(Starts), "reward": stage(improvement), "credit": stage(diverse)},
    needs=("text",),
    claim="The answers of a group stay more different than under ExIt at no loss of accuracy.",
    examples=(
        ByHand(
            "distances 1, 3, 2 from the mean", lambda: distances(np.array([[1.0], [-3], [2]])), [0.5, 1.5, 1]
        ),
    ),
)

RECIPES = [EXIT, DIVERSE]
