"""RLTF: learning from what a judge says of a wrong answer, not only from its verdict."""

import torch

from etude.credit.attempts import compared
from etude.credit.second import discounted, feedback_modelled, self_distilled
from etude.objective.attempts import weighted, with_feedback_model, with_self_distillation
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import formatted
from etude.rollout.second import Refine
from etude.settings import stage

PAPER = Paper("Expanding the Capabilities of Reinforcement Learning via Text Feedback", "2602.02482", 2026)
SAME = (
    "the judge is the policy itself by default (--set rollout.critic=teacher, start or remote for another), and what it writes is "
    "not itself reinforced",
    "the judge is told the task's own feedback; that it reveals no answer is asked of it, not enforced",
    "no LoRA of its own and the run's learning rate",
)
ALONE = Reduction("no second attempts: REINFORCE", "reinforce", {"rollout.second": 0.0})
RLTF_SD = Recipe(
    name="rltf_sd",
    family="self_correction",
    n=19,
    paper=PAPER,
    idea="A wrong answer is criticised, and the model answers again with the critique in view. "
    "The second answer is then also learnt as an answer to the bare question, by how much better it did than first answers do. "
    "So what the critique made easy becomes part of the first attempt.",
    equation="L = - sum rho_t A_t over both turns, A = R_turn - mean of the turn, R_1 = r_1 + gamma r_2;  "
    "- c (r_2 - mean_j r_1j) rho_t(y_2 | x)",
    departures=SAME,
    stages={
        "rollout": stage(Refine),
        "reward": stage(formatted),
        "credit": stage(self_distilled),
        "objective": stage(with_self_distillation),
    },
    claim="Single-turn accuracy after training exceeds that of two-turn GRPO; the second turn's own mean as a baseline is worse.",
    examples=(
        ByHand(
            "first turns: right at once; wrong, then right",
            lambda: [discounted(1.0, None, 0.1), discounted(0.0, 1.0, 0.1)],
            [1, 0.1],
        ),
        ByHand(
            "the mean of those who had a second turn",
            lambda: compared([None, 1.0, 0.0, None]),
            [0, 0.5, -0.5, 0],
        ),
        ByHand(
            "right second, a quarter of the first right, half as likely as before",
            lambda: weighted(torch.tensor(0.5), torch.tensor(1 - 0.25)),
            -0.375,
        ),
        ALONE,
        Reduction(
            "without the distillation it is two-turn REINFORCE, as RLTF-FM without its critiques",
            "rltf_fm",
            {"objective.distil": 0.0},
            {"objective.feedback": 0.0},
        ),
    ),
)
RLTF_FM = Recipe(
    name="rltf_fm",
    family="self_correction",
    n=19,
    paper=PAPER,
    idea="A wrong answer is criticised by someone who knows what came of it, and the model answers again. "
    "Beside being reinforced in both turns, the model learns to predict the critique from question and answer alone. "
    "It can then criticise itself when nobody else does.",
    equation="L = - sum rho_t A_t over both turns;  - lambda mean_t log pi(c_t | question, answer)",
    departures=SAME,
    stages={
        "rollout": stage(Refine),
        "reward": stage(formatted),
        "credit": stage(feedback_modelled),
        "objective": stage(with_feedback_model),
    },
    claim="With self-critique at test time accuracy exceeds that of the single turn, and of two-turn GRPO.",
    examples=(
        ByHand("a discount of 0: each turn for itself", lambda: discounted(0.5, 1.0, 0.0), 0.5),
        ALONE,
    ),
)
RECIPES = (RLTF_SD, RLTF_FM)
