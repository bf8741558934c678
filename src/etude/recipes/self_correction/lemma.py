"""LEMMA: traces that go wrong, notice it, and end right."""

from etude.credit.mistakes import traces
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout.corrections import Corrected, correction
from etude.settings import stage

RECIPE = Recipe(
    name="lemma",
    family="self_correction",
    n=258,
    paper=Paper("LEMMA: Learning from Errors for MatheMatical Advancement in LLMs", "2503.17439", 2025),
    idea="Solutions are shown that take a wrong step, notice it, and then either mend that step or start again. "
    "The wrong steps are the model's own, or put into a right solution on purpose. "
    "The model imitates the whole, beside ordinary right solutions, and so learns to turn back.",
    equation="L = - mean_t log pi(y_t | x) over right solutions and over traces: right steps, wrong step, 'Wait, ...', right steps",
    departures=(
        "the first wrong step is where an attempt departs from the task's solution (--set gather.finder=self asks the policy), and errors "
        "are put in by rules, where the paper has a stronger model do both",
        "transitions are two fixed sentences; nobody smooths the joint",
        "GUESS: errors of all types are equally likely, where the paper follows the model's own distribution",
    ),
    stages={
        "gather": stage(Corrected),
        "reward": stage(verdict_if_any),
        "credit": stage(traces),
        "objective": stage(cross_entropy),
    },
    needs=("answer", "text"),
    claim="With both ways of correcting mixed, accuracy exceeds that of right solutions alone at equal rows.",
    examples=(
        ByHand(
            "three steps of which the second went wrong: how many right ones follow, mending and starting again",
            lambda: [len(correction("abc", 1, fresh, "\n").split("\n")) - 2 for fresh in (False, True)],
            [2, 3],
        ),
        Reduction("no traces: supervised fine-tuning", "sft", {"gather.own": 0, "gather.injected": 0}),
    ),
)
