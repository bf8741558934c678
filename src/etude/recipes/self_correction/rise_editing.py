"""RISE (error-injected self-editing): a right step is preferred to the same step with a subtle error."""

import math

from etude import seeds
from etude.credit.pairs import full_and_step_pairs
from etude.objective.preference import dpo_and_nll, pair_loss
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.edits import Edited, subtle_error
from etude.settings import stage

RECIPE = Recipe(
    name="rise_editing",
    family="self_correction",
    n=278,
    paper=Paper(
        "Subtle Errors Matter: Preference Learning via Error-injected Self-editing", "2410.06638", 2024
    ),
    idea="Most slips of a good solver are small: a wrong number, a swapped operand, a dropped term. "
    "Such an error is put into one step of a right answer, and the model learns to prefer the right step at just that place. "
    "Pairs of whole right and wrong answers are learnt beside it.",
    equation="L = DPO(right, wrong | x) + DPO(step, edited step | x, steps before) + lambda NLL(chosen)",
    departures=(
        "edits are made by rules (--set gather.editor=policy asks the policy itself, as in the paper)",
        "likeness is difflib's ratio, where the paper filters by Levenshtein distance with a threshold that is not known",
        "pairs are sampled anew from the current policy at every step",
        "lambda is 0, as in the released trainer",
    ),
    stages={
        "gather": stage(Edited),
        "credit": stage(full_and_step_pairs),
        "objective": stage(dpo_and_nll),
    },
    needs=("text",),
    claim="At equal numbers of pairs, edited steps cut arithmetic slips more than pairs of whole answers do.",
    examples=(
        ByHand(
            "a margin of 5 nats at beta 0.4", lambda: float(pair_loss(5.0, 0.4)), math.log1p(math.exp(-2))
        ),
        ByHand(
            "the only number of '7' is changed, and nothing else could be",
            lambda: [float(subtle_error("7", seeds.generator(i)) == "7") for i in range(8)],
            [0] * 8,
        ),
        Reduction("no edits: DPO", "dpo", {"gather.edits": False}, {"objective.beta": 0.4}),
    ),
)
