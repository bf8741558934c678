"""RMT: think before the next token of a text, within a shrinking budget, and go on reading the rest."""

from etude.credit.hybrid import by_spot
from etude.curriculum.hard_tokens import Scored, bins
from etude.objective.hybrid import Imitation, imitation
from etude.objective.policy import Beta, kl_to_start, plain
from etude.objective.terms import Objective
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.reward.shaping import budgeted, triangle
from etude.rollout.predict import think_and_predict
from etude.settings import stage


def predict_and_read(next_token: Imitation = 0.1, beta: Beta = 0.0) -> Objective:
    """-A log pi (token mean) + beta KL + lambda cross-entropy."""
    return plain("token") + kl_to_start(beta) + imitation(next_token)


RECIPE = Recipe(
    name="rmt",
    family="sft_rl",
    n=141,
    paper=Paper("Reinforcement Mid-Training", "2509.24375", 2025),
    idea="A text is training ground for reasoning: before some of its tokens the model thinks, and is rewarded when it then guesses the token. "
    "Tokens get harder over the run and the thinking budget smaller. "
    "All other tokens are learned as in pre-training.",
    equation="r = (1-w) [guess = token] + w triangle(|thought| / B_t),  B_t = max(B_min, floor(B_0 g^(t/T)));  "
    "L = - mean A log pi + beta KL - lambda mean over the other tokens log pi(x_t)",
    departures=(
        "the text is a task's reference under its prompt; a third of its own tokens, ranked by entropy, is easy, medium or hard (guess)",
        "the harness closes the thought, at its end token or at twice the budget, and one sampled token is the guess",
        "B_0 is 16 tokens, where the paper has 800 of 2048; guess: w = 0.2, r_max = 1, beta = 0, bins 60/20/20 to 20/20/60",
    ),
    stages={
        "curriculum": stage(Scored),
        "gather": stage(think_and_predict),
        "reward": stage(budgeted),
        "credit": stage(by_spot),
        "objective": stage(predict_and_read),
    },
    needs=("answer", "text"),
    companions={"reference": Companion("start")},
    claim="Dropping next-token prediction hurts next-token accuracy most, and budgets shorten thoughts without loss.",
    examples=(
        ByHand(
            "thoughts of 0, 4, 8, 12 and 20 on a budget of 8",
            lambda: [triangle(n, 8) for n in (0, 4, 8, 12, 20)],
            [0, 0.5, 1, 0.5, 0],
        ),
        ByHand("halfway through the curriculum", lambda: bins(0.6, 0.6, 0.3, 0.7, 0.5), [0.4, 0.2, 0.4]),
        Reduction("no token thought about: next-token prediction", "sft", {"gather.positions": 0}, scale=0.1),
    ),
)
