"""SPA-RL (arXiv 2505.20732): an estimator learns a number per turn such that the numbers of an episode add up to its
outcome, and each turn is rewarded by its own number, so that credit does not have to travel back from the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.group import constant
from etude.credit.kl_penalty import KLPrice, drift
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    example_answers,
    example_loss,
    given_stage,
)
from etude.objective.outcome import to_outcome
from etude.objective.policy import clipped_with_value
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Episode, Group, Signal, Span
from etude.update import Update

PROGRESS = "progress"  # the auxiliary model and its head


def estimate_progress() -> Objective:
    """(sum over turns of c_t - R)^2, c_t the head where a turn's last token is chosen."""
    return to_outcome(
        lambda out, batch: out.heads[PROGRESS][:, 0],
        lambda total, outcome: (total - outcome) ** 2,
        progress=1,
    )


def turn_ends(episode: Episode) -> Array:
    """bool[T]: the last token of each of the policy's turns."""
    ends = np.zeros(len(episode.tokens), bool)
    stops = np.cumsum([len(s) for s in episode.spans])
    ends[
        [stop - 1 for span, stop in zip(episode.spans, stops, strict=True) if span.sampled and len(span)]
    ] = True
    return ends


def executable(episode: Episode, refusal: str, decode: Callable[[Array], str]) -> Array:
    """g_t, f64[turns]: 1 unless what was said to the policy next contains `refusal` (in any case)."""
    found: list[float] = []
    for span in episode.spans:
        if span.sampled and len(span):
            found.append(1.0)
        elif found and span.role != "assistant" and refusal.lower() in decode(span.tokens).lower():
            found[-1] = 0.0
    return np.array(found)


@writes("policy", extras=("returns", "values"))
def progress_rewards(
    progress_weight: Annotated[float, Setting("alpha: weight of progress", low=0)] = 1.0,
    executable_weight: Annotated[
        float, Setting("beta: reward of a turn that the environment could carry out", low=0)
    ] = 0.5,
    kl_weight: KLPrice = 0.01,
    refusal: Annotated[
        str, Setting("what the environment says of a turn it cannot carry out")
    ] = "nothing happens",
    learned: Annotated[bool, Setting("progress as estimated; else the outcome, at the last turn")] = True,
    end_at: Annotated[
        float, Setting("share of the run at which the estimator's training ends", low=0, high=1)
    ] = 1.0,
    gamma: Gamma = 1.0,
    lam: Lambda = 0.95,
) -> Credit:
    """GAE of r_t = alpha c_t + beta g_t at the last token of turn t, minus kl_weight (log pi_old - log pi_ref)."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        progress = estimated(episodes, context) if learned else [terminal(e, e.reward) for e in episodes]
        rewards = []
        for episode, row, away in zip(episodes, progress, drift(episodes, context), strict=True):
            reward = progress_weight * row - kl_weight * away
            done = executable(episode, refusal, context.policy.renderer.decode)
            reward[turn_ends(episode)] += executable_weight * done
            rewards.append(reward)
        return token_gae(episodes, rewards, context, gamma, lam)

    def estimated(episodes: Sequence[Episode], context: Context) -> list[Array]:
        """c_t on the last tokens of turns, 0 elsewhere; then the estimator learns from these episodes."""
        model, ends = context.auxiliary[PROGRESS], [turn_ends(e) for e in episodes]
        lessons = [
            replace(
                constant(e, 0.0),
                weights={"policy": end.astype(np.float32)},
                extras={"outcome": np.full(len(end), e.reward, np.float32)},
            )
            for e, end in zip(episodes, ends, strict=True)
        ]
        rows = context.rows(lessons, lambda out: out.heads[PROGRESS][:, 0], policy=model.policy)
        if context.progress < end_at:
            model.learn(estimate_progress(), lessons, context.step, context.progress)
        return [np.where(end, row, 0) for row, end in zip(rows, ends, strict=True)]

    return credit


def _two_turns() -> Group:
    """A right attempt: a turn of two tokens, a refusal, a turn of one token."""
    (episode,) = example_answers((1.0, (2, 3))).episodes
    prompt, turn = episode.spans
    heard = Span("user", np.array([ord(c) for c in "NO"], np.int32))
    last = Span("assistant", np.array([4], np.int32), True, -np.ones(1, np.float32))
    return Group(episode.task, (replace(episode, spans=(prompt, turn, heard, last)),))


def _returns() -> list[float]:
    """Returns at the three sampled tokens, where c = 1/4 and 1/2 (9 where no turn ends), and the start's log-probabilities are -1, -2, -1."""
    progress, reference = GivenModel(**{PROGRESS: [9.0, 0.25, 0.5]}), GivenModel(logp=[-1.0, -2.0, -1.0])
    context = GivenContext(GivenModel(value=0.0), {PROGRESS: progress, "reference": reference})
    settings = {"progress_weight": 2.0, "kl_weight": 0.1, "refusal": "no", "lam": 1.0}
    (signal,) = given_stage(RECIPE, "credit", **settings)([_two_turns()], context)
    return signal.extras["returns"][signal.episode.sampled].tolist()


