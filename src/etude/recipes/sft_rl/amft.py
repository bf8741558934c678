"""AMFT: the weight of imitation is itself learned."""

import torch

from etude.credit.weigh import Balance, slope
from etude.objective.hybrid import actor_critic_and_imitation
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.beside import beside
from etude.settings import stage
from etude.train.step import Update

RECIPE = Recipe(
    name="amft",
    family="sft_rl",
    n=143,
    paper=Paper(
        "AMFT: Aligning LLM Reasoners by Meta-Learning the Optimal Imitation-Exploration Balance",
        "2508.06944",
        2025,
    ),
    idea="Every step mixes imitation, with weight mu, and PPO, with weight 1 - mu. "
    "A controller moves mu: up where imitation's gradient agrees better with progress on held-out tasks, and against a drift of the entropy. "
    "So imitation should lead at first and give way by itself.",
    equation="mu <- clip(mu + a <grad L_val, g_SFT - g_RL> + b (H* - H));  L = (1 - mu) L_PPO + mu L_SFT",
    departures=(
        "the meta-gradient ascends the utility; the released code descends it (a negative credit.rate)",
        "the look-ahead step size is part of credit.rate, as both only scale the slope",
        "the validation set is every other task of the step; g_RL leaves the critic out and is taken at ratio 1",
        "guess: the warm-up W is a fifth of the run; H is read from the sampled tokens' own log-probabilities",
        "mu starts at 0.5, as in the README; the released settings file has 0.8",
    ),
    stages={
        "gather": stage(beside, warmup=0.2),
        "credit": stage(Balance),
        "objective": stage(actor_critic_and_imitation),
        "update": stage(Update, passes=2),
    },
    needs=("answer",),
    claim="The weight of imitation falls over training, and the result is above that of any fixed weight.",
    examples=(
        ByHand(
            "held-out loss falls along (1, 0): g_SFT = (2, 0) beats g_RL = (1, 5)",
            lambda: slope(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0]), torch.tensor([1.0, 0.0])),
            1.0,
        ),
        Reduction(
            "mu fixed at 0: PPO",
            "ppo",
            {"gather.warmup": 0, "credit.start": 0, "credit.low": 0, "credit.high": 0},
        ),
    ),
)
