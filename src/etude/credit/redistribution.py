"""Rewards of tokens and turns from a companion that learns, from outcomes alone, what adds up to them: return
decomposition, or an implicit process reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.group import Credit, constant, laid, leave_one_out, whitened
from etude.credit.kl_penalty import drift
from etude.objective.outcome import TOKEN_REWARD, estimate_progress, estimate_token_reward, implicit_outcome
from etude.settings import Setting
from etude.types import Array, Episode, Group, Signal


def to_go(rewards: Array) -> Array:
    """f[n]: the sum of each reward and all that follow."""
    return np.cumsum(rewards[::-1])[::-1]


def process_advantages(rewards: Sequence[Array], released: bool) -> list[Array]:
    """Reward-to-go of each episode's token rewards (f[n] each), less the mean token reward of the others; as
    `released`, plus (q_t - own mean) / (G - 1)."""
    means = np.array([q.mean() if len(q) else 0.0 for q in rewards])
    others = (means.sum() - means) / max(len(means) - 1, 1)
    extra = [(q - m) / max(len(means) - 1, 1) * released for q, m in zip(rewards, means, strict=True)]
    return [to_go(q - o + x) for q, o, x in zip(rewards, others, extra, strict=True)]


def implicit_rewards(
    beta: Annotated[float, Setting("scale of the implicit reward", low=0)] = 0.05,
    process: Annotated[float, Setting("weight of the process part", low=0)] = 5.0,
    outcome: Annotated[float, Setting("weight of the outcome part", low=0)] = 5.0,
    unit: Annotated[str, Setting("what one implicit reward is for", choices=("token", "whole"))] = "token",
    judged: Annotated[
        str, Setting("by the reward model before or after its own step", choices=("before", "after"))
    ] = "before",
    online: Annotated[bool, Setting("train the reward model on every step's attempts")] = True,
    released: Annotated[bool, Setting("the baseline as in the released code")] = True,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
):
    """A_t = process x (reward-to-go of q_t less a baseline) + outcome x (r - mean of the others), with
    q_t = beta (log pi_phi - log pi_ref) over the batch's largest |reward-to-go| (PRIME, arXiv 2502.01456)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        plain = [constant(e, 0.0) for g in groups for e in g.episodes]
        outcomes = [np.full(len(s.advantage), s.episode.reward, np.float32) for s in plain]
        known = context.with_logp(plain, "reference")
        lessons = [
            replace(s, extras={**s.extras, "outcome": r}) for s, r in zip(known, outcomes, strict=True)
        ]

        def learn() -> None:
            if online:
                model = context.companions["prm"]
                model.learn(implicit_outcome(beta), lessons, context.step, context.progress)

        if judged == "after":
            learn()
        scored = iter(context.with_logp(known, "prm"))
        if judged == "before":
            learn()
        rows = [[_implicit(next(scored), beta, unit) for _ in g.episodes] for g in groups]
        most = max((float(np.abs(to_go(q)).max()) for row in rows for q in row if len(q)), default=0.0) or 1.0
        signals = []
        for group, row in zip(groups, rows, strict=True):
            parts = process_advantages([process * q / most for q in row], released)
            whole = outcome * leave_one_out(group.rewards)
            for episode, part, base in zip(group.episodes, parts, whole, strict=True):
                signals.append(constant(episode, base))
                signals[-1].advantage[episode.sampled] += part
        return whitened(signals) if whiten else signals

    return credit


def _implicit(signal: Signal, beta: float, unit: str) -> Array:
    """f[n]: beta (log pi_phi - log pi_ref) of the sampled tokens; their sum on the last one if `unit` is whole."""
    q = beta * (signal.extras["prm"] - signal.extras["reference"])[signal.episode.sampled]
    return q if unit == "token" or not len(q) else np.append(np.zeros(len(q) - 1), q.sum())


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
        model, ends = context.companions["progress"], [turn_ends(e) for e in episodes]
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


def shares(scores: Array, right: bool) -> Array:
    """w_t of one answer: with p_t = sigmoid(mean of s_1..s_t), clip(2 p_t - 1, 0, 1) where it is right and
    clip(1 - 2 p_t, 0, 1) where it is wrong."""
    p = 1 / (1 + np.exp(-np.cumsum(scores) / np.arange(1, len(scores) + 1)))
    return np.clip(2 * p - 1 if right else 1 - 2 * p, 0, 1)


def judged(episode: Episode, advantage: float, right: bool, share: Array) -> Signal:
    on = episode.sampled.astype(np.float32)
    rows = {"policy": on, "right": on * right, "wrong": on * (not right)}
    return Signal(episode, advantage * on, rows, {"share": laid(episode.sampled, share)})


def best_and_worst(
    keep: Annotated[int, Setting("right and wrong answers kept per task, of each; 0: all", low=0)] = 1,
    baseline: Annotated[bool, Setting("subtract the mean of the other answers from +1 and -1")] = True,
    weigh: Annotated[bool, Setting("weigh tokens by the learned token reward")] = True,
) -> Credit:
    """Leave-one-out advantages of rewards +1 and -1 for the kept answers, and the share of each token in it by the
    companion's scores, which learn from the same answers first (OREAL, arXiv 2502.06781)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        kept: list[tuple[Episode, float, bool]] = []
        for group in groups:
            rewards = 2 * group.rewards - 1
            advantages = leave_one_out(rewards) if baseline else rewards
            order = context.rng("oreal", context.drawn, group.task.key).permutation(len(rewards))
            for right in (True, False):
                mine = [i for i in order if (rewards[i] > 0) == right][: keep or None]
                kept += [(group.episodes[i], advantages[i], right) for i in mine]
        signals = [judged(*one, np.ones(1)) for one in kept]
        if not weigh:
            return signals
        judge = context.companions[TOKEN_REWARD]
        judge.learn(estimate_token_reward(), signals, context.step, context.progress)
        scores = context.rows(signals, lambda out: out.heads[TOKEN_REWARD][:, 0], policy=judge.policy)
        return [
            judged(e, a, right, shares(row[e.sampled], right))
            for (e, a, right), row in zip(kept, scores, strict=True)
        ]

    return credit
