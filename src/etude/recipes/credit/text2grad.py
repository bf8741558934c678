"""Text2Grad: a critic quotes what is good and what is poor, and exactly those words are rewarded."""

from etude.credit.kl_penalty import SpanRewards, followed
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.reward.spans import find_span
from etude.rollout.criticise import criticised
from etude.settings import stage
from etude.train.step import Update

RECIPE = Recipe(
    name="text2grad",
    family="credit",
    n=125,
    paper=Paper("Text2Grad: Reinforcement Learning from Natural Language Feedback", "2505.22338", 2025),
    idea="A critic reads each answer and quotes its good and its poor passages. "
    "Words of good passages are rewarded, words of poor ones punished, all others left alone. "
    "So feedback in words reaches the very tokens it is about.",
    equation="r_t = [token t in a good span] - [in a poor span] - beta (log pi_old - log pi_ref);  GAE, PPO",
    departures=(
        "no reward model is trained on annotated critiques: the critic is the task's reference, or a model that is asked (gather.critic)",
        "KL is read from the sampled tokens, not from full distributions",
        "guess: gamma = 1, lambda = 0.95; beta follows its target with a horizon of 10,000 episodes",
    ),
    stages={
        "gather": stage(criticised),
        "credit": stage(SpanRewards),
        "objective": stage(clipped_with_value),
        "update": stage(Update, passes=2),
    },
    needs=("answer", "text"),
    companions={"reference": Companion("start")},
    claim="With a critic that marks the wrong line it learns faster than from a scalar reward of equal information.",
    examples=(
        ByHand("a quotation with a slip", lambda: find_span("so 3 + 4 = 8 now", "3 + 4 = 9", 0.7), [3, 12]),
        ByHand(
            "twice the target divergence, 100 of 10,000 episodes",
            lambda: followed(0.05, 6.0, 3.0, 0.01),
            0.0501,
        ),
        Reduction(
            "no marks, the outcome at the end: PPO",
            "ppo",
            {"credit.spans": 0.0, "credit.outcome": 1.0, "credit.beta": 0.0},
        ),
    ),
)
