"""Mistake tuning: right and wrong rationales side by side, told apart by a mark in the prompt."""

from etude.credit.mistakes import picked, right_and_wrong
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import marked
from etude.rollout.beside import beside
from etude.settings import stage

RECIPE = Recipe(
    name="mistake_tuning",
    family="self_correction",
    n=46,
    paper=Paper(
        "Can LLMs Learn from Previous Mistakes? Investigating LLMs' Errors to Boost for Reasoning",
        "2403.20046",
        2024,
    ),
    idea="The model imitates right solutions and also its own wrong ones, but the wrong ones only behind a prompt that says so. "
    "It learns what tells the two apart. "
    "Asked without the mark, it writes the right kind.",
    equation="L = - mean_t log pi(right_t | x) - mean_t log pi(wrong_t | x, [INCORRECT RATIONALE]), over all tokens alike",
    departures=(
        "right rationales carry no mark of their own, so that a plain prompt asks for one",
        "the loss is on the rationale, where the paper writes it over prompt and mark as well",
        "wrong rationales are the model's own of this step, one per task; no domain tag",
        "the other half of the paper, self-rethinking, changes nothing in training and is left out",
    ),
    stages={
        "rollout": stage(marked),
        "gather": stage(beside),
        "credit": stage(right_and_wrong),
        "objective": stage(cross_entropy),
    },
    needs=("answer",),
    claim="Imitating right and marked wrong rationales beats imitating the right ones alone; asked with the mark, the model is clearly worse.",
    examples=(
        ByHand(
            "wrong a, right b, wrong a again, wrong c",
            lambda: picked([(b"a", False), (b"b", True), (b"a", False), (b"c", False)], 2),
            [0, 3],
        ),
        Reduction("no wrong ones: supervised fine-tuning", "sft", {"credit.most": 0}),
    ),
)
