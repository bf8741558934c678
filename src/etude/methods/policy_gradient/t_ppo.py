"""T-PPO: do not wait for long answers; learn from the part that is there.

Fan et al. (arXiv 2506.15050). Curriculum: tasks with open answers first. Group rollout: the next window of
every answer. Reward: 0 until an answer is closed. Credit: extended GAE, which takes the value after the last
token of an open answer to be the last value seen; the policy learns the tokens of this window, the value
closed answers only. Objective: PPO's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.baseline import Gamma, gae
from etude.credit.group import Credit, constant, laid, whitened
from etude.fixtures.examples import example_episode
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.objective.policy import High, Low, ValueClip, ValueWeight, clipped_with_value
from etude.objective.terms import Objective
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage, Rollout
from etude.types import Array, Episode, Group, Request, Signal, Task

OPEN = "window"  # Episode.stop of an answer that is not finished
RUNNING = "running"  # key of Task.meta: the open answers of a task


class Unfinished:
    """Tasks with open answers first, then the source's own mixture."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Task, tuple[Episode, ...]]] = []

    def next(self, n: int, context: Context) -> list[Request]:
        now, self.waiting = self.waiting[:n], self.waiting[n:]
        again = [
            Request(
                task=replace(task, meta={**task.meta, RUNNING: running}), samples=len(running), why="goes on"
            )
            for task, running in now
        ]
        return again + [Request()] * (n - len(again))

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        for group in groups:
            task = replace(group.task, meta={k: v for k, v in group.task.meta.items() if k != RUNNING})
            if running := tuple(replace(e, task=task) for e in group.episodes if e.stop == OPEN):
                self.waiting.append((task, running))

    def report(self) -> dict[str, float]:
        return {"open": float(sum(len(running) for _, running in self.waiting))}

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": list(self.waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = list(state["waiting"])


def stretch(share: float, before: Episode | None) -> Rollout:
    """The next `share` of the length limit of one answer, judged once it has ended or reached the limit.
    notes["window"]: how many tokens this step wrote."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        limit = conversation.generator.params.max_tokens
        if before is None:
            conversation.user(task.prompt)
        else:
            conversation.spans = list(before.spans)
        done = sum(len(s) for s in conversation.spans if s.sampled)
        await conversation.reply(max_tokens=min(max(1, round(share * limit)), limit - done))
        words = np.concatenate([np.zeros(0, np.int32), *(s.tokens for s in conversation.spans if s.sampled)])
        if conversation.stop == "length" and done < len(words) < limit:
            conversation.stop = OPEN
        else:
            await conversation.check(conversation.generator.renderer.decode(words))
        return conversation.done(window=len(words) - done)

    return rollout


def windowed(
    window: Annotated[float, Setting("share of run.max_tokens written per step", low=0.01, high=1)] = 0.5,
) -> GroupRolloutStage:
    """Goes on with the task's open answers, or begins new ones."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        running = {e.index: e for e in rollouts.task.meta.get(RUNNING, ())}
        indices = list(running) or range(rollouts.samples)
        found = await asyncio.gather(*(rollouts.play(i, stretch(window, running.get(i))) for i in indices))
        return [e for episodes in found for e in episodes]

    return group_rollout


def egae(reward: Array, value: Array, gamma: float, lam: float, closed: bool) -> Array:
    """GAE with V = 0 after the end of a closed answer, and V(s_n) := V(s_{n-1}) after the last token of an open one."""
    return gae(reward, value, gamma, lam, last=0.0 if closed else float(value[-1]))[0]


@writes("policy", "value", extras=("returns", "values"))
def extended(
    gamma: Gamma = 1.0,
    lam: Annotated[float, Setting("GAE lambda of the policy", low=0, high=1)] = 0.95,
    whiten: Annotated[bool, Setting("whiten advantages over the batch")] = True,
) -> Credit:
    """The policy learns the tokens of this window by EGAE; the value learns closed answers whole, by their returns
    (lambda = 1)."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        plain = [constant(e, 0.0) for g in groups for e in g.episodes if e.sampled.any()]
        signals = []
        for s, value in zip(plain, context.rows(plain, lambda out: out.heads["value"][:, 0]), strict=True):
            mask, closed = s.episode.sampled, s.episode.stop != OPEN
            fresh = np.arange(len(mask)) >= len(mask) - s.episode.notes["window"]
            reward, v = np.zeros(int(mask.sum())), value[mask]
            reward[-1] = s.episode.reward
            advantage = laid(mask, egae(reward, v, gamma, lam, closed))
            returns = laid(mask, gae(reward, v, gamma, 1.0)[1])
            weights = {"policy": fresh.astype(np.float32), "value": (mask & closed).astype(np.float32)}
            extras = {"returns": returns, "values": value}
            signals.append(Signal(s.episode, advantage * fresh, weights, extras))
        return whitened(signals, on=lambda s: s.weights["policy"] > 0) if whiten else signals

    return credit


def windowed_with_value(
    clip_low: Low = 0.2,
    clip_high: High = 0.28,
    value_clip: ValueClip = 0.2,
    value_weight: ValueWeight = 0.1,
) -> Objective:
    """PPO's objective, its value term on the tokens with a weight of their own."""
    ppo = clipped_with_value(clip_low, clip_high, value_clip, value_weight)
    terms = (replace(t, weight="value") if t.name == "value" else t for t in ppo.terms)
    return replace(ppo, terms=tuple(terms))


