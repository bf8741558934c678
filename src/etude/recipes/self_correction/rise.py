"""RISE: sequences of one's own attempts that end in a better one are imitated."""

import math

from etude.credit.mistakes import KEEP, last_turn, reward_weight
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.introspect import Introspect
from etude.settings import stage

RECIPE = Recipe(
    name="rise",
    family="self_correction",
    n=18,
    paper=Paper(
        "Recursive Introspection: Teaching Language Model Agents How to Self-Improve", "2407.18219", 2024
    ),
    idea="The model answers, hears that it was wrong, and answers again in the same conversation. "
    "The last answer is improved: it is the best of several of its own, or a stronger model's. "
    "Only that last answer is imitated, the better the more, so the model learns to mend what it sees itself write.",
    equation="L = - mean_i exp(r_i / tau) mean_t log pi(y_it | x, y_1, f_1, ..., f_{k-1}), y the last attempt; r = 1, 0 or -1",
    departures=(
        "one round per step, from the current weights, where the paper alternates long rounds of collecting and fine-tuning",
        "an attempt that is right at once is imitated as it is; the paper improves every state of a sequence",
        "the reward is not centred by the prompt's mean, as in the released code",
    ),
    stages={
        "rollout": stage(Introspect),
        "reward": stage(each_attempt),
        "credit": stage(last_turn),
        "objective": stage(cross_entropy, mean="sequence"),
    },
    needs=("text",),
    claim="Accuracy at the fifth turn minus that of the first rises with training; fine-tuning on the same answers as single "
    "turns does not show it.",
    examples=(
        ByHand(
            "right, wrong, unreadable at tau = 0.4",
            lambda: [reward_weight(r, 0.4) for r in (1, 0, -1)],
            [math.exp(2.5), 1, math.exp(-2.5)],
        ),
        ByHand(
            "wrong then wrong, wrong then right, right at once: which are better",
            lambda: [KEEP["better"](r) for r in ([0, 0], [0, 1], [1])],
            [False, True, True],
        ),
        Reduction(
            "one turn of one try, right answers only: rejection-sampling fine-tuning, weighed by exp(1 / tau)",
            "rft",
            {"rollout.turns": 1, "rollout.candidates": 1, "credit.keep": "success", "credit.tau": 1.0},
            {"credit.distinct": False, "objective.mean": "sequence"},
            scale=math.e,
        ),
    ),
)
