"""ERL: attempt, reflect, try again, and keep in the weights what worked."""

from etude.credit.attempts import compared
from etude.credit.second import experience, kept
from etude.objective.attempts import reinforce_and_keep
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.second import Reflect
from etude.settings import stage

RECIPE = Recipe(
    name="erl",
    family="self_correction",
    paper=Paper("Experiential Reinforcement Learning", "2602.13949", 2026),
    idea="After a failed attempt the model reflects on what the environment said, and tries again with its own advice in view. "
    "Attempts and reflections are reinforced, the reflection by the success of the attempt that it led to; advice that worked is "
    "remembered for later tasks. What succeeded is also learnt as an answer to the bare question, so that it needs no reflection.",
    equation="L = PPO's clip on y_1, the reflection and y_2, A by GRPO among parts of a kind;  - max(r_2, 0) sum_t log pi(y_2t | x)",
    departures=(
        "the KL of the released settings (0.001) is off, so that no reference model is kept (--set objective.beta=0.001)",
        "the memory changes between steps, not within one",
        "the reflection stands above the question in the user's message, since many templates have no system role",
        "all terms are divided by the number of episodes, whose parts are summed, where the paper counts each part as a sequence: "
        "a factor only",
        "one second attempt per reflection",
    ),
    stages={
        "rollout": stage(Reflect),
        "reward": stage(each_attempt),
        "credit": stage(experience),
        "objective": stage(reinforce_and_keep),
    },
    claim="On sparse-reward grid tasks first attempts succeed more often than under GRPO at equal compute; trying again without a "
    "reflection gains less.",
    examples=(
        ByHand(
            "second attempts: none, failed, right, half right",
            lambda: kept([None, 0.0, 1.0, 0.5]),
            [0, 0, 1, 0.5],
        ),
        ByHand(
            "reflections of two in four episodes, one of which led to success",
            lambda: compared([None, 1.0, 0.0, None], std=True),
            [0, 1 / 1.0002, -1 / 1.0002, 0],
        ),
        Reduction(
            "nobody tries again: GRPO",
            "grpo",
            {"rollout.second": 0.0, "objective.high": 0.2},
            {"objective.mean": "sum"},
        ),
    ),
)
