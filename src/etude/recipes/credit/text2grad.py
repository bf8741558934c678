"""Text2Grad: a critic quotes what is good and what is poor, and exactly those words are rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.credit.tokens import Gamma, Lambda, drift, terminal, token_gae
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.reward.spans import find_span
from etude.rollout.criticise import criticised
from etude.settings import Setting, stage
from etude.train.step import Update
from etude.types import Array, Episode, Group, Signal


class SpanRewards:
    """GAE of the marks (and, if asked, the outcome at the end) minus beta (log pi_old - log pi_ref). beta follows
    the divergence, as in arXiv 1909.08593: beta *= 1 + clip(KL / target - 1, -0.2, 0.2) episodes / horizon."""

    def __init__(
        self,
        spans: Annotated[float, Setting("reward of a marked token", low=0)] = 1.0,
        outcome: Annotated[float, Setting("weight of the verdict, at the last token", low=0)] = 0.0,
        beta: Annotated[float, Setting("price of leaving the start, at first", "per nat", low=0)] = 0.05,
        target: Annotated[
            float, Setting("divergence that beta steers to", "nats per answer", low=0.001)
        ] = 3.0,
        horizon: Annotated[float, Setting("how slowly beta follows", "episodes", low=1)] = 10000.0,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
    ) -> None:
        self.spans, self.outcome, self.beta = spans, outcome, beta
        self.target, self.horizon, self.gamma, self.lam = target, horizon, gamma, lam

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        away = drift(episodes, context)
        rewards = [self._reward(e) - self.beta * d for e, d in zip(episodes, away, strict=True)]
        if episodes:
            self.beta = followed(
                self.beta, float(np.mean([d.sum() for d in away])), self.target, len(away) / self.horizon
            )
        return token_gae(episodes, rewards, context, self.gamma, self.lam)

    def _reward(self, episode: Episode) -> Array:
        return self.spans * np.array(episode.notes["marks"]) + terminal(
            episode, self.outcome * episode.reward
        )

    def report(self) -> dict[str, float]:
        return {"beta": self.beta}

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.beta = state["beta"]


def followed(beta: float, kl: float, target: float, part: float) -> float:
    return beta * (1 + float(np.clip(kl / target - 1, -0.2, 0.2)) * part)


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