def _estimator_loss(progress: float) -> list[float]:
    """What the estimator is trained by at this progress of the run, where c = 1/4 and 1/2 and R = 1."""
    model = GivenModel(**{PROGRESS: [9.0, 0.25, 0.5]})
    context = GivenContext(
        GivenModel(value=0.0), {PROGRESS: model, "reference": GivenModel()}, progress=progress
    )
    given_stage(RECIPE, "credit", end_at=0.5)([_two_turns()], context)
    return [example_loss(objective, signals, model) for objective, signals in model.lessons]


RECIPE = Recipe(
    name="spa_rl",
    paper=Paper("SPA-RL: Reinforcing LLM Agents via Stepwise Progress Attribution", "2505.20732", 2025),
    published_lr=3e-6,
    idea="A win after many turns does not say which turns won it. "
    "An estimator learns a number per turn such that the numbers of an episode add up to its outcome. "
    "Each turn is then rewarded by its own number, so credit does not have to travel back from the end.",
    equation="min (sum_t c_t - R)^2;  r_t = alpha c_t + beta [turn t could be carried out] on the last token of turn t, - KL;  GAE, PPO",
    departures=(
        "the estimator learns from every step's attempts, after it has judged them, where the paper trains it once and freezes it (credit.end_at)",
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
        PROGRESS: AuxiliaryModel("copy", lr=1.0, heads={PROGRESS: 1}),
        "reference": AuxiliaryModel("start"),
    },
    claim="On puzzles of several turns it learns faster than with the outcome at the end, the more so the longer they are.",
    manipulation=(Manipulated("episodes have two turns or more", "turns", 2.0),),
    examples=(
        ByHand(
            "turns end at tokens 2 and 5", lambda: turn_ends(_two_turns().episodes[0]), [0, 0, 1, 0, 0, 1]
        ),
        # r = 0, 2 x 1/4 + 0 (refused) - 0.1 x 1, 2 x 1/2 + 1/2: their sums from the end.
        ByHand("rewards of two turns, the first refused", _returns, [1.9, 1.9, 1.5]),
        ByHand("the estimator's loss: (1/4 + 1/2 - 1)^2", lambda: _estimator_loss(0.4), [1 / 16]),
        ByHand("frozen from end_at on", lambda: _estimator_loss(0.5), []),
        # Surrogate: (-1.2 - 1.1 + 0.8) / 3. Halved squared errors of V, the larger of plain and clipped: 0.3^2 (0
        # plain), 1/4, 0; a tenth of their mean.
        OffPolicy(
            "PPO's loss",
            ratio=(1.5, 1.1, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"returns": (1.0, 1.0, 0.0), "values": (0.5, 0.5, 0.0)},
            heads={"value": (1.0, 0.5, 0.0)},
            loss=-1.5 / 3 + 0.1 * (0.3**2 + 0.5**2) / 2 / 3,
            gradient=(0, -1.1 / 3, 0),
        ),
        Reduction(
            "outcome at the last turn, nothing else: PPO",
            "ppo",
            {"credit.learned": False, "credit.executable_weight": 0.0, "credit.kl_weight": 0.0},
        ),
    ),
)
