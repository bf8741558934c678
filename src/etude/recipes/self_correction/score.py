"""SCoRe: learning to correct oneself, in two stages and with a bonus for progress."""

from etude.credit.second import two_stages
from etude.objective.attempts import reinforce_near_start
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt, progress_bonus
from etude.rollout.second import reconsider
from etude.settings import stage

RECIPE = Recipe(
    name="score",
    family="self_correction",
    n=41,
    paper=Paper("Training Language Models to Self-Correct via Reinforcement Learning", "2409.12917", 2024),
    idea="The model answers and, without hearing whether it was right, is asked to look again. "
    "At first only the second answer is rewarded while the first is held where it began, so that the two come apart. "
    "Then both are rewarded, with a large bonus for mending and a large loss for spoiling.",
    equation="I: max E[r_2] - beta_2 KL_1 - beta_1 sum KL;  II: max E[r_1 + r_2 + alpha (r_2 - r_1)] - beta_1 sum_i KL(pi(.|x_i) || pi_ref)",
    departures=(
        "GUESS: the baseline is the group's mean for each attempt (--set credit.baseline=false takes none)",
        "the stages divide one run by its progress, half and half, where the paper trains 3000 steps in all and does not say the share",
        "all first attempts come from the policy; the paper takes some from the base model",
    ),
    confidence="memory",
    stages={
        "rollout": stage(reconsider),
        "reward": stage(each_attempt),
        "credit": stage(two_stages),
        "objective": stage(reinforce_near_start),
    },
    claim="Accuracy rises from the first to the second attempt with both stages and the bonus, and stays about the same without.",
    examples=(
        ByHand(
            "mended, spoilt, right twice, at alpha = 10",
            lambda: [progress_bonus(*r, 10.0) for r in ((0, 1), (1, 0), (1, 1))],
            [11, -10, 1],
        ),
        Reduction(
            "no second attempt and no KL: REINFORCE",
            "reinforce",
            {"rollout.second": 0.0, "credit.first_stage": 0.0, "credit.beta1": 0.0},
        ),
    ),
)
