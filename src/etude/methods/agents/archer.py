"""ArCHer: a critic that judges whole turns, learnt off-policy, and an actor that learns tokens from it.

Zhou et al. (arXiv 2402.19446). A state s_k is the conversation before turn k, an action a_k the whole reply. A copy of the model
with two heads, Q and V, and a slow copy of that (a bar) learn from turns of now and of earlier steps:

    L_Q = (Q(s_k, a_k) - r_k - gamma V_bar(s_{k+1}))^2,   no V_bar behind the last turn
    L_V = (V(s_k) - Q_bar(s_k, a_k))^2,                   on the policy's own, fresh turns
    bar <- (1 - tau) bar + tau critic

The actor: L = - sum_t A_k log pi(a_k,t | s_k, a_k,<t), A_k = Q(s_k, a_k) - V(s_k), the same on all tokens of a turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.credit.group import centred, constant
from etude.fixtures.examples import EXAMPLE_TASK, example_episode
from etude.fixtures.given import GivenContext, GivenModel, example_loss, given_stage
from etude.models.outputs import Outputs
from etude.objective.policy import plain
from etude.objective.terms import MEANS, Objective, Term, objective
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Episode, Group, Signal, Span

CRITIC, SLOW = "critic", "critic_slow"
"""Auxiliary models."""

Q, V = "q", "v"
"""Heads, weight rows of the critic's lesson, and, with _target, its extras."""


def turns_of(episode: Episode) -> list[tuple[int, int]]:
    """Of every reply the first and the last of its tokens. V is read at the first, Q at the last: the outputs at a token know what
    comes before it."""
    ends = np.cumsum([len(s) for s in episode.spans])
    return [
        (int(end) - len(span), int(end) - 1)
        for span, end in zip(episode.spans, ends, strict=True)
        if span.sampled and len(span)
    ]


def squared_errors() -> Objective:
    """L_Q on the last token of a turn, L_V on its first, each a mean over turns."""

    def error(head: str) -> Any:
        def loss(out: Outputs, batch: Batch) -> Tensor:
            return (out.heads[head][:, 0] - batch.extras[f"{head}_target"]) ** 2

        return loss

    terms = [Term(head, error(head), MEANS["token"], weight=head) for head in (Q, V)]
    return objective(*terms, extras={f"{Q}_target", f"{V}_target"}, q=1, v=1)


def lesson(episode: Episode, slow: Array, gamma: float, fresh: bool) -> Signal:
    """What the critic learns of an episode. `slow`: f[T, 2], Q_bar and V_bar at every token."""
    rows = {name: np.zeros(len(episode.tokens), np.float32) for name in (Q, V, f"{Q}_target", f"{V}_target")}
    turns = turns_of(episode)
    for k, (first, last) in enumerate(turns):
        rows[Q][last], rows[V][first] = 1.0, float(fresh)
        ends = k + 1 == len(turns)
        rows[f"{Q}_target"][last] = episode.reward if ends else gamma * slow[turns[k + 1][0], 1]
        rows[f"{V}_target"][first] = slow[last, 0]
    extras = {name: rows[name] for name in (f"{Q}_target", f"{V}_target")}
    return Signal(episode, np.zeros(len(episode.tokens), np.float32), {Q: rows[Q], V: rows[V]}, extras)


