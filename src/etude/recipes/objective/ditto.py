"""DITTO: learn from made-up loops not to repeat oneself."""

import numpy as np
import torch

from etude.credit.solutions import loops
from etude.objective.imitation import repetition, unlearn_loops
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.sft import RECIPE as SFT
from etude.settings import stage

P = torch.tensor([0.2, 0.4, 0.75])
RECIPE = Recipe(
    name="ditto",
    base=SFT,
    family="objective",
    n=114,
    paper=Paper(
        "Learning to Break the Loop: Analyzing and Mitigating Repetitions for Neural Text Generation",
        "2206.02369",
        2022,
    ),
    idea="A sentence said once is likelier the second time, and the more so the more often it was said. "
    "Half of the steps therefore train on made-up loops: each copy of a sentence shall be half as probable as the copy before. "
    "The other half are ordinary fine-tuning.",
    equation="L = - mean_t log(1 - |P_n,t - lambda sg[P_n-1,t]|) over the copies n >= 2 of a sentence",
    departures=("sentences come from the tasks' own solutions, after their prompt, instead of running text",),
    stages={"credit": stage(loops), "objective": stage(unlearn_loops)},
    needs=("text",),
    claim="Greedy decoding falls into loops far less often while the perplexity hardly changes.",
    examples=(
        ByHand("0.2 after 0.4 is on target", lambda: repetition(P[0], P[1], 0.5), 0.0),
        ByHand("lambda = 0 is unlikelihood", lambda: repetition(P[2], P[1], 0.0), 2 * np.log(2)),
        ByHand("too rare counts as too often", lambda: repetition(P[0], P[2], 0.8), -np.log(0.6)),
        ByHand("one-sided it does not", lambda: repetition(P[0], P[2], 0.8, one_sided=True), 0.0),
        Reduction("without loops it is SFT", "sft", {"credit.share": 0.0}),
    ),
)
