"""InT: the model corrects the first wrong step of its own failed attempt, and learns that one step."""

from etude.credit.hybrid import practise_and_correct
from etude.objective.hybrid import Imitation, imitation
from etude.objective.policy import High, Low, MeanOver, clipped
from etude.objective.terms import Objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.rollout.intervene import first_departure, intervening, read_proposal
from etude.settings import stage


def clipped_and_imitate(
    low: Low = 0.2, high: High = 0.2, mean: MeanOver = "sequence", imitate: Imitation = 1.0
) -> Objective:
    """GRPO's loss and cross-entropy, a token mean."""
    return clipped(low, high, mean) + imitation(imitate)


RECIPE = Recipe(
    name="intervention",
    family="credit",
    n=17,
    base=GRPO,
    paper=Paper(
        "InT: Self-Proposed Interventions Enable Credit Assignment in LLM Reasoning", "2601.14209", 2026
    ),
    idea="Where every attempt fails, the model itself is shown one of them beside a right solution, and names the first wrong step with a better one in its place. "
    "If continuing from there can succeed, it imitates the steps before and the corrected step, and nothing after. "
    "So blame falls on one step of the attempt, and reinforcement finds tasks that it can now solve.",
    equation="L = L_GRPO - mean over t <= end of y~ of log pi(y_t),  y = (y_0 .. y_{t*-1}, y~), kept if some continuation is right",
    departures=(
        "imitation and GRPO share their steps in the first half of the run; credit.begin = gather.until has them one after the other, as in the paper",
        "one attempt per task is corrected, the first, and continued 8 times, where the paper continues 32 times",
        "a comparison with the reference may take the model's place (gather.proposer), for models too small to be asked",
        "steps are lines, where the paper has paragraphs",
    ),
    stages={
        "gather": stage(intervening),
        "credit": stage(practise_and_correct),
        "objective": stage(clipped_and_imitate),
    },
    needs=("reference", "text"),
    claim="Tasks solved: with prefix and intervention more than without the prefix, and that more than with the suffix; entropy stays near the start's.",
    examples=(
        ByHand(
            "'2: a better step', of 3 and of 1 steps",
            lambda: [read_proposal("Well.\n2: so 7", n) is not None for n in (3, 1)],
            [1, 0],
        ),
        ByHand("the second of three lines departs", lambda: first_departure("abc", "axc")[0], 1),  # type: ignore[index]
        Reduction("no interventions: GRPO", "grpo", {"gather.until": 0.0}),
    ),
)
