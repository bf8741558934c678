"""AMFT: the weight of imitation is itself learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.imitate import shown, unattempted
from etude.credit.weigh import gradient
from etude.objective.hybrid import actor_critic_and_imitation, imitation
from etude.objective.policy import plain
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.demonstrations import beside
from etude.settings import Setting, stage
from etude.train.step import Update
from etude.types import Group, Signal


def scaled(signals: Sequence[Signal], factor: float) -> list[Signal]:
    """The signals with all of their weights times `factor`."""
    return [
        replace(s, weights={name: row * np.float32(factor) for name, row in s.weights.items()})
        for s in signals
    ]


def slope(sft: Tensor, rl: Tensor, held: Tensor) -> float:
    """dU/dmu per unit of look-ahead, U = -L_held: <grad L_held, g_SFT - g_RL>."""
    return float(held @ (sft - rl))


class Balance:
    """1 - mu times the attempts (GAE of the outcome), mu times the demonstrations; mu moves before each step
    (AMFT, arXiv 2508.06944)."""

    def __init__(
        self,
        start: Annotated[float, Setting("weight of imitation at first", low=0, high=1)] = 0.5,
        low: Annotated[float, Setting("least weight of imitation", low=0, high=1)] = 0.05,
        high: Annotated[float, Setting("greatest weight of imitation", low=0, high=1)] = 0.95,
        rate: Annotated[float, Setting("step along the meta-gradient; below 0: as released")] = 1e-4,
        every: Annotated[int, Setting("steps between meta-gradients", "steps", low=1)] = 20,
        utility: Annotated[
            str, Setting("loss that is to fall on the tasks held out", choices=("imitation", "reward"))
        ] = "imitation",
        entropy_rate: Annotated[
            float, Setting("step along H* - H; below 0: imitate more above the target", "per nat")
        ] = 5e-4,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
    ) -> None:
        self.mu, self.low, self.high = start, low, high
        self.rate, self.every, self.utility, self.entropy_rate = rate, every, utility, entropy_rate
        self.gamma, self.lam = gamma, lam
        self.target: float | None = None  # H*, the entropy on demonstrations after the warm-up
        self.steps = 0

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        alone = shown(unattempted(groups), "returns", "values")
        if not episodes:
            return alone
        rewards = [terminal(e, e.reward) for e in episodes]
        attempts = token_gae(episodes, rewards, context, self.gamma, self.lam)
        beside = shown([g for g in groups if g.episodes])
        self._move(attempts, beside, context)
        return [*scaled(attempts, 1 - self.mu), *scaled(beside, self.mu), *alone]

    def _move(self, attempts: Sequence[Signal], beside: Sequence[Signal], context: Any) -> None:
        if self.target is None:
            rows = context.rows(beside, lambda out: out.entropy, {"entropy"})
            on = [s.weights["imitation"] != 0 for s in beside]
            self.target = float(np.mean(np.concatenate([r[o] for r, o in zip(rows, on, strict=True)])))
        entropy = -float(np.mean(np.concatenate([s.episode.logp[s.episode.sampled] for s in attempts])))
        meta = self._meta(attempts, beside, context) if self.rate and self.steps % self.every == 0 else 0.0
        mu = self.mu + self.rate * meta + self.entropy_rate * (self.target - entropy)
        self.mu = min(max(mu, self.low), self.high)
        self.steps += 1

    def _meta(self, attempts: Sequence[Signal], beside: Sequence[Signal], context: Any) -> float:
        """The slope: g_SFT and g_RL from every other task, the held-out loss from the rest."""
        first, rest = (set(list(dict.fromkeys(s.episode.task.key for s in beside))[i::2]) for i in (0, 1))
        held = beside if self.utility == "imitation" else attempts
        losses = {"imitation": imitation(), "reward": plain("token")}
        parts = (("imitation", beside, first), ("reward", attempts, first), (self.utility, held, rest))
        return slope(
            *(
                gradient(losses[name], [s for s in signals if s.episode.task.key in keys], context)
                for name, signals, keys in parts
            )
        )

    def report(self) -> dict[str, float]:
        return {"imitation": self.mu}

    def state_dict(self) -> dict[str, Any]:
        return {"mu": self.mu, "target": self.target, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mu, self.target, self.steps = state["mu"], state["target"], state["steps"]


RECIPE = Recipe(
    name="amft",
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
        "group_rollout": stage(beside, warmup=0.2),
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
            {"group_rollout.warmup": 0, "credit.start": 0, "credit.low": 0, "credit.high": 0},
        ),
    ),
)
