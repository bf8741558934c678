"""ReLIFT: reinforcement, interleaved with imitation of the tasks that no attempt solved."""

from etude.credit.example import credited
from etude.credit.hybrid import centred_or_imitated
from etude.curriculum.interleave import Interleave, demonstrated_if_unsolved
from etude.objective.hybrid import practise_and_imitate
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.settings import stage

RECIPE = Recipe(
    name="relift",
    family="sft_rl",
    n=131,
    paper=Paper(
        "Learning What Reinforcement Learning Can't: Interleaved Online Fine-Tuning for Hardest Questions",
        "2506.07527",
        2025,
    ),
    idea="Reinforcement sharpens what the model can already do and learns nothing from tasks that no attempt solves. "
    "Such tasks wait in a buffer with their demonstrations. "
    "Whenever the buffer is full, one step imitates them, and reinforcement goes on.",
    equation="RL step: L = - sum rho (r - mean r) / (G L);  once B unsolved tasks wait, an SFT step: L = - mean_t log pi(y*_t)",
    departures=(
        "one learning rate for both kinds of step, as in the released settings (1e-6 each)",
        "guess: a task may wait again after it was imitated, but never twice at a time",
        "B is 16 and the divisor L 64 tokens by default, where the paper has 128 and 8192",
    ),
    stages={
        "curriculum": stage(Interleave),
        "gather": stage(demonstrated_if_unsolved),
        "credit": stage(centred_or_imitated),
        "objective": stage(practise_and_imitate),
    },
    needs=("answer",),
    claim="The share of tasks never solved falls faster than with RL alone, with far fewer demonstrations than SFT uses.",
    examples=(
        ByHand("attempts: r - mean r", lambda: credited(centred_or_imitated(), [1, 0]), [0.5, -0.5]),
        Reduction("while nothing waits: Dr. GRPO, on-policy", "dr_grpo", {"objective.entropy": 0.0}),
    ),
)
