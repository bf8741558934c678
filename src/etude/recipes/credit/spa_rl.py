"""SPA-RL: the outcome is handed out to the turns that brought it nearer."""

from etude.credit.example import attempt
from etude.credit.redistribution import executable, progress_rewards, turn_ends
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.settings import stage
from etude.train.step import Update

RECIPE = Recipe(
    name="spa_rl",
    family="credit",
    n=5,
    paper=Paper("SPA-RL: Reinforcing LLM Agents via Stepwise Progress Attribution", "2505.20732", 2025),
    idea="A win after many turns does not say which turns won it. "
    "An estimator learns a number per turn such that the numbers of an episode add up to its outcome. "
    "Each turn is then rewarded by its own number, so credit does not have to travel back from the end.",
    equation="min (sum_t c_t - R)^2;  r_t = alpha c_t + beta [turn t could be carried out] on the last token of turn t, - KL;  GAE, PPO",
    departures=(
        "the estimator learns from every step's attempts, after it has judged them, where the paper trains it once and freezes it (credit.until)",
        "it reads the state in which a turn's last token is chosen, through a linear head",
        "no imitation of expert trajectories comes first: start from a model that plays already",
        "guess: gamma = 1, lambda = 0.95, a KL price of 0.01",
    ),
    stages={
        "credit": stage(progress_rewards),
        "objective": stage(clipped_with_value),
        "update": stage(Update, passes=2),
    },
    companions={
        "progress": Companion("copy", lr=1.0, heads={"progress": 1}),
        "reference": Companion("start"),
    },
    claim="On puzzles of several turns it learns faster than with the outcome at the end, the more so the longer they are.",
    examples=(
        ByHand("the last of three tokens ends a turn", lambda: turn_ends(attempt(1.0, (1, 2, 3))), [0, 0, 1]),
        ByHand(
            "a turn that nobody refused", lambda: executable(attempt(1.0), "nothing happens", None), [1.0]
        ),
        Reduction(
            "outcome at the last turn, nothing else: PPO",
            "ppo",
            {"credit.learned": False, "credit.beta": 0.0, "credit.kl": 0.0},
        ),
    ),
)
