"""T-PPO: do not wait for long answers; learn from the part that is there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.baseline import gae
from etude.credit.group import constant
from etude.objective.policy import High, Low, clipped_with_value
from etude.objective.terms import Objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.ppo import RECIPE as PPO
from etude.rollout.table import optional_verdict
from etude.rollout.window import OPEN, Unfinished, windowed
from etude.settings import Setting, stage
from etude.types import Array, Group, Signal


def egae(reward: Array, value: Array, gamma: float, lam: float, closed: bool) -> Array:
    """GAE with V = 0 after the end of a closed answer, and V(s_n) := V(s_{n-1}) after the last token of an open one."""
    return gae(reward, value, gamma, lam, last=0.0 if closed else float(value[-1]))[0]


def whitened(signals: Sequence[Signal]) -> list[Signal]:
    """Advantages whitened over the tokens that the policy learns."""
    inside = [s.weights["policy"] > 0 for s in signals]
    flat = np.concatenate([s.advantage[m] for s, m in zip(signals, inside, strict=True)])
    mean, std = flat.mean(), flat.std() + 1e-8
    return [
        replace(s, advantage=np.where(m, (s.advantage - mean) / std, 0))
        for s, m in zip(signals, inside, strict=True)
    ]


def extended(
    gamma: Annotated[float, Setting("discount per token", low=0, high=1)] = 1.0,
    lam: Annotated[float, Setting("GAE lambda of the policy", low=0, high=1)] = 0.95,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """The policy learns the tokens of this window by EGAE; the value learns closed answers whole, by their returns."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        plain = [constant(e, 0.0) for g in groups for e in g.episodes if e.sampled.any()]
        signals = []
        for s, value in zip(plain, context.rows(plain, lambda out: out.heads["value"][:, 0]), strict=True):
            mask, closed = s.episode.sampled, s.episode.stop != OPEN
            fresh = np.arange(len(mask)) >= len(mask) - s.episode.notes["window"]
            reward, v = np.zeros(int(mask.sum())), value[mask]
            reward[-1] = s.episode.reward
            advantage, returns = np.zeros_like(value), np.zeros_like(value)
            advantage[mask] = egae(reward, v, gamma, lam, closed)
            returns[mask] = gae(reward, v, gamma, 1.0)[1]
            weights = {"policy": fresh.astype(np.float32), "value": (mask & closed).astype(np.float32)}
            extras = {"returns": returns, "values": value}
            signals.append(Signal(s.episode, advantage * fresh, weights, extras))
        return whitened(signals) if whiten and signals else signals

    return credit


def windowed_with_value(
    low: Low = 0.2,
    high: High = 0.28,
    value_clip: Annotated[float | None, Setting("how far a value may move per batch", low=0)] = 0.2,
    value_weight: Annotated[float, Setting("weight of the value loss", low=0)] = 0.1,
) -> Objective:
    """PPO's objective, its value term on the tokens with a weight of their own."""
    ppo = clipped_with_value(low, high, value_clip, value_weight)
    terms = (replace(t, weight="value") if t.name == "value" else t for t in ppo.terms)
    return replace(ppo, terms=tuple(terms))


SEEN, NONE, LAST = np.array([0.2, 0.4]), np.zeros(2), np.array([0.0, 1])  # values and rewards of two tokens
RECIPE = Recipe(
    name="t_ppo",
    base=PPO,
    family="objective",
    n=255,
    paper=Paper("Truncated Proximal Policy Optimization", "2506.15050", 2025),
    idea="Each step writes only a window of every answer; what is not finished goes on at the next step, under the newer policy. "
    "The tokens of the window are trained at once, with an advantage that takes the value to stay as it was last seen. "
    "The value itself learns only from answers that have ended.",
    equation="delta_t = r_t + gamma V_{t+1} - V_t, V_n := V_{n-1} if open, 0 if closed;  A_t = sum_k (gamma lambda)^k delta_{t+k}",
    departures=(
        "GUESS: a window of half the longest answer, clip 0.2 / 0.28",
        "open answers are reported with reward 0",
        "a task's attempts go on together: their number falls until all of them are closed, then a new task takes the place",
    ),
    stages={
        "curriculum": stage(Unfinished),
        "gather": stage(windowed),
        "reward": stage(optional_verdict),
        "credit": stage(extended),
        "objective": stage(windowed_with_value),
    },
    confidence="memory",
    claim="Fewer generated-token steps to a target reward than PPO at equal final accuracy.",
    examples=(
        ByHand("open: the last delta is 0", lambda: egae(NONE, SEEN, 1.0, 1.0, False), [0.2, 0]),
        ByHand("closed with reward 1", lambda: egae(LAST, SEEN, 1.0, 1.0, True), [0.8, 0.6]),
        ByHand("lambda = 0: delta_t only", lambda: egae(NONE, SEEN, 0.5, 0.0, False), [0, -0.2]),
        Reduction(
            "a window as long as the answer is PPO",
            "ppo",
            {"gather.window": 1.0, "credit.lam": 1.0, "objective.high": 0.2},
            {"credit.lam": 1.0},
        ),
    ),
)