def credited(stop: str, window: int, **settings: object) -> list[Array]:
    """What the recipe's credit says of an answer of three tokens, V = 0.2, 0.4, 0.9, of which `window` are new: advantage,
    weights of policy and value, returns. Its reward is 1, or 0 while it is open."""
    episode = example_episode(0.0 if stop == OPEN else 1.0, (1, 2, 3), stop=stop)
    group = Group(episode.task, (replace(episode, notes={**episode.notes, "window": window}),))
    predicted = SimpleNamespace(rows=lambda signals, read: [np.array([0.2, 0.4, 0.9])])
    (s,) = RECIPE.stages["credit"].but(whiten=False, **settings).build("credit")([group], predicted)
    return [s.advantage, s.weights["policy"], s.weights["value"], s.extras["returns"]]


def asked() -> list[list[int]]:
    """How many open answers each of the next two requests goes on with, twice, after a step in which a task had one open
    answer and one closed."""
    pool = RECIPE.stages["curriculum"].build("curriculum")
    answers = (example_episode(0.0, (1, 2), 0, OPEN), example_episode(1.0, (1, 2), 1))
    pool.observe([Group(answers[0].task, answers)], [], None)
    return [[r.samples or 0 for r in pool.next(2, None)] for _ in range(2)]


def reported(stop: str) -> float:
    """The recipe's reward of an answer that is right, or that is open and was not checked."""
    episode = example_episode(1.0, (1, 2), stop=stop)
    scored = RECIPE.stages["reward"].build("reward")(
        replace(episode, verdicts=()) if stop == OPEN else episode
    )
    return float(scored["reward"])


RECIPE = Recipe(
    name="t_ppo",
    base=PPO,
    paper=Paper("Truncated Proximal Policy Optimization", "2506.15050", 2025),
    idea="Each step writes only a window of every answer; what is not finished goes on at the next step, under the newer policy. "
    "The tokens of the window are trained at once, with an advantage that takes the value to stay as it was last seen. "
    "The value itself learns only from answers that have ended.",
    equation="delta_t = r_t + gamma V_{t+1} - V_t, V_n := V_{n-1} if open, 0 if closed;  A_t = sum_k (gamma lambda)^k delta_{t+k}",
    departures=(
        "could not be verified: no code is public, and the paper's settings were not at hand",
        "GUESS: a window of half the longest answer, clip 0.2 / 0.28",
        "open answers are reported with reward 0",
        "a task's attempts go on together: their number falls until all of them are closed, then a new task takes the place",
    ),
    stages={
        "curriculum": stage(Unfinished),
        "group_rollout": stage(windowed),
        "reward": stage(optional_verdict),
        "credit": stage(extended),
        "objective": stage(windowed_with_value),
    },
    needs=("text",),
    confidence="memory",
    claim="Fewer generated-token steps to a target reward than PPO at equal final accuracy.",
    manipulation=(Manipulated("answers wait to be gone on with", r"(group_rollout|curriculum)\.open", 1.0),),
    examples=(
        ByHand("the open answer goes on, once, beside a new task", asked, [[1, 0], [0, 0]]),
        ByHand("right; open", lambda: [reported("end"), reported(OPEN)], [1, 0]),
        ByHand(
            "closed, all new: delta = 0.2, 0.5, 0.1, lambda = 0.95; the value's returns at lambda = 1",
            lambda: credited("end", 3),
            [[0.2 + 0.95 * 0.595, 0.5 + 0.95 * 0.1, 0.1], [1, 1, 1], [1, 1, 1], [1, 1, 1]],
        ),
        ByHand(
            "open, two new: V after the end is the last V, so delta = 0.2, 0.5, 0; nothing for the value",
            lambda: credited(OPEN, 2)[:3],
            [[0, 0.5, 0], [0, 1, 1], [0, 0, 0]],
        ),
        ByHand(
            "open, gamma = 1/2, lambda = 1/2: delta_3 = 0.45 - 0.9, delta_2 = 0.45 - 0.4, delta_1 = 0.2 - 0.2",
            lambda: credited(OPEN, 3, gamma=0.5, lam=0.5)[0],
            [0.25 * (0.05 - 0.25 * 0.45), 0.05 - 0.25 * 0.45, -0.45],
        ),
        OffPolicy(
            "the policy acts on its own tokens (1.25 within the bounds, 1.3 and 0.75 beyond), the value on others, where "
            "0.9 from 0.5 counts as 0.7",
            ratio=(1.25, 1.3, 0.75, 1.0),
            advantage=(1.0, 1.0, -1.0, 5.0),
            weights={"policy": (1, 1, 1, 0), "value": (0, 0, 0, 1)},
            heads={"value": (5.0, 5.0, 5.0, 0.9)},
            extras={"returns": (1.0, 1.0, 1.0, 1.0), "values": (0.5, 0.5, 0.5, 0.5)},
            loss=(-1.25 - 1.28 + 0.8) / 3 + 0.1 * 0.5 * 0.3**2,
            gradient=(-1.25 / 3, 0, 0, 0),
        ),
        Reduction(
            "a window as long as the answer is PPO",
            "ppo",
            {"group_rollout.window": 1.0, "credit.lam": 1.0, "objective.clip_high": 0.2},
            {"credit.lam": 1.0},
        ),
    ),
)
