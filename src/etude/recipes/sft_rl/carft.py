"""CARFT: ReFT, with right solutions drawn towards the annotated one in an embedding."""

import torch

from etude.credit.kl_penalty import Contrasted
from etude.objective.contrast import contrasted, info_nce, pooled
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.sft_rl.reft import RECIPE as REFT
from etude.rollout.beside import beside
from etude.settings import stage

RECIPE = Recipe(
    name="carft",
    family="sft_rl",
    n=97,
    base=REFT,
    paper=Paper(
        "CARFT: Boosting LLM Reasoning via Contrastive Learning with Annotated Chain-of-Thought-based Reinforced Fine-Tuning",
        "2508.15868",
        2025,
    ),
    idea="ReFT no longer looks at the annotated solution once practice begins. "
    "Here every right attempt is drawn, in a small embedding, towards the annotated solution of its task and away from the other attempts. "
    "That is meant to keep training from collapsing.",
    equation="L = L_ReFT + c mean over right i of -log exp(min(cos(z*_i, z_i), 0.9)/tau) / sum_j exp(cos(z*_i, z_j)/tau),  "
    "z = sum_t softmax_t(v_t) e_t",
    departures=(
        "z* is embedded, without gradient, by the weights of the update and not of the rollout: the same on the first pass",
        "c = 0.1, one of the four values swept",
        "guess: a token's embedding is that of the state in which it is chosen, and the end token is pooled too",
    ),
    stages={
        "gather": stage(beside, warmup=0.2),
        "credit": stage(Contrasted),
        "objective": stage(contrasted),
    },
    claim="Fewer seeds collapse than under ReFT.",
    examples=(
        ByHand(
            "one attempt: 0 below the clamp, (1 - 0.9) / 0.2 at cosine 1",
            lambda: [float(info_nce(torch.tensor([[c]]), torch.tensor([0]), 0.2, 0.9)) for c in (0.5, 1.0)],
            [0.0, 0.5],
        ),
        ByHand(
            "states 0 and 4 of values log 3 and log 9 pool to 3",
            lambda: pooled(
                torch.tensor([[0.0], [4.0]]),
                torch.tensor([3.0, 9.0]).log(),
                torch.tensor([0, 0]),
                torch.tensor([True, True]),
            ),
            [[3.0]],
        ),
        Reduction(
            "without the contrast: ReFT",
            "reft",
            {"gather.warmup": 0.0, "objective.coefficient": 0.0, "objective.value_weight": 5.0},
            {"gather.warmup": 0.0},
        ),
    ),
)