class TurnCritic:
    """A_k = Q - V of the turn, after the critic has learnt from the step's episodes and from some of earlier steps."""

    def __init__(
        self,
        discount: Annotated[float, Setting("gamma: a turn later counts so much", low=0, high=1)] = 0.95,
        tau: Annotated[
            float, Setting("share of the critic that its slow copy takes over at a time", low=0, high=1)
        ] = 0.1,
        critic_passes: Annotated[int, Setting("lessons of the critic a step", low=1, high=1000)] = 4,
        held_episodes: Annotated[
            int, Setting("episodes that are kept to learn from", "episodes", low=1)
        ] = 1000,
        old_episodes: Annotated[int, Setting("of these in each lesson, at most", "episodes", low=0)] = 64,
        by_critic: Annotated[
            bool, Setting("advantages by the critic; else by the group's mean return")
        ] = True,
    ) -> None:
        self.gamma, self.tau, self.passes, self.old = discount, tau, critic_passes, old_episodes
        self.by_critic = by_critic
        self.held: deque[Episode] = deque(maxlen=held_episodes)
        self.found: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        if not self.by_critic:
            return [
                self._signal(e, [a * self.gamma**k for k in reversed(range(len(turns_of(e))))])
                for g in groups
                for e, a in zip(g.episodes, centred(g.rewards), strict=True)
            ]
        for number in range(self.passes):
            self._learn(episodes, number, context)
        self.held.extend(episodes)
        rows = self._read(episodes, context.auxiliary[CRITIC].policy, context)
        signals = [
            self._signal(e, [float(row[last, 0] - row[first, 1]) for first, last in turns_of(e)])
            for e, row in zip(episodes, rows, strict=True)
        ]
        values = [
            float(row[first, 1]) for e, row in zip(episodes, rows, strict=True) for first, _ in turns_of(e)
        ]
        self.found = {"value": float(np.mean(values)) if values else 0.0, "held": float(len(self.held))}
        return signals

    def _learn(self, episodes: Sequence[Episode], number: int, context: Context) -> None:
        critic, slow = context.auxiliary[CRITIC], context.auxiliary[SLOW]
        draw = context.rng("turns", number)
        picked = (
            draw.choice(len(self.held), min(self.old, len(self.held)), replace=False).tolist()
            if self.held
            else []
        )
        both = [*episodes, *(self.held[i] for i in sorted(picked))]
        rows = self._read(both, slow.policy, context)
        signals = [
            lesson(e, row, self.gamma, i < len(episodes))
            for i, (e, row) in enumerate(zip(both, rows, strict=True))
        ]
        critic.learn(squared_errors(), signals, context.step, context.progress)
        slow.policy.follow(critic.policy, 1 - self.tau)

    def _read(self, episodes: Sequence[Episode], policy: Any, context: Context) -> list[Array]:
        """f[T, 2] each: Q and V."""
        asked = [constant(e, 0.0) for e in episodes]
        return context.rows(
            asked, lambda out: torch.stack([out.heads[name][:, 0] for name in (Q, V)], 1), policy=policy
        )

    def _signal(self, episode: Episode, advantages: Sequence[float]) -> Signal:
        row = np.zeros(len(episode.tokens), np.float32)
        for (first, last), advantage in zip(turns_of(episode), advantages, strict=True):
            row[first : last + 1] = advantage
        return Signal(episode, row)

    def report(self) -> dict[str, float]:
        return self.found

    def state_dict(self) -> dict[str, Any]:
        return {"held": list(self.held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held = deque(state["held"], self.held.maxlen)


class Slow(GivenModel):
    """A slow copy that remembers how it followed."""

    momentum = 0.0

    def follow(self, other: Any, momentum: float) -> None:
        self.momentum = momentum


def two_turns(reward: float = 1.0) -> Group:
    """A prompt of one token, a reply of two, an observation of one, and a reply of one."""
    episode = example_episode(reward)

    def span(role: str, *tokens: int) -> Span:
        said = role == "assistant"
        logp = -np.ones(len(tokens), np.float32) if said else None
        return Span(role, np.array(tokens, np.int32), said, logp, tag="move" if said else "prompt")

    spans = (span("user", 1), span("assistant", 2, 3), span("user", 4), span("assistant", 5))
    return Group(EXAMPLE_TASK, (replace(episode, spans=spans),))


class Judged:
    """What credit makes of two turns: Q of them is 0.3 and 0.8, V 0.2 and 0.6 (7 stands where nothing is read)."""

    def __init__(self, **settings: Any) -> None:
        known: dict[str, Any] = {"q": [7.0, 0.3, 0.8], "v": [0.2, 7.0, 0.6]}
        self.critic, self.slow = GivenModel(**known), Slow(**known)
        context = GivenContext(auxiliary={CRITIC: self.critic, SLOW: self.slow})
        credit = given_stage(RECIPE, "credit", critic_passes=1, discount=0.5, **settings)
        (self.signal,) = credit([two_turns()], context)

    @property
    def targets(self) -> list[list[float]]:
        """Of Q and of V, turn by turn."""
        ((_, (taught,)),) = self.critic.lessons
        return [
            [float(x) for x in taught.extras[f"{name}_target"][taught.weights[name] > 0]] for name in (Q, V)
        ]

    @property
    def loss(self) -> float:
        ((errors, signals),) = self.critic.lessons
        return example_loss(errors, signals, self.critic)


def _read() -> list[float]:
    """How many episodes the critic reads, step after step of one episode, where one of those held may be read again."""
    model = GivenModel(q=0.0, v=0.0)
    credit = given_stage(RECIPE, "credit", critic_passes=1, old_episodes=1)
    for _ in range(3):
        credit([two_turns()], GivenContext(auxiliary={CRITIC: model, SLOW: Slow(q=0.0, v=0.0)}))
    return [float(len(signals)) for _, signals in model.lessons]


RECIPE: Recipe = Recipe(
    name="archer",
    paper=Paper("ArCHer: Training Language Model Agents via Hierarchical Multi-Turn RL", "2402.19446", 2024),
    published_lr=1e-6,
    idea="In a long episode the last reward says little about a single turn. "
    "A critic learns what a state and a reply to it are worth, from the turns of this step and of earlier ones, and "
    "so judges every turn by itself. The tokens of a turn are praised by how much better it was than its state.",
    equation="L_Q = (Q - r - gamma V'(s'))^2;  L_V = (V - Q'(s, a))^2;  A_k = Q(s_k, a_k) - V(s_k);  L = - mean_i sum_t A log pi",
    departures=(
        "Q and V are heads of one copy of the model that reads the conversation; the paper has a RoBERTa that reads state and action",
        "one Q and one V, where the paper takes the smaller of two each: heads of one trunk that begin at 0 would stay equal",
        "the actor learns from the step's own turns, and V from these; in the paper both take states of the buffer and sample "
        "actions anew",
        "no baseline for single tokens, and no steps at the beginning in which the critic alone learns",
        "Q is read before the last token of a turn, which as a rule is the token that ends it",
    ),
    stages={"credit": stage(TurnCritic), "objective": stage(plain)},
    auxiliary={
        CRITIC: AuxiliaryModel("copy", lr=20.0, heads={Q: 1, V: 1}),
        SLOW: AuxiliaryModel("copy", lr=20.0, heads={Q: 1, V: 1}),
    },
    claim="Fewer episodes to a fixed success rate in a world of many turns than without the critic.",
    manipulation=(Manipulated("the learned value moves by 0.05", r"credit\.value", 0.05, read="range"),),
    examples=(
        ByHand(
            "A = 0.3 - 0.2 on both tokens of the first turn, 0.8 - 0.6 on the second; nothing between",
            lambda: Judged().signal.advantage.tolist(),
            [0, 0.1, 0.1, 0, 0.2],
        ),
        ByHand(
            "targets of Q: half of V of the next state, then the reward; of V: Q",
            lambda: Judged().targets,
            [[0.5 * 0.6, 1.0], [0.3, 0.8]],
        ),
        ByHand("(0 + 0.2^2) / 2 + (0.1^2 + 0.2^2) / 2", lambda: Judged().loss, 0.02 + 0.025),
        ByHand("its own episode; then beside it one of one, one of two that are held", _read, [1, 2, 2]),
        ByHand("the slow copy keeps 1 - tau of itself", lambda: Judged(tau=0.25).slow.momentum, 0.75),
        OffPolicy(
            "no ratio, no clip; summed over two tokens, mean over two answers",
            ratio=(3.0, 1.0, 0.2),
            advantage=(0.5, 0.5, -0.5),
            lengths=(2, 1),
            loss=(-0.5 * (-1 + np.log(3)) - 0.5 * -1 + 0.5 * (-1 + np.log(0.2))) / 2,
            gradient=(-0.25, -0.25, 0.25),
        ),
        Reduction(
            "the group's mean in place of the critic: REINFORCE", "reinforce", {"credit.by_critic": False}
        ),
    ),
)
