"""SPA-RL: the outcome is handed out to the turns that brought it nearer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.group import constant
from etude.credit.kl_penalty import drift
from etude.objective.outcome import to_outcome
from etude.objective.policy import clipped_with_value
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.testing.examples import example_episode
from etude.train.step import Update
from etude.types import Array, Episode, Group, Signal


def turn_ends(episode: Episode) -> Array:
    """bool[T]: the last token of each of the policy's turns."""
    ends = np.zeros(len(episode.tokens), bool)
    stops = np.cumsum([len(s) for s in episode.spans])
    ends[
        [stop - 1 for span, stop in zip(episode.spans, stops, strict=True) if span.sampled and len(span)]
    ] = True
    return ends


def executable(episode: Episode, refusal: str, decode: Any) -> Array:
    """f64[turns]: 1 unless what was said to the policy next contains `refusal` (in any case)."""
    found: list[float] = []
    for span in episode.spans:
        if span.sampled and len(span):
            found.append(1.0)
        elif found and span.role != "assistant" and refusal.lower() in decode(span.tokens).lower():
            found[-1] = 0.0
    return np.array(found)


def estimate_progress() -> Objective:
    """(sum over turns of c_t - R)^2, c_t the head "progress" where a turn's last token is chosen (SPA-RL)."""
    return to_outcome(
        lambda out, batch: out.heads["progress"][:, 0], lambda total, right: (total - right) ** 2, progress=1
    )


def progress_rewards(
    alpha: Annotated[float, Setting("weight of a turn's progress", low=0)] = 1.0,
    beta: Annotated[float, Setting("reward of a turn that the world could carry out", low=0)] = 0.5,
    kl: Annotated[float, Setting("price of leaving the starting policy", "per nat", low=0)] = 0.01,
    refusal: Annotated[str, Setting("what the world says of a turn it cannot carry out")] = "nothing happens",
    learned: Annotated[bool, Setting("progress as estimated; else the outcome, at the last turn")] = True,
    until: Annotated[
        float, Setting("share of the run after which the estimator is frozen", low=0, high=1)
    ] = 1.0,
    gamma: Gamma = 1.0,
    lam: Lambda = 0.95,
):
    """GAE of r_t = alpha c_t + beta g_t at the last token of turn t, minus kl (log pi_old - log pi_ref)
    (SPA-RL, arXiv 2505.20732)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        progress = estimated(episodes, context) if learned else [terminal(e, e.reward) for e in episodes]
        rewards = []
        for episode, row, away in zip(episodes, progress, drift(episodes, context), strict=True):
            reward = alpha * row - kl * away
            reward[turn_ends(episode)] += beta * executable(episode, refusal, context.policy.renderer.decode)
            rewards.append(reward)
        return token_gae(episodes, rewards, context, gamma, lam)

    def estimated(episodes: Sequence[Episode], context: Any) -> list[Array]:
        model, ends = context.auxiliary["progress"], [turn_ends(e) for e in episodes]
        lessons = [
            replace(
                constant(e, 0.0),
                weights={"policy": end.astype(np.float32)},
                extras={"outcome": np.full(len(end), e.reward, np.float32)},
            )
            for e, end in zip(episodes, ends, strict=True)
        ]
        rows = context.rows(lessons, lambda out: out.heads["progress"][:, 0], policy=model.policy)
        if context.progress < until:
            model.learn(estimate_progress(), lessons, context.step, context.progress)
        return [np.where(end, row, 0) for row, end in zip(rows, ends, strict=True)]

    return credit


RECIPE = Recipe(
    name="spa_rl",
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
    auxiliary={
        "progress": AuxiliaryModel("copy", lr=1.0, heads={"progress": 1}),
        "reference": AuxiliaryModel("start"),
    },
    claim="On puzzles of several turns it learns faster than with the outcome at the end, the more so the longer they are.",
    examples=(
        ByHand(
            "the last of three tokens ends a turn",
            lambda: turn_ends(example_episode(1.0, (1, 2, 3))),
            [0, 0, 1],
        ),
        ByHand(
            "a turn that nobody refused",
            lambda: executable(example_episode(1.0), "nothing happens", None),
            [1.0],
        ),
        Reduction(
            "outcome at the last turn, nothing else: PPO",
            "ppo",
            {"credit.learned": False, "credit.beta": 0.0, "credit.kl": 0.0},
        ),
    ),
)
